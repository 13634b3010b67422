//! Real tokens and certificates against a real store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use std::sync::Mutex;

use super::*;
use crate::control::apiserver::registry;
use crate::control::store::{Change, Draft, Store};
use crate::pki::{Authority, ClientRoots, LeafSpec, SigningKey, VerifyingKey};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Puts an object into the store as the handlers would.
pub(in crate::control::apiserver) async fn put(store: &Store, group: &str, plural: &str, mut object: Value) {
    let row = registry::by_name(group, plural).unwrap();
    let meta = object["metadata"].clone();
    let key = row.key(meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap());
    object["metadata"]["resourceVersion"] = json!("");
    let bytes = serde_json::to_vec(&object).unwrap();
    let mark = b"\"resourceVersion\":\"";
    let revision_at = bytes.windows(mark.len()).position(|part| part == mark).unwrap() + mark.len();
    store.write(&row.bucket, &key, None, Change::Put(Draft { bytes, revision_at })).await.unwrap();
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    ca: Authority,
    front: Authority,
    authenticator: Authenticator,
}

fn accounts(signer: SigningKey) -> ServiceAccounts {
    ServiceAccounts {
        issuers: vec![ISSUER.into()],
        keys: vec![VerifyingKey::from_pem(&signer.public_pem()).unwrap()],
        signer,
        audiences: vec![ISSUER.into()],
        extend: true,
        lookup: true,
        longest: 0,
        jwks_uri: None,
    }
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ca = Authority::new("kubernetes").unwrap();
    for (plural, object) in [
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default", "uid": "sa-1"}})),
        ("pods", json!({"metadata": {"name": "web", "namespace": "default", "uid": "pod-1"}})),
        (
            "secrets",
            json!({
                "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
                "type": "bootstrap.kubernetes.io/token",
                "data": {
                    "token-id": STANDARD.encode("abcdef"),
                    "token-secret": STANDARD.encode("0123456789abcdef"),
                    "usage-bootstrap-authentication": STANDARD.encode("true"),
                    "auth-extra-groups": STANDARD.encode("system:bootstrappers:kubeadm:default-node-token"),
                },
            }),
        ),
    ] {
        put(&store, "", plural, object).await;
    }
    let front = Authority::new("front-proxy-ca").unwrap();
    let proxy = FrontProxy {
        roots: Arc::new(Bundle::new(ClientRoots::from_pem(front.cert_pem().as_bytes()).unwrap())),
        allowed: vec!["front-proxy-client".into()],
        headers: front_proxy::HeaderNames {
            user: vec!["X-Remote-User".into()],
            uid: vec!["X-Remote-Uid".into()],
            group: vec!["X-Remote-Group".into()],
            extra: vec!["X-Remote-Extra-".into()],
        },
    };
    let tokens = Tokens {
        store: store.clone(),
        fixed: Some(static_tokens::StaticTokens::from_csv("fixed,kubelet,7,\"ops\"\n", "t.csv").unwrap()),
        accounts: Some(Arc::new(accounts(SigningKey::generate().unwrap()))),
        bootstrap: true,
        providers: std::sync::RwLock::default(),
        webhook: None,
        known: Mutex::default(),
    };
    let authenticator = Authenticator {
        front_proxy: Some(Arc::new(proxy)),
        roots: Some(Arc::new(Bundle::new(ClientRoots::from_pem(ca.cert_pem().as_bytes()).unwrap()))),
        tokens: Arc::new(tokens),
        anonymous: Anonymous::Allowed,
    };
    World { _dir: dir, store, ca, front, authenticator }
}

impl World {
    async fn ask(&self, authorization: Option<&str>, chain: &[CertificateDer<'static>]) -> Result<UserInfo> {
        let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
        self.ask_with(&headers, chain).await
    }

    async fn ask_with(&self, named: &[(&str, &str)], chain: &[CertificateDer<'static>]) -> Result<UserInfo> {
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let credentials = Credentials { headers: &headers, certificates: chain, path: "/api" };
        self.authenticator.authenticate(credentials).await.map(|owner| owner.user)
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "aud": [ISSUER], "exp": now + 600, "iat": now, "nbf": now, "iss": ISSUER, "jti": "j-1",
            "sub": "system:serviceaccount:default:default",
            "kubernetes.io": {
                "namespace": "default",
                "serviceaccount": {"name": "default", "uid": "sa-1"},
                "pod": {"name": "web", "uid": "pod-1"},
                "node": {"name": "node-1", "uid": "n-1"},
            },
        });
        change(&mut claims);
        format!("Bearer {}", self.authenticator.accounts().unwrap().sign(&claims).unwrap())
    }
}

