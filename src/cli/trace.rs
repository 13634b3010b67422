//! `minilab trace -- kubectl logs web`: every hop a verb takes, from what was seen while it ran.
//!
//! kubectl says which requests it sends (`-v=6`); a capture on wire says who dialled whom and what of it could
//! be read; command lines of running processes and the files they name say which certificate was shown and who
//! looks at it. Nothing is known beforehand of what a verb does. Left out on purpose: what goes on inside one
//! host, which crosses no wire.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::wire::path_of;
use super::{Answer, Outcome, Output, Trouble, table};
use crate::attack::watch_wire;
use crate::lab::files::Tree;
use crate::lab::plan::{BALANCER, CONTROL, HostKind, Plan};
use crate::lab::protocol::{Control, RoleStatus};
use crate::lab::state::LabDir;
use crate::pki::Facts;

/// What is still on its way when kubectl has ended.
const AFTER: Duration = Duration::from_millis(400);

#[derive(Args)]
pub struct Trace {
    #[command(flatten)]
    output: Output,
    /// For example: -- kubectl logs web
    #[arg(last = true, required = true, value_name = "kubectl ARGS")]
    command: Vec<String>,
}

/// One way between two parts.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Hop {
    from: String,
    to: String,
    port: u16,
    protocol: String,
    /// The certificate or token the dialling end shows.
    shows: String,
    /// Who looks at the answering end's certificate, and by what.
    verified_by: String,
    /// What somebody on the wire has of it.
    wire: String,
}

/// What was seen of one connection.
#[derive(Debug, Default)]
struct Seen {
    dialled: bool,
    server_name: Option<String>,
    ciphertext: bool,
    plain: Option<String>,
}

impl Trace {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        let words = match self.command.first().map(String::as_str) {
            Some("kubectl") => &self.command[1..],
            _ => &self.command[..],
        };
        let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
        let watch = watch_wire(lab, false)?;
        watch.event("ready").context("the capture on wire did not start")?;
        let mut command = Command::new("kubectl");
        // Behind the verb: in front of it, kubectl would look for no plugin, and say that of every typo.
        let (verb, rest) = words.split_at(words.len().min(1));
        command.args(verb).arg("-v=6").args(rest).env("KUBECONFIG", lab.kubeconfig()).stderr(Stdio::piped());
        if self.output.json() {
            command.stdout(Stdio::null());
        }
        let ran = command.spawn().and_then(std::process::Child::wait_with_output).context("run kubectl")?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let mut events = Vec::new();
        let until = Instant::now() + AFTER;
        events.extend(std::iter::from_fn(|| watch.next_event(until)));
        events.extend(watch.finish());
        let roles = Control::connect(lab)?.status()?.roles;
        let mut hops = of_kubectl(lab, &said);
        if hops.is_empty() && !ran.status.success() {
            eprint!("{said}");
            let remedy = "trace runs kubectl: `trace -- kubectl logs web`";
            return Err(Trouble::new(Answer::Usage, "kubectl sent no request", remedy));
        }
        hops.extend(on_wire(lab, &plan, &roles, &events));
        said.lines().filter(|line| !is_klog(line)).for_each(|line| eprintln!("{line}"));
        self.say(&hops)?;
        Ok(match ran.status.code() {
            Some(0) => Answer::Done,
            code => Answer::Of(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        })
    }

    fn say(&self, hops: &[Hop]) -> anyhow::Result<()> {
        if self.output.json() {
            return super::print_json(&json!({"hops": hops}));
        }
        println!();
        let rows = hops.iter().enumerate().map(|(at, hop)| {
            let way = format!("{} > {}:{}", hop.from, hop.to, hop.port);
            let cells = [&hop.protocol, &hop.shows, &hop.verified_by, &hop.wire].map(String::clone);
            [vec![(at + 1).to_string(), way], cells.into()].concat()
        });
        table::print(&["HOP", "WHO DIALS WHOM", "WHAT", "SHOWS", "PEER VERIFIED BY", "ON THE WIRE"], rows)?;
        if hops.iter().any(|hop| hop.protocol.ends_with("that was open")) {
            println!(
                "\nWhat crosses a connection that was open may be a heartbeat as well: ciphertext does not say."
            );
        }
        Ok(())
    }
}

/// A line kubectl prints because of `-v=6`.
fn is_klog(line: &str) -> bool {
    let mut letters = line.chars();
    letters.next().is_some_and(|letter| "IWE".contains(letter))
        && letters.take(4).all(|letter| letter.is_ascii_digit())
        && line.contains(".go:")
}

