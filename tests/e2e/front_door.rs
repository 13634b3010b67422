//! The front door: every credential, every authorizer, and the answers upstream gives.

use serde_json::{Value, json};

use crate::forged::{ROBOT, account_tokens};
use crate::kit::server::{Answer, ApiServer, Ca, Pair};
use crate::webhooks::webhook;

/// What a caller shows.
struct Credential {
    name: &'static str,
    pair: Option<Pair>,
    headers: Vec<(&'static str, String)>,
    /// Who that is; nobody means 401.
    user: Option<&'static str>,
    master: bool,
}

fn credential(
    name: &'static str,
    pair: Option<Pair>,
    headers: &[(&'static str, &str)],
    user: Option<&'static str>,
) -> Credential {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Credential { name, pair, headers, user, master: false }
}

fn credentials(server: &ApiServer, anonymous: Option<&'static str>) -> Vec<Credential> {
    let (ca, front, other) = (&server.ca, &server.front, Ca::new("other"));
    let proxy = front.client("front-proxy-client", "");
    let remote = [("X-Remote-User", "carol"), ("X-Remote-Group", "ops")];
    let old = rcgen::date_time_ymd(2001, 1, 1);
    let late = ca.issue("alice", "devs", |params| {
        (params.not_before, params.not_after) = (old, rcgen::date_time_ymd(2002, 1, 1))
    });
    let early = ca.issue("alice", "devs", |params| {
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2090, 1, 1), rcgen::date_time_ymd(2091, 1, 1));
    });
    let serving = ca.issue("alice", "devs", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let bearer = |token: &str| ("Authorization", format!("Bearer {token}"));
    let with = |name, token: &str, user| {
        let (header, value) = bearer(token);
        credential(name, None, &[(header, value.as_str())], user)
    };
    let encoded = "base64url.bearer.authorization.k8s.io.amFuZS10b2tlbg";
    let websocket = |offers: &str| {
        vec![("Upgrade", "websocket".to_owned()), ("Sec-WebSocket-Protocol", offers.to_owned())]
    };
    let mut all = vec![
        credential("nothing", None, &[], anonymous),
        credential("an unknown scheme", None, &[("Authorization", "Basic amFuZTp4")], anonymous),
        with("a static token", "jane-token", Some("jane")),
        with("a wrong token", "junk", None),
        with("an unsigned JWT", "eyJhbGciOiJub25lIn0.e30.", None),
        with("a wrong bootstrap token", "abcdef.0123456789abcdee", None),
        with("a bootstrap token", "abcdef.0123456789abcdef", Some("system:bootstrap:abcdef")),
        credential("a certificate", Some(ca.client("alice", "devs")), &[], Some("alice")),
        credential(
            "another authority's certificate",
            Some(other.client("alice", "system:masters")),
            &[],
            None,
        ),
        credential("an expired certificate", Some(late), &[], None),
        credential("a certificate of tomorrow", Some(early), &[], None),
        credential("a serving certificate", Some(serving), &[], None),
        credential("a front proxy", Some(proxy.clone()), &remote, Some("carol")),
        credential("a front proxy without headers", Some(proxy), &[], None),
        credential(
            "another name of the front proxy's authority",
            Some(front.client("mallory", "")),
            &remote,
            None,
        ),
        credential("a front proxy's headers alone", None, &remote, anonymous),
        credential(
            "a front proxy's headers with a client's certificate",
            Some(ca.client("alice", "devs")),
            &remote,
            Some("alice"),
        ),
        credential(
            "a wrong certificate and a right token",
            Some(other.client("mallory", "")),
            &[("Authorization", "Bearer jane-token")],
            Some("jane"),
        ),
        Credential {
            headers: websocket(&format!("v5.channel.k8s.io, {encoded}")),
            ..credential("a token among subprotocols", None, &[], Some("jane"))
        },
        Credential {
            headers: websocket(encoded),
            ..credential("a token as the only subprotocol", None, &[], None)
        },
    ];
    for (name, token, user) in account_tokens(server) {
        let (header, value) = bearer(&token);
        all.push(credential(name, None, &[(header, value.as_str())], user));
    }
    all.push(credential("bytes that are no text", None, &[("Authorization", "Bearer \u{ff}\u{fe}")], None));
    all.push(Credential {
        master: true,
        ..credential("a master's certificate", Some(ca.client("root", "system:masters")), &[], Some("root"))
    });
    all
}

/// What is asked: path, and what a refusal says after the user's name.
const REQUESTS: &[(&str, &str, bool)] = &[
    ("/version", "forbidden: User {user} cannot get path \"/version\"", true),
    ("/", "forbidden: User {user} cannot get path \"/\"", false),
    (
        "/api/v1/namespaces/default/pods",
        "pods is forbidden: User {user} cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        false,
    ),
    (
        "/api/v1/namespaces/default/secrets/db",
        "secrets \"db\" is forbidden: User {user} cannot get resource \"secrets\" in API group \"\" in the namespace \"default\"",
        false,
    ),
    (
        "/api/v1/nodes",
        "nodes is forbidden: User {user} cannot list resource \"nodes\" in API group \"\" at the cluster scope",
        false,
    ),
    (
        "/apis/apps/v1/namespaces/default/deployments/web/scale",
        "deployments.apps \"web\" is forbidden: User {user} cannot get resource \"deployments/scale\" in API group \"apps\" in the namespace \"default\"",
        false,
    ),
];

fn ask(server: &ApiServer, who: &Credential, path: &str) -> Answer {
    let headers: Vec<(&str, &str)> =
        who.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    server.ask(who.pair.as_ref(), "GET", path, &headers, "")
}

fn bootstrap_token(server: &ApiServer) {
    server.root(
        "POST",
        "/api/v1/namespaces/kube-system/secrets",
        &json!({
            "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"},
        }),
    );
}

/// How an authorizer treats those who are no masters.
enum Rule {
    Everything,
    /// And what the refusal ends with.
    Nothing(&'static str),
    Rbac,
}

/// Every cell: who, by which authorizer, for what.
fn table(server: &ApiServer, rule: &Rule, anonymous: Option<&'static str>) {
    bootstrap_token(server);
    for who in credentials(server, anonymous) {
        for (path, refusal, public) in REQUESTS {
            let answer = ask(server, &who, path);
            let cell = format!("{} asks for {path}: {answer:?}", who.name);
            let Some(user) = who.user else {
                assert_eq!(answer.code, 401, "{cell}");
                assert_eq!(answer.json(), unauthorized(), "{cell}");
                continue;
            };
            let allowed = match rule {
                Rule::Everything => true,
                Rule::Nothing(_) => who.master,
                Rule::Rbac => who.master || *public,
            };
            if allowed {
                assert!(matches!(answer.code, 200 | 404), "{cell}");
                continue;
            }
            let mut message = refusal.replace("{user}", &format!("{user:?}"));
            if let Rule::Nothing(why) = rule {
                message += why;
            }
            let status = answer.json();
            assert_eq!((answer.code, &status["message"]), (403, &json!(message)), "{cell}");
            assert_eq!((&status["reason"], &status["code"]), (&json!("Forbidden"), &json!(403)), "{cell}");
        }
    }
}

fn unauthorized() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
        "reason": "Unauthorized", "code": 401,
    })
}

