//! The attacks: compromised while a setting is insecure, defeated when it alone is hardened, nothing left over.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Lab, clients, eventually, process, random, rounds};

fn attack(lab: &Lab, target: &str) -> Value {
    let ran = lab.minilab(&["attack", target, "-o", "json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{target}: {}{}", ran.stdout, ran.stderr))
}

/// The setting alone decides: compromised open, defeated shut.
fn both_ways(lab: &Lab, target: &str, refusal: &str) {
    lab.minilab(&["soften", target]).ok();
    let open = attack(lab, target);
    assert_eq!(open["verdict"], "compromised", "{target}: {open:#}");
    assert_eq!((&open["expected"], &open["decides"]), (&"compromised".into(), &target.into()));
    lab.minilab(&["harden", target]).ok();
    let shut = attack(lab, target);
    assert_eq!(shut["verdict"], "defeated", "{target}: {shut:#}");
    assert_eq!(shut["expected"], "defeated");
    assert!(shut["observed"].as_str().unwrap().contains(refusal), "{target}: {shut:#}");
}

/// Each attack's refusal once its setting alone is shut.
const REFUSALS: &[(&str, &str)] = &[
    ("node-to-apiserver.ca", "x509: "),
    ("node-to-apiserver.credential", "no relationship found between node"),
    ("node-to-apiserver.restriction", "is not allowed to modify node"),
    ("node-to-apiserver.join", "not the pinned one"),
    ("pod-to-apiserver.ca", "phone-home hung up: "),
    ("pod-to-apiserver.token", "401"),
    ("pod-to-apiserver.rbac", "403"),
    ("pod-to-apiserver.external-ips", "Use of external IPs is denied"),
    ("components-to-apiserver.ca", "x509: "),
    ("components-to-apiserver.identity", "system:kube-scheduler"),
    ("components-to-apiserver.ports", "connect: connection refused"),
    ("apiserver-access.authorization", "403"),
    ("apiserver-access.anonymous", "401"),
    ("apiserver-to-kubelet.ca", "x509: "),
    ("apiserver-to-kubelet.approval", "is not an address that the inventory gives"),
    ("kubelet-access.authentication", "401"),
    ("kubelet-access.authorization", "Forbidden (user=system:serviceaccount:attack-"),
    ("kubelet-access.read-only-port", "connect: connection refused"),
    ("kubelet-access.grants", "subresource(s)=[proxy]"),
    ("apiserver-proxy.transport", "nothing of it was on the wire"),
    ("apiserver-proxy.grants", "403"),
    ("apiserver-egress.tunnel", "not one dial from control to the nodes"),
];

#[test]
fn every_setting_is_compromised_on_its_stage_and_defeated_when_it_alone_is_shut() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    // One round is every setting both ways: twenty in full, else one.
    let times = if rounds(20) == 20 { 20 } else { 1 };
    for _ in 0..times {
        let ran = lab.minilab(&["verify", "--all-modes", "-o", "json"]);
        let all: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
        assert_eq!(all["asExpected"], true, "{all:#}");
        let of = |name: &str, mode: &str| {
            let mut results = all["results"].as_array().unwrap().iter();
            let found = results.find(|one| one["path"] == name && one["mode"] == mode);
            found.unwrap_or_else(|| panic!("{name} {mode}: {all:#}"))
        };
        for (name, refusal) in REFUSALS {
            assert_eq!(of(name, "insecure")["verdict"], "compromised", "{name}");
            let shut = of(name, "hardened");
            assert_eq!((&shut["verdict"], &shut["decides"]), (&"defeated".into(), &(*name).into()));
            assert!(shut["observed"].as_str().unwrap().contains(refusal), "{shut:#}");
        }
        let without = all["withoutAttack"].as_array().unwrap();
        assert!(without.iter().any(|one| one["path"] == "apiserver-to-kubelet.serving-certificates"));
    }
    // The lab is as it was.
    assert_eq!(lab.kubectl(&["logs", "web"]).ok(), "real\n");
    let paths: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
    assert!(paths.as_array().unwrap().iter().all(|path| path["mode"] == path["default"]), "{paths:#}");
}