/// The requests kubectl says it sent, and what the kubeconfig has it show and believe.
fn of_kubectl(lab: &LabDir, said: &str) -> Vec<Hop> {
    let file = std::fs::read_to_string(lab.kubeconfig()).unwrap_or_default();
    let file: Option<crate::client::Kubeconfig> = serde_yaml_ng::from_str(&file).ok();
    let user = file.as_ref().and_then(|file| file.users.first()).map(|user| &user.user);
    let shows = user.and_then(|user| {
        let pem = decoded(user.client_certificate_data.as_deref()?)?;
        Facts::from_pem(&pem).ok().map(|facts| format!("certificate {}", facts.cn))
    });
    let cluster = file.as_ref().and_then(|file| file.clusters.first()).map(|cluster| &cluster.cluster);
    let verified = match cluster.map(|cluster| cluster.certificate_authority_data.is_some()) {
        Some(true) => "kubectl, by the kubeconfig's CA",
        _ => "nobody",
    };
    let mut hops: Vec<Hop> = Vec::new();
    for (method, url, status) in said.lines().filter_map(request_of) {
        let Ok(uri) = url.parse::<http::Uri>() else { continue };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // Discovery is told once.
        let what = format!("HTTPS {method} {path} -> {status}");
        if hops.iter().any(|hop| hop.protocol == what) {
            continue;
        }
        hops.push(Hop {
            from: "kubectl".into(),
            to: "kube-apiserver".into(),
            port: uri.port_u16().unwrap_or(443),
            protocol: what,
            shows: shows.clone().unwrap_or_else(|| "a token".into()),
            verified_by: verified.into(),
            wire: "not on wire: this machine's loopback".into(),
        });
    }
    hops
}

/// Method, address and status in a line of client-go's round trippers, whose form changed in 1.33.
fn request_of(line: &str) -> Option<(String, String, String)> {
    let field = |name: &str| {
        let rest = &line[line.find(&format!("{name}=\""))? + name.len() + 2..];
        Some(rest[..rest.find('"')?].to_owned())
    };
    if let (Some(verb), Some(url)) = (field("verb"), field("url")) {
        return Some((verb, url, field("status").unwrap_or_default()));
    }
    let (_, rest) = line.split_once("round_trippers.go:")?;
    let mut words = rest.split_once("] ")?.1.split(' ');
    let (method, url) = (words.next()?.to_owned(), words.next()?.to_owned());
    url.starts_with("https://").then(|| (method, url, words.next().unwrap_or_default().to_owned()))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(text).ok()
}

/// The connections the capture saw, one row for those that are alike.
fn on_wire(lab: &LabDir, plan: &Plan, roles: &[RoleStatus], events: &[Value]) -> Vec<Hop> {
    let mut order = Vec::new();
    let mut seen: BTreeMap<(Ipv4Addr, SocketAddrV4), Seen> = BTreeMap::new();
    for event in events {
        let end = |name: &str| event[name].as_str().and_then(|text| text.parse::<SocketAddrV4>().ok());
        let (Some(from), Some(to)) = (end("from"), end("to")) else { continue };
        // Who has the known port is dialled; answers count for the same connection.
        let (client, server) = if path_of(from, to).is_some() { (from, to) } else { (to, from) };
        if path_of(client, server).is_none() {
            continue;
        }
        let key = (*client.ip(), server);
        if !seen.contains_key(&key) {
            order.push(key);
        }
        note(seen.entry(key).or_default(), event);
    }
    let mut hops: Vec<Hop> = Vec::new();
    for ((from, to), seen) in order.into_iter().filter_map(|key| Some((key, seen.get(&key)?))) {
        let hop = hop(lab, plan, roles, from, to, seen);
        // Before and behind wire's translation it is the same connection.
        if !hops.contains(&hop) {
            hops.push(hop);
        }
    }
    hops
}

fn note(seen: &mut Seen, event: &Value) {
    let what = event["what"].as_str().unwrap_or_default();
    match (event["event"].as_str(), event["protocol"].as_str()) {
        (Some("dial"), _) => seen.dialled = true,
        (_, Some("plain")) => {
            seen.plain.get_or_insert_with(|| what.lines().next().unwrap_or_default().to_owned());
        }
        (_, Some("tls")) => {
            seen.ciphertext = true;
            let name = event["serverName"].as_str().filter(|name| !name.is_empty());
            seen.server_name = seen.server_name.take().or_else(|| name.map(str::to_owned));
        }
        _ => {}
    }
}