#[test]
fn every_credential_meets_rbac() {
    table(&ApiServer::start(&[], &["--authorization-mode=Node,RBAC"]), &Rule::Rbac, Some("system:anonymous"));
}

#[test]
fn every_credential_is_everything_under_always_allow_and_nobody_is_anonymous() {
    // No flag at all means AlwaysAllow, and then anonymous requests are refused whatever was asked for.
    let server = ApiServer::start(&[], &["--anonymous-auth=true"]);
    assert!(server.log().contains("AnonymousAuth is not allowed with the AlwaysAllow authorizer"));
    table(&server, &Rule::Everything, None);
}

#[test]
fn only_masters_pass_always_deny() {
    let server = ApiServer::start(&[], &["--authorization-mode=AlwaysDeny"]);
    table(&server, &Rule::Nothing(": Everything is forbidden."), Some("system:anonymous"));
}

#[test]
fn nobody_here_is_a_node_and_the_node_authorizer_says_nothing_of_others() {
    let server = ApiServer::start(&[], &["--authorization-mode=Node"]);
    table(&server, &Rule::Nothing(""), Some("system:anonymous"));
}

#[test]
fn every_credential_meets_a_webhook_that_refuses_with_a_reason() {
    let (config, asked) = webhook(|_| json!({"allowed": false, "denied": true, "reason": "not today"}));
    let server = ApiServer::start(
        &[("access.conf", &config)],
        &[
            "--authorization-mode=Webhook",
            "--authorization-webhook-version=v1",
            "--authorization-webhook-config-file={dir}/access.conf",
        ],
    );
    table(&server, &Rule::Nothing(": not today"), Some("system:anonymous"));
    assert!(asked.lock().unwrap().iter().any(|review| review["spec"]["user"] == ROBOT));
}

#[test]
fn anonymous_requests_can_be_limited_to_paths() {
    let config = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n";
    let server = ApiServer::start(
        &[("authn.yaml", config)],
        &["--authorization-mode=RBAC", "--authentication-config={dir}/authn.yaml"],
    );
    let code = |path: &str| server.ask(None, "GET", path, &[], "").code;
    assert_eq!((code("/livez"), code("/version"), code("/livez/ping")), (200, 401, 401));
}