/// Which of control's ports answer somewhere.
fn open_ports(lab: &Lab, host: &str) -> Vec<u16> {
    const SCAN: &str = "
import socket
for port in range(1, 65536):
    s = socket.socket()
    s.settimeout(5)
    if s.connect_ex(('198.51.100.2', port)) == 0: print(port)
    s.close()";
    let said = match host {
        "pod" => lab.kubectl(&["exec", "scan", "--", "python3", "-c", SCAN]).ok(),
        host => lab.on(host, &["python3", "-c", SCAN]),
    };
    said.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn control_has_one_port_and_each_other_is_a_settings_doing() {
    let lab = Lab::up();
    lab.run("scan", "exec sleep 600");
    for place in ["wire", "node-1", "pod"] {
        assert_eq!(open_ports(&lab, place), [6443], "{place}");
    }
    lab.minilab(&["harden", "apiserver-egress"]).ok();
    lab.minilab(&["soften", "components-to-apiserver.ports"]).ok();
    assert_eq!(open_ports(&lab, "node-1"), [6443, 8132, 10257, 10259]);
}

#[test]
fn what_is_typed_into_a_forged_session_is_noted_on_the_wire() {
    let lab = Lab::up();
    let open = attack(&lab, "apiserver-to-kubelet.ca");
    assert_eq!(open["verdict"], "compromised", "{open:#}");
    let samples: Vec<&str> =
        open["evidence"].as_array().unwrap().iter().filter_map(|one| one["sample"].as_str()).collect();
    for what in ["exec: password marker-", "attach: password marker-", "GET / HTTP/1.0"] {
        assert!(samples.iter().any(|sample| sample.contains(what)), "{what}: {open:#}");
    }
}

#[test]
fn a_verbs_hops_are_told_from_what_was_seen() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    let told: Value =
        serde_json::from_str(&lab.minilab(&["trace", "-o", "json", "--", "kubectl", "logs", "web"]).ok())
            .unwrap();
    let hops = told["hops"].as_array().unwrap();
    let own = |hop: &&Value| hop["protocol"].as_str().unwrap().contains("/pods/web/log");
    assert!(hops.iter().any(|hop| own(&hop) && hop["to"] == "kube-apiserver"), "{told:#}");
    let kubelet = hops.iter().find(|hop| hop["port"] == 10250).unwrap_or_else(|| panic!("{told:#}"));
    assert_eq!(kubelet["shows"], "certificate kube-apiserver-kubelet-client");
    assert!(kubelet["verifiedBy"].as_str().unwrap().starts_with("nobody"), "{kubelet:#}");
    assert!(kubelet["wire"].as_str().unwrap().starts_with("TLS"), "{kubelet:#}");
}

#[test]
fn the_demo_shows_the_lie_and_then_the_refusal_and_puts_everything_back() {
    let lab = Lab::up();
    let said = lab.minilab(&["demo", "--say", "a lie"]).ok();
    assert!(said.lines().all(|line| !line.contains('|') || line.chars().count() <= 80), "{said}");
    let (before, after) = said.split_once("$ minilab harden").unwrap();
    assert!(before.contains("COMPROMISED") && before.contains("a lie"), "{said}");
    assert!(after.contains("DEFEATED") && after.contains("x509:") && !after.contains("\u{1b}"), "{said}");
    let paths: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
    assert!(paths.as_array().unwrap().iter().all(|path| path["mode"] == path["default"]), "{paths:#}");
}

#[test]
fn an_open_kubelet_is_two_doors_and_the_second_one_holds_alone() {
    let lab = Lab::up();
    lab.minilab(&["soften", "kubelet-access.authentication"]).ok();
    let held = attack(&lab, "kubelet-access.authentication");
    assert_eq!(
        (&held["verdict"], &held["decides"]),
        (&"defeated".into(), &"kubelet-access.authorization".into())
    );
    lab.minilab(&["soften", "kubelet-access.authorization"]).ok();
    both_ways(&lab, "kubelet-access.authentication", "401");
}

#[test]
fn a_fake_kubelet_forges_logs_until_its_certificate_is_looked_at() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    lab.minilab(&["harden", "apiserver-to-kubelet.serving-certificates"]).ok();
    both_ways(&lab, "apiserver-to-kubelet.ca", "x509: ");
    assert_eq!(lab.kubectl_of(clients::any(), &["logs", "web"]).ok(), "real\n");
    assert!(!lab.on("wire", &["minilab", "version"]).is_empty());
}

