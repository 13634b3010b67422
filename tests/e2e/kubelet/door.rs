//! Who is let in to what: authentication × authorization × endpoint, in upstream's words.

use super::{put, reconfigure, replaced};
use crate::kit::Lab;

/// How a kubelet's door is set.
#[derive(Clone, Copy, Debug)]
struct Door {
    /// Certificates are looked at (`clientCAFile`).
    x509: bool,
    anonymous: bool,
    /// Bearer tokens are asked about.
    webhook: bool,
    /// The API server decides; else whoever is known may all.
    asks: bool,
}

/// What a caller shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Nothing,
    JunkToken,
    /// Of an account that may nothing.
    PlainToken,
    /// Of an account that may `get nodes/proxy`.
    ProxyToken,
    /// Of an account that may `get nodes/metrics` and `get nodes/pods`.
    FineToken,
    /// The API server's client certificate.
    Certificate,
    /// A certificate nobody here knows.
    StrangeCertificate,
    /// The same, with a good token beside it.
    StrangeCertificateAndPlainToken,
}

const SHOWN: &[Shown] = &[
    Shown::Nothing,
    Shown::JunkToken,
    Shown::PlainToken,
    Shown::ProxyToken,
    Shown::FineToken,
    Shown::Certificate,
    Shown::StrangeCertificate,
    Shown::StrangeCertificateAndPlainToken,
];

/// A request, how upstream names it to the authorizer, and what it gives whoever may.
struct Endpoint {
    method: &'static str,
    path: &'static str,
    verb: &'static str,
    subresources: &'static [&'static str],
    /// Status, and the body where it is always the same.
    given: (u16, Option<&'static str>),
}