#[test]
fn impersonation_needs_the_verb_and_a_smuggled_identity_stays_outside() {
    let server = ApiServer::start(&[], &["--authorization-mode=RBAC"]);
    let whoami = |headers: &[(&str, &str)]| {
        let review =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        server.ask(None, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", headers, &review)
    };
    let jane = ("Authorization", "Bearer jane-token");
    let refused = whoami(&[jane, ("Impersonate-User", "root"), ("Impersonate-Group", "system:masters")]);
    assert_eq!(
        (refused.code, refused.json()["message"].as_str().unwrap()),
        (
            403,
            "selfsubjectreviews.authentication.k8s.io is forbidden: User \"jane\" cannot impersonate-on:user-info:create resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope"
        )
    );
    let root = ("Authorization", "Bearer root-token");
    let acted = whoami(&[
        root,
        ("Impersonate-User", "system:serviceaccount:default:robot"),
        ("Impersonate-Extra-Team", "red"),
    ])
    .json();
    let user = &acted["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    assert_eq!(user["extra"], json!({"team": ["red"]}));
    // The front proxy's headers, in any spelling, from somebody who is no front proxy.
    for name in ["X-Remote-User", "x-remote-user", "X-REMOTE-USER", "X-Remote-Group", "X-Remote-Extra-Scopes"]
    {
        let own = whoami(&[jane, (name, "system:masters")]).json();
        assert_eq!(own["status"]["userInfo"]["username"], "jane", "{name}");
        assert_eq!(own["status"]["userInfo"]["groups"], json!(["devs", "system:authenticated"]), "{name}");
    }
    // A group without a user is nobody to act as.
    let nameless = whoami(&[root, ("Impersonate-Group", "devs")]);
    assert_eq!((nameless.code, nameless.json()["reason"].as_str()), (400, Some("BadRequest")));
    // What names no identity is nobody's business, and names are bytes, not only ASCII.
    for headers in [[root, ("Impersonate-Foo", "x")], [root, ("Impersonate-User", "")]] {
        assert_eq!(whoami(&headers).json()["status"]["userInfo"]["username"], "root", "{headers:?}");
    }
    let named = whoami(&[root, ("Impersonate-User", "josé")]).json();
    assert_eq!(named["status"]["userInfo"]["username"], "josé");
}

#[test]
fn nobody_grants_more_than_they_hold_and_gathered_roles_follow_their_parts() {
    let server = ApiServer::start(&[], &["--authorization-mode=RBAC"]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    server.root("POST", &format!("{rbac}/clusterroles"), &json!({
        "metadata": {"name": "role-maker"},
        "rules": [
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        ],
    }));
    server.root("POST", &format!("{rbac}/clusterrolebindings"), &json!({
        "metadata": {"name": "jane"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "role-maker"},
    }));
    let make = |resource: &str, object: Value| {
        let path = format!("{rbac}/namespaces/default/{resource}");
        server.ask(None, "POST", &path, &[("Authorization", "Bearer jane-token")], &object.to_string())
    };
    let role = |name: &str, verbs: Value| json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]});
    assert_eq!(make("roles", role("same", json!(["get"]))).code, 201);
    let refused = make("roles", role("more", json!(["get", "delete", "list"])));
    assert_eq!(
        refused.json()["message"].as_str().unwrap(),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"list\"]}"
    );
    let bind = |role: &str| {
        make(
            "rolebindings",
            json!({
                "metadata": {"name": format!("to-{role}")},
                "subjects": [{"kind": "User", "name": "joe", "apiGroup": "rbac.authorization.k8s.io"}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            }),
        )
    };
    assert_eq!(bind("cluster-admin").code, 403);
    assert_eq!(bind("none").code, 404);
    assert_eq!(bind("role-maker").code, 201);
}

#[test]
fn what_upstream_refuses_at_its_start_is_refused() {
    let refused = |files: &[(&str, &str)], flags: &[&str], said: &str| {
        let outcome = ApiServer::try_start(files, flags);
        assert!(outcome.as_ref().is_err_and(|log| log.contains(said)), "{said}: {:?}", outcome.err());
    };
    refused(&[], &["--authorization-mode=RBAC,RBAC"], "specified more than once");
    refused(&[], &["--authorization-mode=Magic"], "is not a valid mode");
    refused(
        &[],
        &["--enable-admission-plugins=Nonsense"],
        "enable-admission-plugins plugin \"Nonsense\" is unknown",
    );
    refused(
        &[("a.yaml", "kind: X\napiVersion: v1\n")],
        &["--authentication-config={dir}/a.yaml"],
        "no kind \"X\"",
    );
    refused(
        &[("front.crt", "")],
        &["--requestheader-allowed-names=", "--requestheader-client-ca-file={dir}/ca.crt"],
        "contain overlapping certificates",
    );
    refused(
        &[("p.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\n")],
        &["--audit-policy-file={dir}/p.yaml", "--audit-log-path={dir}/l"],
        "illegal policy with 0 rules",
    );
}