#[test]
fn a_rogue_agent_is_sent_the_api_servers_dials_until_agents_have_to_say_who_they_are() {
    let lab = Lab::up();
    let target = "apiserver-egress.agent-authentication";
    let elsewhere = attack(&lab, target);
    assert_eq!((&elsewhere["verdict"], &elsewhere["expected"]), (&"defeated".into(), &"defeated".into()));
    assert_eq!(elsewhere["decides"], "apiserver-egress.tunnel", "{elsewhere:#}");
    lab.minilab(&["harden", "apiserver-egress.tunnel"]).ok();
    both_ways(&lab, target, "Authentication context was not found in metadata");
    lab.run("web", "echo real; exec sleep 600");
    eventually(Duration::from_secs(60), "the real agents are back", || {
        let ran = lab.kubectl(&["logs", "web"]);
        if ran.stdout == "real\n" { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn what_is_expected_and_does_not_come_is_exit_code_3() {
    let lab = Lab::up();
    let wrong = ["attack", "kubelet-access.read-only-port", "--expect", "compromised"];
    lab.minilab(&wrong).fails_with(3);
    let right = ["attack", "kubelet-access.read-only-port", "--expect", "defeated"];
    lab.minilab(&right).ok();
    lab.minilab(&["attack", "kubelet-access.port"]).fails_with(2);
    eventually(Duration::from_secs(30), "the attacks' objects are gone", || {
        let left =
            lab.kubectl(&["get", "pods,namespaces", "-A", "-l", "minilab.dev/attack", "-o", "name"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn every_verdict_of_a_default_lab_is_as_its_settings_say() {
    let lab = Lab::up();
    let page = lab.home.path().join("report.html");
    let ran = lab.minilab(&["verify", "-o", "json", "--report", page.to_str().unwrap()]);
    let all: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(all["asExpected"], true, "{all:#}");
    assert!(all["results"].as_array().unwrap().len() >= 12);
    assert!(std::fs::read_to_string(page).unwrap().contains("href=\"#e11\""));
}

#[test]
fn the_wire_shows_who_dials_whom_and_reads_what_is_not_encrypted() {
    let lab = Lab::up();
    lab.run("web", "exec attacker page --port 8080 plain-as-day");
    let file = lab.home.path().join("wire.pcapng");
    let words = ["wire", "--for", "8s", "-o", "json", "--pcap", file.to_str().unwrap()];
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| lab.minilab(&words).ok());
        // Asked again and again until the capture is over, so that it need not be waited for.
        while !watching.is_finished() {
            lab.kubectl(&["logs", "web"]);
            lab.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/"]);
        }
        watching.join().unwrap()
    });
    let events: Vec<Value> = seen.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let on = |path: &'static str| events.iter().filter(move |event| event["path"] == path);
    assert!(
        on("apiserver-proxy")
            .any(|event| event["what"].as_str().is_some_and(|text| text.contains("plain-as-day")))
    );
    assert!(on("apiserver-to-kubelet").any(|event| event["protocol"] == "tls"), "{seen}");
    assert!(on("apiserver-to-kubelet").all(|event| event["protocol"] != "plain"), "{seen}");
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    let has = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    assert!(has(b"plain-as-day"));
}

#[test]
fn an_attack_killed_at_any_moment_leaves_no_rule_and_no_process() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    // A redirect, a claimed address, both fake hubs, and one that only listens.
    let targets = [
        "apiserver-to-kubelet.ca",
        "pod-to-apiserver.external-ips",
        "pod-to-apiserver.ca",
        "node-to-apiserver.ca",
        "apiserver-proxy.transport",
    ];
    for round in 0..rounds(50) {
        let mut running = lab.command(crate::kit::lab::binary());
        let mut running = running
            .args(["attack", targets[round % targets.len()]])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random() % 1500));
        process::kill(running.id() as i32);
        running.wait().unwrap();
        eventually(Duration::from_secs(60), "the attacker has gone and the real kubelet answers", || {
            let left =
                process::tree(lab.keeper()).into_iter().filter(|one| one.command == "attacker").count();
            let logs = lab.kubectl(&["logs", "web"]);
            match (left, logs.stdout.as_str()) {
                (0, "real\n") => Ok(()),
                (left, said) => Err(format!("{left} attackers; {said}{}", logs.stderr)),
            }
        });
    }
    eventually(Duration::from_secs(60), "nothing of theirs is left", || {
        let left = lab.kubectl(&["get", "namespaces", "-l", "minilab.dev/attack", "-o", "name"]).ok();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    lab.minilab(&["attack", "apiserver-to-kubelet.ca", "--expect", "compromised"]).ok();
}

#[test]
fn the_paths_are_told_under_the_pages_own_headings() {
    let told = Lab::new().minilab(&["paths"]).ok();
    assert!(told.contains("Node to Control Plane") && told.contains("Control Plane to Node"), "{told}");
}