fn hop(
    lab: &LabDir,
    plan: &Plan,
    roles: &[RoleStatus],
    from: Ipv4Addr,
    to: SocketAddrV4,
    seen: &Seen,
) -> Hop {
    let path = path_of(SocketAddrV4::new(from, 40_000), to).unwrap_or_default();
    let (dialler, answers) = parts(path, to.port());
    let (shows, verified_by) = match path {
        "apiserver-to-kubelet" => of_api_server(lab, roles),
        "apiserver-proxy" => ("nothing".into(), "nobody".into()),
        "node-to-apiserver" => of_kubelet(lab, &host_of(plan, from)),
        "kubelet-access" => ("what the caller has".into(), "the caller's choice".into()),
        "components-to-apiserver" if to.port() == 6443 => of_components(lab),
        "pod-to-apiserver" => ("its account's token, if any".into(), "the pod's own choice".into()),
        "apiserver-egress" if to.port() == 8132 => of_agents(roles),
        "apiserver-egress" => of_ssh(roles),
        _ => ("what the caller has".into(), "the caller's choice".into()),
    };
    let wire = match (&seen.plain, seen.ciphertext, &seen.server_name) {
        (Some(text), ..) => format!("PLAIN TEXT {text:?}"),
        (None, true, Some(name)) => format!("TLS for {name}, ciphertext"),
        (None, true, None) => "TLS, ciphertext".into(),
        (None, false, _) => "a dial and no answer".into(),
    };
    let kept = if seen.dialled { "" } else { ", on a connection that was open" };
    Hop {
        from: format!("{dialler}@{}", host_of(plan, from)),
        to: format!("{answers}@{}", host_of(plan, *to.ip())),
        port: to.port(),
        protocol: format!("{path}{kept}"),
        shows,
        verified_by,
        wire,
    }
}

/// Who speaks on a path, by the port that is dialled.
fn parts(path: &str, port: u16) -> (&'static str, &'static str) {
    match (path, port) {
        ("apiserver-to-kubelet", _) => ("kube-apiserver", "kubelet"),
        ("apiserver-proxy", _) => ("kube-apiserver", "pod"),
        ("apiserver-egress", 8132) => ("konnectivity-agent", "konnectivity-server"),
        ("apiserver-egress", _) => ("kube-apiserver", "sshd"),
        ("pod-to-apiserver", _) => ("a pod", "kube-apiserver"),
        ("node-to-apiserver", _) => ("kubelet or kube-proxy", "kube-apiserver"),
        ("components-to-apiserver", 6443) => ("a component", "kube-apiserver"),
        _ => ("somebody", "a component"),
    }
}

/// What the API server that runs shows to kubelets, and whether it looks at what they show.
fn of_api_server(lab: &LabDir, roles: &[RoleStatus]) -> (String, String) {
    let argv = roles.iter().find(|role| role.name == "kube-apiserver").map(|role| &role.argv[..]);
    let flag = |name: &str| {
        let prefix = format!("--{name}=");
        argv.unwrap_or_default().iter().find_map(|word| word.strip_prefix(&prefix)).map(str::to_owned)
    };
    let shown = flag("kubelet-client-certificate").map(|path| {
        let pem = std::fs::read(lab.host("control").join(path.trim_start_matches('/'))).unwrap_or_default();
        Facts::from_pem(&pem).map_or(path, |facts| format!("certificate {}", facts.cn))
    });
    let verified = match flag("kubelet-certificate-authority") {
        Some(path) => format!("kube-apiserver, by {path}"),
        None => "nobody: no --kubelet-certificate-authority".into(),
    };
    (shown.unwrap_or_else(|| "nothing".into()), verified)
}

/// What the files of scheduler and controller manager have them show and believe.
fn of_components(lab: &LabDir) -> (String, String) {
    let told = ["scheduler", "controller-manager"].map(|name| {
        let text = std::fs::read_to_string(lab.host("control").join(format!("etc/kubernetes/{name}.conf")));
        let file = serde_yaml_ng::from_str::<crate::client::Kubeconfig>(&text.unwrap_or_default()).ok();
        let user = file.as_ref().and_then(|file| file.users.first()).map(|user| &user.user);
        let facts =
            user.and_then(|user| Facts::from_pem(&decoded(user.client_certificate_data.as_deref()?)?).ok());
        let cluster = file.as_ref().and_then(|file| file.clusters.first()).map(|cluster| &cluster.cluster);
        let skips = cluster.is_none_or(|cluster| cluster.insecure_skip_tls_verify);
        let shows = facts.map_or_else(|| "nothing".to_owned(), |facts| format!("certificate {}", facts.cn));
        (
            shows,
            if skips { "nobody: insecure-skip-tls-verify" } else { "the component, by its kubeconfig's CA" },
        )
    });
    let [(one, by), (other, and_by)] = told;
    let shows = if one == other { one } else { format!("{one} or {other}") };
    (shows, if by == and_by { by.to_owned() } else { format!("{by} or {and_by}") })
}