#[tokio::test]
async fn nothing_is_anonymous_and_anything_wrong_is_unauthorized() {
    let world = world().await;
    assert_eq!(world.ask(None, &[]).await.unwrap(), anonymous());
    assert_eq!(world.ask(Some("Bearer junk"), &[]).await.unwrap_err().code, 401);
    assert_eq!(world.ask(Some("Basic dTpw"), &[]).await.unwrap(), anonymous());
    let stranger =
        Authority::new("other").unwrap().issue(&LeafSpec::client("mallory", &["system:masters"])).unwrap();
    let chain = crate::pki::certificates(stranger.cert_pem.as_bytes()).unwrap();
    assert_eq!(world.ask(None, &chain).await.unwrap_err().code, 401);
}

#[tokio::test]
async fn a_certificate_names_user_and_group() {
    let world = world().await;
    let issued = world.ca.issue(&LeafSpec::client("system:node:node-1", &["system:nodes"])).unwrap();
    let chain = crate::pki::certificates(issued.cert_pem.as_bytes()).unwrap();
    let user = world.ask(None, &chain).await.unwrap();
    assert_eq!(user.name, "system:node:node-1");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
}

#[tokio::test]
async fn a_bootstrap_token_is_a_bootstrapper_and_a_wrong_secret_is_nobody() {
    let world = world().await;
    let user = world.ask(Some("Bearer abcdef.0123456789abcdef"), &[]).await.unwrap();
    assert_eq!(user.name, "system:bootstrap:abcdef");
    let groups =
        ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"];
    assert_eq!(user.groups, groups);
    assert_eq!(world.ask(Some("Bearer abcdef.0123456789abcdee"), &[]).await.unwrap_err().code, 401);
    assert_eq!(world.ask(Some("Bearer zzzzzz.0123456789abcdef"), &[]).await.unwrap_err().code, 401);
}

#[tokio::test]
async fn a_bound_token_is_its_account_and_dies_with_its_pod() {
    let world = world().await;
    let user = world.ask(Some(&world.token(|_| ())), &[]).await.unwrap();
    assert_eq!(user.name, "system:serviceaccount:default:default");
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    );
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=j-1"]);

    let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "pod-2"}});
    put(&world.store, "", "pods", pod).await;
    let again = world.token(|claims| claims["jti"] = json!("j-2"));
    assert_eq!(world.ask(Some(&again), &[]).await.unwrap_err().code, 401);
}

#[tokio::test]
async fn a_token_must_be_in_date_for_us_and_signed_by_us() {
    let world = world().await;
    let now = jiff::Timestamp::now().as_second();
    let expired = world.token(|claims| claims["exp"] = json!(now - 61));
    assert_eq!(world.ask(Some(&expired), &[]).await.unwrap_err().code, 401);
    let elsewhere = world.token(|claims| claims["aud"] = json!(["vault"]));
    assert_eq!(world.ask(Some(&elsewhere), &[]).await.unwrap_err().code, 401);
    let other = accounts(SigningKey::generate().unwrap());
    let forged = other.sign(&json!({"iss": ISSUER, "sub": "x"})).unwrap();
    assert_eq!(world.ask(Some(&format!("Bearer {forged}")), &[]).await.unwrap_err().code, 401);
    let reviewed = elsewhere.strip_prefix("Bearer ").unwrap();
    let owner = world.authenticator.review(reviewed, &["vault".into()]).await.unwrap();
    assert_eq!(owner.audiences, ["vault"]);
    let error = world.authenticator.review(reviewed, &[]).await.unwrap_err();
    assert!(error.contains("token audiences [\"vault\"] is invalid for the target audiences"), "{error}");
}

#[tokio::test]
async fn a_wrong_certificate_does_not_spoil_a_right_token_but_alone_it_is_unauthorized() {
    let world = world().await;
    let stranger = Authority::new("other").unwrap().issue(&LeafSpec::client("mallory", &[])).unwrap();
    let chain = crate::pki::certificates(stranger.cert_pem.as_bytes()).unwrap();
    assert_eq!(world.ask(Some("Bearer fixed"), &chain).await.unwrap().name, "kubelet");
    assert_eq!(world.ask(Some("Bearer wrong"), &chain).await.unwrap_err().code, 401);
    assert_eq!(world.ask(None, &chain).await.unwrap_err().code, 401);
}

