//! The kubelet's own door: who is let in to what, with which certificate it answers, in upstream's words.

use std::time::Duration;

use crate::kit::{Lab, eventually};

/// How a kubelet's door is set.
#[derive(Clone, Copy, Debug)]
struct Door {
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

const ENDPOINTS: &[Endpoint] = &[
    Endpoint { given: (200, Some("ok")), ..get("/healthz", &["healthz", "proxy"], 200) },
    get("/pods", &["pods", "proxy"], 200),
    get("/runningpods/", &["pods", "proxy"], 200),
    get("/configz", &["configz", "proxy"], 200),
    get("/stats/summary?only_cpu_and_memory=true", &["stats"], 200),
    get("/metrics", &["metrics"], 200),
    get("/metrics/probes", &["metrics"], 200),
    get("/logs/", &["log"], 200),
    get("/statusz", &["statusz"], 200),
    get("/flagz", &["configz"], 200),
    Endpoint {
        given: (404, Some("pod \"no\" does not exist")),
        ..get("/containerLogs/default/no/no", &["proxy"], 404)
    },
    Endpoint {
        given: (400, Some("you must specify at least 1 of stdin, stdout, stderr")),
        ..get("/exec/default/no/no?command=id", &["proxy"], 400)
    },
    Endpoint {
        given: (404, Some("pod does not exist")),
        ..get("/exec/default/no/no?command=id&output=1", &["proxy"], 404)
    },
    Endpoint {
        method: "POST",
        verb: "create",
        given: (404, Some("pod does not exist")),
        ..get("/run/default/no/no?cmd=id", &["proxy"], 404)
    },
    Endpoint {
        method: "POST",
        verb: "create",
        given: (404, Some("pod does not exist")),
        ..get("/checkpoint/default/no/no", &["checkpoint"], 404)
    },
    Endpoint { given: (404, Some("404: Page Not Found")), ..get("/exec/default", &["proxy"], 404) },
    Endpoint {
        method: "PUT",
        verb: "update",
        given: (405, Some("405: Method Not Allowed")),
        ..get("/pods", &["pods", "proxy"], 405)
    },
    Endpoint {
        method: "OPTIONS",
        verb: "",
        given: (405, Some("405: Method Not Allowed")),
        ..get("/pods", &["pods", "proxy"], 405)
    },
];

impl Door {
    /// Who the caller is then; nothing: 401.
    fn caller(self, shown: Shown) -> Option<&'static str> {
        let nobody = self.anonymous.then_some("system:anonymous");
        let account = |name| if self.webhook { Some(name) } else { nobody };
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
const BETWEEN: &str = "\n@@@@ ";

/// Asks everything of one door by one script, so that a table of hundreds of requests takes seconds.
fn ask(lab: &Lab, tokens: &[(Shown, String)]) -> Vec<(u16, String)> {
    let pki = "/etc/kubernetes/pki/apiserver-kubelet-client";
    let good = format!("--cert {pki}.crt --key {pki}.key");
    let strange = "--cert /tmp/strange.crt --key /tmp/strange.key";
    let token = |shown| {
        let (_, token) = tokens.iter().find(|(whose, _)| *whose == shown).unwrap();
        format!("-H 'Authorization: Bearer {token}'")
    };
    let mut script = String::from("set -u\n");
    for shown in SHOWN {
        let words = match shown {
            Shown::Nothing => String::new(),
            Shown::JunkToken => "-H 'Authorization: Bearer junk'".to_owned(),
            Shown::PlainToken | Shown::ProxyToken | Shown::FineToken => token(*shown),
            Shown::Certificate => good.clone(),
            Shown::StrangeCertificate => strange.to_owned(),
            Shown::StrangeCertificateAndPlainToken => format!("{strange} {}", token(Shown::PlainToken)),
        };
        for endpoint in ENDPOINTS {
            let Endpoint { method, path, .. } = endpoint;
            script += &format!(
                "curl -sk -m 10 --path-as-is -X {method} {words} -w '{BETWEEN}%{{http_code}}{BETWEEN}' \
                 'https://192.0.2.11:10250{path}'\n"
            );
        }
    }
    // As a file: a command line has a limit.
    put(lab, "control", "/tmp/ask.sh", &script);
    let said = lab.on("control", &["sh", "/tmp/ask.sh"]);
    let parts: Vec<&str> = said.split(BETWEEN).collect();
    parts.chunks_exact(2).map(|pair| (pair[1].parse().unwrap(), pair[0].to_owned())).collect()
}

/// Writes a file in a host, from outside.
pub fn put(lab: &Lab, host: &str, path: &str, text: &str) {
    use std::io::Write;
    let mut child = lab
        .command(crate::kit::lab::binary())
        .args(["exec", host, "--", "sh", "-c", &format!("cat > {path}")])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{host}:{path} cannot be written");
}

const CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// Changes a kubelet's configuration with an editor's means, and restarts it.
pub fn reconfigure(lab: &Lab, host: &str, change: impl Fn(String) -> String) {
    let changed = change(lab.on(host, &["cat", CONFIG]));
    put(lab, host, CONFIG, &changed);
    restart(lab, host);
}

pub fn restart(lab: &Lab, host: &str) {
    lab.minilab(&["restart", &format!("kubelet@{host}")]).ok();
    eventually(Duration::from_secs(20), "the kubelet serves again", || {
        let status = lab.status();
        let roles = status["roles"].as_array().cloned().unwrap_or_default();
        match roles
            .iter()
            .any(|role| role["name"] == "kubelet" && role["host"] == *host && role["state"] == "ready")
        {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
}

/// Takes out every top-level block of these names and puts this one in.
pub fn replaced(config: &str, blocks: &[&str], by: &str) -> String {
    let mut kept = String::new();
    let mut dropping = false;
    for line in config.lines() {
        if !line.starts_with([' ', '-']) {
            dropping = blocks.iter().any(|block| line.starts_with(&format!("{block}:")));
        }
        if !dropping {
            kept += &format!("{line}\n");
        }
    }
    kept + by
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
    let all = [
        (false, true, true),
        (true, true, true),
        (true, false, true),
        (false, true, false),
        (true, false, false),
    ];
    for (anonymous, webhook, asks) in all {
        let door = Door { anonymous, webhook, asks };
        let mode = if asks { "Webhook" } else { "AlwaysAllow" };
        let blocks = format!(
            "authentication:\n  anonymous: {{enabled: {anonymous}}}\n  webhook: {{enabled: {webhook}, cacheTTL: 2s}}\n  \
             x509: {{clientCAFile: /etc/kubernetes/pki/ca.crt}}\nauthorization:\n  mode: {mode}\n"
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
    let fetch = |url: &str| lab.on("control", &["curl", "-s", "-m", "5", "-w", " %{http_code}", url]);
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

/// A lab whose settings are written before it is first put up.
fn lab_with(settings: &[(&str, &str)]) -> Lab {
    let lab = Lab::new();
    let state = lab.home.path().join("state/minilab").join(&lab.name);
    std::fs::create_dir_all(&state).unwrap();
    let rows: String = settings.iter().map(|(name, mode)| format!("  {name}: {mode}\n")).collect();
    let spec = format!(
        "apiVersion: minilab.dev/v1alpha1\nkind: Lab\nname: {}\nnodes: 2\nport: {}\nsettings:\n{rows}",
        lab.name,
        free_port()
    );
    std::fs::write(state.join("lab.yaml"), spec).unwrap();
    lab.minilab(&["up"]).ok();
    lab
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

const SERVING: (&str, &str) = ("apiserver-to-kubelet.serving-certificates", "hardened");
const VERIFIED: (&str, &str) = ("apiserver-to-kubelet.ca", "hardened");

/// The node's own request, and one for its sibling's address, made with node-1's key.
fn ask_for(lab: &Lab, name: &str, addresses: &[&str]) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:node-1");
    let ips = addresses.iter().map(|address| rcgen::SanType::IpAddress(address.parse().unwrap()));
    params.subject_alt_names = ips.collect();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    use base64::Engine;
    let request = base64::prelude::BASE64_STANDARD.encode(pem);
    let object = serde_json::json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": "kubernetes.io/kubelet-serving",
                 "usages": ["digital signature", "server auth"]},
    });
    put(lab, "node-1", "/tmp/csr.json", &object.to_string());
    let own = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let script = format!(
        "curl -s -f --cacert /etc/kubernetes/pki/ca.crt --cert {own} --key {own} -H 'Content-Type: application/json' \
         -d @/tmp/csr.json https://198.51.100.1:6443/apis/certificates.k8s.io/v1/certificatesigningrequests"
    );
    lab.on("node-1", &["sh", "-c", &script]);
}

fn condition(lab: &Lab, csr: &str) -> String {
    let object = lab.object(&["csr", csr]);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().filter_map(|one| one["type"].as_str()).collect::<Vec<_>>().join(",")
}

fn approved(lab: &Lab, csr: &str) {
    eventually(Duration::from_secs(10), "the request is approved", || match condition(lab, csr).as_str() {
        "Approved" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn a_verified_kubelet_is_approved_by_the_inventory_and_shows_its_logs() {
    let lab = lab_with(&[SERVING, VERIFIED, ("apiserver-to-kubelet.approval", "hardened")]);
    lab.run("web", "echo ready; sleep 1000");
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "ready\n");
    assert!(lab.kubectl(&["exec", "web", "--", "id", "-u"]).ok().starts_with('0'));
    // Its own address again is approved; a sibling's is not, also after the Node object was made to claim it.
    ask_for(&lab, "own", &["192.0.2.11"]);
    approved(&lab, "own");
    claim(&lab, "192.0.2.12");
    ask_for(&lab, "sibling", &["192.0.2.12"]);
    let events = eventually(Duration::from_secs(10), "an event says why not", || {
        let events = lab.kubectl(&["get", "events", "-A"]).ok();
        if events.contains("NotApproved") { Ok(events) } else { Err(events) }
    });
    assert!(events.contains("192.0.2.12 is not an address that the inventory gives"), "{events}");
    assert_eq!(condition(&lab, "sibling"), "");
    without_a_certificate(&lab);
}

/// Node-1's key makes the Node object say what it likes.
fn claim(lab: &Lab, address: &str) {
    let change = serde_json::json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    put(lab, "node-1", "/tmp/claim.json", &change.to_string());
    let own = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let script = format!(
        "curl -s -f -X PATCH --cacert /etc/kubernetes/pki/ca.crt --cert {own} --key {own} \
         -H 'Content-Type: application/merge-patch+json' -d @/tmp/claim.json \
         https://198.51.100.1:6443/api/v1/nodes/node-1/status"
    );
    lab.on("node-1", &["sh", "-c", &script]);
}

/// While nobody approves there is no certificate, and the handshake ends with an alert; then all is well
/// again, without a restart of anything.
fn without_a_certificate(lab: &Lab) {
    lab.minilab(&["stop", "csr-approver"]).ok();
    for host in ["node-1", "node-2"] {
        lab.on(host, &["rm", "/var/lib/kubelet/pki/kubelet-server-current.pem"]);
        restart(lab, host);
    }
    let logs = lab.kubectl(&["logs", "web"]).fails_with(1);
    assert!(logs.contains("remote error: tls: internal error"), "{logs}");
    lab.minilab(&["start", "csr-approver"]).ok();
    eventually(Duration::from_secs(20), "logs return with the certificate", || {
        let ran = lab.kubectl(&["logs", "web"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn an_approver_that_believes_the_node_gives_it_its_siblings_address() {
    let lab = lab_with(&[SERVING, VERIFIED, ("apiserver-to-kubelet.approval", "partial")]);
    ask_for(&lab, "early", &["192.0.2.12"]);
    eventually(Duration::from_secs(10), "the approver has seen it", || {
        let events = lab.kubectl(&["get", "events", "-A"]).ok();
        if events.contains("NotApproved") { Ok(()) } else { Err(events) }
    });
    assert_eq!(condition(&lab, "early"), "");
    // A kubelet puts its node's addresses right again every ten seconds: a thief ends it first.
    lab.minilab(&["stop", "kubelet@node-1"]).ok();
    claim(&lab, "192.0.2.12");
    ask_for(&lab, "late", &["192.0.2.12"]);
    approved(&lab, "late");
}

#[test]
fn a_serving_pair_in_files_is_taken_in_without_a_restart() {
    let lab = Lab::up();
    let pair = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        put(&lab, "node-1", "/etc/kubernetes/tls.crt", &made.cert.pem());
        put(&lab, "node-1", "/etc/kubernetes/tls.key", &made.signing_key.serialize_pem());
    };
    pair("first");
    reconfigure(&lab, "node-1", |config| {
        config + "tlsCertFile: /etc/kubernetes/tls.crt\ntlsPrivateKeyFile: /etc/kubernetes/tls.key\n"
    });
    let pid = lab.pid("kubelet", "node-1");
    let san = |name: &str| {
        let script = format!(
            "curl -s --cacert /tmp/one.crt --connect-to ::192.0.2.11:10250 -o /dev/null -w '%{{ssl_verify_result}}' \
             https://{name}:10250/x || true"
        );
        let crt = lab.on("node-1", &["cat", "/etc/kubernetes/tls.crt"]);
        put(&lab, "control", "/tmp/one.crt", &crt);
        lab.on("control", &["sh", "-c", &script])
    };
    assert_eq!(san("first"), "0");
    pair("second");
    eventually(Duration::from_secs(10), "the new pair is served", || match san("second").as_str() {
        "0" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(lab.pid("kubelet", "node-1"), pid, "it is the same process");
}