/// The flags of a role that runs.
fn flag(roles: &[RoleStatus], role: &str, name: &str) -> Option<String> {
    let prefix = format!("--{name}=");
    let argv = roles.iter().find(|one| one.name == role).map(|one| &one.argv[..]).unwrap_or_default();
    argv.iter().find_map(|word| word.strip_prefix(&prefix)).map(str::to_owned)
}

/// What agents have to show follows from the server's flags; whom they believe is in their DaemonSet.
fn of_agents(roles: &[RoleStatus]) -> (String, String) {
    let server = |name| flag(roles, "konnectivity-server", name);
    let shows = match (server("agent-service-account"), server("cluster-ca-cert")) {
        (Some(account), _) => format!("the token of {account}"),
        (None, Some(_)) => "a client certificate".into(),
        (None, None) => "a token nobody asks for".into(),
    };
    (shows, "konnectivity-agent, by its --ca-cert".into())
}

fn of_ssh(roles: &[RoleStatus]) -> (String, String) {
    let server = |name| flag(roles, "kube-apiserver", name);
    let shows = server("ssh-keyfile").map_or_else(|| "nothing".into(), |path| format!("the key {path}"));
    let verified = server("minilab-ssh-known-hosts");
    (shows, verified.map_or_else(|| "nobody".into(), |path| format!("kube-apiserver, by {path}")))
}

/// What a node's files have its kubelet show, and whether it looks at the API server's certificate.
fn of_kubelet(lab: &LabDir, host: &str) -> (String, String) {
    let read = |path: &str| Tree::of(lab, host).and_then(|tree| tree.read(Path::new(path))).ok().flatten();
    let own = read("/var/lib/kubelet/pki/kubelet-client-current.pem");
    let conf = read("/etc/kubernetes/kubelet.conf").unwrap_or_default();
    let conf = String::from_utf8_lossy(&conf);
    let facts = own.and_then(|pem| Facts::from_pem(&pem).ok());
    let shows = match facts {
        Some(facts) if !conf.contains("token:") => format!("certificate {}", facts.cn),
        _ => "the token in kubelet.conf".into(),
    };
    let verified = match conf.contains("insecure-skip-tls-verify: true") {
        true => "nobody: insecure-skip-tls-verify",
        false => "kubelet, by kubelet.conf's CA",
    };
    (shows, verified.into())
}

fn host_of(plan: &Plan, address: Ipv4Addr) -> String {
    if address == BALANCER || address == CONTROL {
        return "control".into();
    }
    let mut hosts = plan.hosts.iter().filter(|host| host.kind == HostKind::Node);
    let found = hosts.find(|host| host.addresses.iter().any(|net| net.addr() == address));
    found.map_or_else(|| address.to_string(), |host| host.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_found_in_what_both_kubectls_say() {
        let old = "I1122 18:19:37.439281   32199 round_trippers.go:560] GET https://127.0.0.1:6444/api?timeout=32s 200 OK in 13 milliseconds";
        let new = r#"I1122 18:19:37.439281   32199 round_trippers.go:632] "Response" verb="GET" url="https://127.0.0.1:6444/api" status="200 OK" milliseconds=4"#;
        assert_eq!(request_of(old).unwrap().1, "https://127.0.0.1:6444/api?timeout=32s");
        assert_eq!(
            request_of(new).unwrap(),
            ("GET".into(), "https://127.0.0.1:6444/api".into(), "200 OK".into())
        );
        assert!(is_klog(old) && is_klog(new) && !is_klog("Error from server: no"));
        assert_eq!(request_of("Error from server"), None);
    }

    #[test]
    fn what_can_be_read_on_the_wire_is_told_from_what_cannot() {
        let mut seen = Seen::default();
        note(&mut seen, &json!({"event": "dial"}));
        note(
            &mut seen,
            &json!({"event": "says", "protocol": "tls", "what": "client hello", "serverName": "x"}),
        );
        assert!(seen.dialled && seen.ciphertext && seen.plain.is_none());
        note(&mut seen, &json!({"event": "says", "protocol": "plain", "what": "GET / HTTP/1.1\r\nHost: a"}));
        assert_eq!((seen.server_name.as_deref(), seen.plain.as_deref()), (Some("x"), Some("GET / HTTP/1.1")));
    }
}