const fn get(path: &'static str, subresources: &'static [&'static str], status: u16) -> Endpoint {
    Endpoint { method: "GET", path, verb: "get", subresources, given: (status, None) }
}

const fn post(path: &'static str, subresources: &'static [&'static str], status: u16) -> Endpoint {
    Endpoint { method: "POST", verb: "create", ..get(path, subresources, status) }
}

/// The same with a body that is always the same.
const fn says(endpoint: Endpoint, body: &'static str) -> Endpoint {
    Endpoint { given: (endpoint.given.0, Some(body)), ..endpoint }
}

const NO_STREAM: &str = "you must specify at least 1 of stdin, stdout, stderr";
const NO_POD: &str = "pod does not exist";
const NO_PAGE: &str = "404: Page Not Found";
const NO_METHOD: &str = "405: Method Not Allowed";
const NO_UPGRADE: &str = "Upgrade request required\n";

/// Every endpoint; `door` is a pod that runs.
const ENDPOINTS: &[Endpoint] = &[
    says(get("/healthz", &["healthz", "proxy"], 200), "ok"),
    says(get("/healthz/ping", &["healthz", "proxy"], 200), "ok"),
    says(get("/healthz/log", &["healthz", "proxy"], 200), "ok"),
    says(get("/healthz/syncloop", &["healthz", "proxy"], 200), "ok"),
    get("/pods", &["pods", "proxy"], 200),
    get("/runningpods/", &["pods", "proxy"], 200),
    get("/configz", &["configz", "proxy"], 200),
    get("/stats/summary?only_cpu_and_memory=true", &["stats"], 200),
    post("/stats/summary?only_cpu_and_memory=true", &["stats"], 200),
    get("/metrics", &["metrics"], 200),
    get("/metrics/cadvisor", &["metrics"], 200),
    get("/metrics/resource", &["metrics"], 200),
    get("/metrics/probes", &["metrics"], 200),
    get("/metrics/slis", &["metrics"], 200),
    get("/logs/", &["log"], 200),
    get("/logs/no-such-file", &["log"], 404),
    get("/statusz", &["statusz"], 200),
    get("/flagz", &["configz"], 200),
    says(get("/containerLogs/default/door/door", &["proxy"], 200), "the door is open\n"),
    says(get("/containerLogs/default/no/no", &["proxy"], 404), "pod \"no\" does not exist"),
    says(
        get("/containerLogs/default/door/no", &["proxy"], 404),
        "container \"no\" not found in pod \"door\"",
    ),
    says(get("/exec/default/no/no?command=id", &["proxy"], 400), NO_STREAM),
    says(get("/exec/default/no/no?command=id&output=1", &["proxy"], 404), NO_POD),
    says(post("/exec/default/no/no/no?command=id&output=1", &["proxy"], 404), NO_POD),
    says(post("/exec/default/door/door?command=id&output=1", &["proxy"], 500), NO_UPGRADE),
    says(get("/attach/default/no/no?output=1", &["proxy"], 404), NO_POD),
    says(post("/attach/default/no/no", &["proxy"], 400), NO_STREAM),
    says(get("/portForward/default/no?port=80", &["proxy"], 404), NO_POD),
    says(post("/portForward/default/no", &["proxy"], 404), NO_POD),
    says(post("/run/default/door/door?cmd=echo%20let%20in", &["proxy"], 200), "let in\n"),
    says(post("/run/default/no/no?cmd=id", &["proxy"], 404), NO_POD),
    says(get("/run/default/door/door?cmd=id", &["proxy"], 405), NO_METHOD),
    says(post("/checkpoint/default/no/no", &["checkpoint"], 404), NO_POD),
    get("/debug/pprof/cmdline", &["proxy"], 200),
    Endpoint { method: "PUT", verb: "update", ..get("/debug/flags/v", &["proxy"], 400) },
    says(get("/exec/default", &["proxy"], 404), NO_PAGE),
    Endpoint { method: "PUT", verb: "update", ..says(get("/pods", &["pods", "proxy"], 405), NO_METHOD) },
    Endpoint { method: "PATCH", verb: "patch", ..says(get("/pods", &["pods", "proxy"], 405), NO_METHOD) },
    Endpoint { method: "DELETE", verb: "delete", ..says(get("/pods", &["pods", "proxy"], 405), NO_METHOD) },
    Endpoint { method: "OPTIONS", verb: "", ..says(get("/pods", &["pods", "proxy"], 405), NO_METHOD) },
];

impl Door {
    /// Who the caller is then; nothing: 401.
    fn caller(self, shown: Shown) -> Option<&'static str> {
        let nobody = self.anonymous.then_some("system:anonymous");
        let account = |name| if self.webhook { Some(name) } else { nobody };
        let shown = match shown {
            Shown::Certificate | Shown::StrangeCertificate if !self.x509 => Shown::Nothing,
            Shown::StrangeCertificateAndPlainToken if !self.x509 => Shown::PlainToken,
            other => other,
        };
        match shown {
            Shown::Nothing => nobody,
            Shown::JunkToken if self.webhook => None,
            // A credential nobody looks at is none.
            Shown::JunkToken => nobody,
            Shown::PlainToken => account("system:serviceaccount:default:plain"),
            Shown::ProxyToken => account("system:serviceaccount:default:proxying"),
            Shown::FineToken => account("system:serviceaccount:default:fine"),
            Shown::Certificate => Some("kube-apiserver-kubelet-client"),
            Shown::StrangeCertificate => None,
            Shown::StrangeCertificateAndPlainToken => {
                self.webhook.then_some("system:serviceaccount:default:plain")
            }
        }
    }

    /// Status and body, the latter where it is known word for word.
    fn answer(self, shown: Shown, endpoint: &Endpoint) -> (u16, Option<String>) {
        let Some(caller) = self.caller(shown) else { return (401, Some("Unauthorized".into())) };
        if self.asks && !may(caller, endpoint) {
            let Endpoint { verb, subresources, .. } = endpoint;
            let tried = subresources.join(" ");
            let body =
                format!("Forbidden (user={caller}, verb={verb}, resource=nodes, subresource(s)=[{tried}])\n");
            return (403, Some(body));
        }
        (endpoint.given.0, endpoint.given.1.map(str::to_owned))
    }
}

fn may(caller: &str, endpoint: &Endpoint) -> bool {
    let among = |granted: &[&str]| endpoint.subresources.iter().any(|one| granted.contains(one));
    match caller {
        // system:kubelet-api-admin
        "kube-apiserver-kubelet-client" => {
            among(&["proxy", "metrics", "stats", "log", "pods", "healthz", "configz"])
        }
        "system:serviceaccount:default:proxying" => endpoint.verb == "get" && among(&["proxy"]),
        "system:serviceaccount:default:fine" => endpoint.verb == "get" && among(&["metrics", "pods"]),
        _ => false,
    }
}

const ACCOUNTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: plain}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: proxying}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: fine}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: proxying}
rules: [{apiGroups: [''], resources: [nodes/proxy], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: fine}
rules: [{apiGroups: [''], resources: [nodes/metrics, nodes/pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: proxying}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: proxying}
subjects: [{kind: ServiceAccount, name: proxying, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fine}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: fine}
subjects: [{kind: ServiceAccount, name: fine, namespace: default}]
";

/// What is between two answers of a script.
const BETWEEN: &str = "\\n@@@@ ";

/// Asks everything of one door by one client for each credential, so that thousands of requests take seconds.
fn ask(lab: &Lab, tokens: &[(Shown, String)]) -> Vec<(u16, String)> {
    let pki = "/etc/kubernetes/pki/apiserver-kubelet-client";
    let certificate = |stem: &str| format!("cert = {stem}.crt\nkey = {stem}.key\n");
    let token = |shown| {
        let (_, token) = tokens.iter().find(|(whose, _)| *whose == shown).unwrap();
        format!("header = \"Authorization: Bearer {token}\"\n")
    };
    let mut answers = Vec::new();
    for shown in SHOWN {
        let words = match shown {
            Shown::Nothing => String::new(),
            Shown::JunkToken => "header = \"Authorization: Bearer junk\"\n".to_owned(),
            Shown::PlainToken | Shown::ProxyToken | Shown::FineToken => token(*shown),
            Shown::Certificate => certificate(pki),
            Shown::StrangeCertificate => certificate("/tmp/strange"),
            Shown::StrangeCertificateAndPlainToken => certificate("/tmp/strange") + &token(Shown::PlainToken),
        };
        let one = |Endpoint { method, path, .. }: &Endpoint| {
            format!(
                "url = \"https://192.0.2.11:10250{path}\"\nrequest = {method}\n{words}insecure\nsilent\npath-as-is\n\
                 max-time = 20\nwrite-out = \"{BETWEEN}%{{http_code}}{BETWEEN}\"\n"
            )
        };
        let all: Vec<String> = ENDPOINTS.iter().map(one).collect();
        put(lab, "control", "/tmp/ask", &all.join("next\n"));
        let said = lab.on("control", &["curl", "-K", "/tmp/ask"]);
        let parts: Vec<&str> = said.split("\n@@@@ ").collect();
        answers.extend(parts.chunks_exact(2).map(|pair| (pair[1].parse().unwrap(), pair[0].to_owned())));
    }
    answers
}

/// Authentication × authorization: all that a kubelet starts with.
fn doors() -> Vec<Door> {
    let both = [false, true];
    let mut all = Vec::new();
    for (x509, anonymous, webhook, asks) in both
        .into_iter()
        .flat_map(|a| both.map(|b| (a, b)))
        .flat_map(|(a, b)| both.map(|c| (a, b, c)))
        .flat_map(|(a, b, c)| both.map(|d| (a, b, c, d)))
    {
        if x509 || anonymous || webhook {
            all.push(Door { x509, anonymous, webhook, asks });
        }
    }
    all
}

#[test]
fn every_credential_gets_what_the_door_gives_it_and_no_more() {
    let lab = Lab::up();
    lab.apply(ACCOUNTS);
    let token = |name: &str| lab.kubectl(&["create", "token", name]).ok().trim().to_owned();
    let tokens = [
        (Shown::PlainToken, token("plain")),
        (Shown::ProxyToken, token("proxying")),
        (Shown::FineToken, token("fine")),
    ];
    let strange = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    put(&lab, "control", "/tmp/strange.crt", &strange.cert.pem());
    put(&lab, "control", "/tmp/strange.key", &strange.signing_key.serialize_pem());
    lab.run_on("node-1", "door", "echo the door is open; exec sleep 10000");
    for door in doors() {
        let Door { x509, anonymous, webhook, asks } = door;
        let mode = if asks { "Webhook" } else { "AlwaysAllow" };
        let authority = if x509 { "{clientCAFile: /etc/kubernetes/pki/ca.crt}" } else { "{}" };
        let blocks = format!(
            "authentication:\n  anonymous: {{enabled: {anonymous}}}\n  webhook: {{enabled: {webhook}, cacheTTL: 2s}}\n  \
             x509: {authority}\nauthorization:\n  mode: {mode}\n"
        );
        reconfigure(&lab, "node-1", |config| {
            replaced(&config, &["authentication", "authorization"], &blocks)
        });
        let answers = ask(&lab, &tokens);
        let table = SHOWN.iter().flat_map(|shown| ENDPOINTS.iter().map(move |endpoint| (*shown, endpoint)));
        let mut wrong = Vec::new();
        let mut count = 0;
        for ((shown, endpoint), (status, body)) in table.zip(&answers) {
            count += 1;
            let (expected, words) = door.answer(shown, endpoint);
            if *status != expected || words.as_ref().is_some_and(|words| words != body) {
                let Endpoint { method, path, .. } = endpoint;
                wrong.push(format!(
                    "{shown:?} {method} {path}: {status} {body:?}, expected {expected} {words:?}"
                ));
            }
        }
        assert_eq!(count, SHOWN.len() * ENDPOINTS.len(), "every request was answered");
        assert!(wrong.is_empty(), "{door:?}\n{}", wrong.join("\n"));
    }
    let unknown =
        lab.on("control", &["curl", "-sk", "-w", " %{http_code}", "https://192.0.2.11:10250/nothing"]);
    assert_eq!(unknown, "404 page not found\n 404", "what is not there asks nobody for a name");
}

#[test]
fn the_read_only_port_shows_pods_to_anybody_and_runs_nothing() {
    let lab = Lab::up();
    let patient = ["--retry", "5", "--retry-connrefused", "-m", "30"];
    let fetch = |url: &str| {
        let words = [&["curl", "-s", "-w", " %{http_code}"][..], &patient, &[url]].concat();
        lab.on("control", &words)
    };
    let closed =
        lab.minilab(&["exec", "control", "--", "curl", "-s", "-m", "5", "http://192.0.2.11:10255/pods"]);
    assert_ne!(closed.code, 0, "with a configuration file the port is closed by default");
    reconfigure(&lab, "node-1", |config| replaced(&config, &["readOnlyPort"], "readOnlyPort: 10255\n"));
    let pods = fetch("http://192.0.2.11:10255/pods");
    assert!(pods.contains("\"kind\":\"PodList\"") && pods.ends_with(" 200"), "{pods}");
    assert_eq!(fetch("http://192.0.2.11:10255/healthz"), "ok 200");
    let off = "Debug endpoints are disabled.\n 405";
    for path in ["/exec/default/a/b", "/run/default/a/b", "/containerLogs/a/b/c", "/runningpods/", "/logs/"] {
        assert_eq!(fetch(&format!("http://192.0.2.11:10255{path}")), off, "{path}");
    }
    assert_eq!(fetch("http://192.0.2.11:10255/configz"), "404 page not found\n 404");
    let health = lab.on("node-1", &["curl", "-s", "-w", " %{http_code}", "http://127.0.0.1:10248/healthz"]);
    assert_eq!(health, "ok 200");
}