#[tokio::test]
async fn only_the_front_proxy_speaks_for_others() {
    let world = world().await;
    let chain = |ca: &Authority, cn: &str| {
        let issued = ca.issue(&LeafSpec::client(cn, &[])).unwrap();
        crate::pki::certificates(issued.cert_pem.as_bytes()).unwrap()
    };
    let headers = [
        ("X-Remote-User", "jane"),
        ("X-Remote-Group", "devs"),
        ("X-Remote-Group", "ops"),
        ("X-Remote-Extra-Acme.com%2Fteam", "red"),
    ];
    let jane = world.ask_with(&headers, &chain(&world.front, "front-proxy-client")).await.unwrap();
    assert_eq!((jane.name.as_str(), jane.groups.join(",")), ("jane", "devs,ops,system:authenticated".into()));
    assert_eq!(jane.extra["acme.com/team"], ["red"]);
    // Nobody else: not without a certificate, not with a client's, not by another name of the same authority.
    assert_eq!(world.ask_with(&headers, &[]).await.unwrap(), anonymous());
    assert_eq!(world.ask_with(&headers, &chain(&world.ca, "bob")).await.unwrap().name, "bob");
    assert_eq!(world.ask_with(&headers, &chain(&world.front, "somebody")).await.unwrap_err().code, 401);
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    world.authenticator.strip(&mut map);
    assert!(map.is_empty(), "{map:?}");
}

#[tokio::test]
async fn a_static_token_is_for_this_server_only() {
    let world = world().await;
    assert_eq!(
        world.authenticator.review("fixed", &[]).await.unwrap().user.groups,
        ["ops", "system:authenticated"]
    );
    assert!(world.authenticator.review("fixed", &["vault".into()]).await.is_err());
}

#[tokio::test]
async fn a_late_token_is_told_to_the_audit_log() {
    let world = world().await;
    let late = world.token(|claims| claims["kubernetes.io"]["warnafter"] = json!(1));
    let owner = world.authenticator.review(late.strip_prefix("Bearer ").unwrap(), &[]).await.unwrap();
    let said = &owner.annotations["authentication.k8s.io/stale-token"];
    assert!(said.starts_with("subject: system:serviceaccount:default:default, seconds after"), "{said}");
}

/// Every way to bend a token that the standards' own papers warn of.
#[tokio::test]
async fn forged_and_broken_tokens_are_unauthorized() {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
    let world = world().await;
    let good = world.token(|_| ());
    let (header, rest) = good.strip_prefix("Bearer ").unwrap().split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let none = URL.encode(r#"{"alg":"none"}"#);
    let hmac = URL.encode(r#"{"alg":"HS256"}"#);
    let now = jiff::Timestamp::now().as_second();
    let admin = String::from_utf8(URL.decode(claims).unwrap())
        .unwrap()
        .replace("default:default", "kube-system:root");
    let mut long = good.clone();
    long.push_str(&"A".repeat(100_000));
    for forged in [
        format!("Bearer {none}.{claims}."),
        format!("Bearer {none}.{claims}.{signature}"),
        format!("Bearer {hmac}.{claims}.{signature}"),
        format!("Bearer {header}.{claims}"),
        format!("Bearer {header}.{claims}."),
        format!("Bearer {header}.{}.{signature}", URL.encode(admin)),
        format!("Bearer {header}.{claims}.{}", &signature[1..]),
        format!("Bearer .{claims}.{signature}"),
        format!("Bearer {}", &good[8..]),
        long,
        world.token(|claims| claims["exp"] = json!(now - 3600)),
        world.token(|claims| claims["exp"] = json!(null)),
        world.token(|claims| claims["nbf"] = json!(now + 3600)),
        world.token(|claims| claims["aud"] = json!("vault")),
        world.token(|claims| claims["iss"] = json!("https://elsewhere")),
        world.token(|claims| claims["sub"] = json!("system:serviceaccount:kube-system:root")),
        world.token(|claims| claims["kubernetes.io"]["serviceaccount"]["uid"] = json!("other")),
        world.token(|claims| claims["kubernetes.io"]["pod"]["uid"] = json!("other")),
    ] {
        let answer = world.ask(Some(&forged), &[]).await;
        assert_eq!(answer.map_err(|status| status.code), Err(401), "{}", &forged[..forged.len().min(80)]);
    }
    assert!(world.ask(Some(&good), &[]).await.is_ok());
}
