//! What the switch does, done by an administrator's hands instead: files and kubectl alone, with the same modes,
//! probes and verdicts; and what rules that only look at processes and files say of the two ends.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::probes;
use crate::kit::{Lab, eventually, rounds};

/// Tried in every run: a node's file, a manifest of control's, a binding, a Deployment.
const FEW: &[&str] = &[
    "kubelet-access.read-only-port",
    "components-to-apiserver.ports",
    "pod-to-apiserver.rbac",
    "pod-to-apiserver.ca",
];

/// What a setting changes: files by host and path, objects by kind, namespace and name; as they are now.
#[derive(Default)]
struct State {
    files: BTreeMap<(String, String), Option<String>>,
    objects: BTreeMap<Vec<String>, Option<Value>>,
}

/// The places a difference names.
fn places(difference: &str) -> State {
    let mut state = State::default();
    for line in difference.lines() {
        let prefixes = ["--- ", "+++ ", "+key ", "-key "];
        let Some(place) = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)) else { continue };
        match place.split_once(":/") {
            Some((host, path)) => {
                state.files.insert((host.to_owned(), format!("/{path}")), None);
            }
            // `role@host` is a command line, which comes from files; `/dev/null` is nothing.
            None if place.contains('/') && !place.starts_with('/') && !place.contains('@') => {
                state.objects.insert(place.split('/').map(str::to_owned).collect(), None);
            }
            None => {}
        }
    }
    state
}

fn named(words: &[String]) -> Vec<&str> {
    match words {
        [kind, space, name] => vec!["-n", space, kind, name],
        words => words.iter().map(String::as_str).collect(),
    }
}

/// What is there now, in the same places.
fn snapshot(lab: &Lab, places: &State) -> State {
    let mut state = State::default();
    for (host, path) in places.files.keys() {
        let ran = lab.minilab(&["exec", host, "--", "cat", path]);
        let text = (ran.code == 0).then_some(ran.stdout);
        state.files.insert((host.clone(), path.clone()), text);
    }
    for words in places.objects.keys() {
        let ran = lab.kubectl(&[&["get", "-o", "json"], &named(words)[..]].concat());
        let mut object: Option<Value> = serde_json::from_str(&ran.stdout).ok();
        if let Some(object) = &mut object {
            let meta = object["metadata"].as_object_mut().unwrap();
            meta.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "labels" | "annotations"));
            object.as_object_mut().unwrap().remove("status");
        }
        state.objects.insert(words.clone(), object);
    }
    state
}

/// Brings every place to what it was then, with nothing but an editor, kubectl and a restart of these roles.
fn by_hand(lab: &Lab, then: &State, restarted: &[String]) {
    let now = snapshot(lab, then);
    for (words, object) in &then.objects {
        if let Some(object) = object.as_ref().filter(|_| then.objects[words] != now.objects[words]) {
            let file = lab.home.path().join("by-hand.json");
            std::fs::write(&file, object.to_string()).unwrap();
            let verb = if now.objects[words].is_some() { "replace" } else { "create" };
            lab.kubectl(&[verb, "-f", file.to_str().unwrap()]).ok();
        }
    }
    for ((host, path), text) in &then.files {
        match text {
            _ if now.files[&(host.clone(), path.clone())] == *text => {}
            Some(text) => drop(lab.on(host, &["sh", "-c", "printf %s \"$1\" > \"$0\"", path, text])),
            None => drop(lab.on(host, &["rm", "-f", path])),
        }
    }
    for role in restarted {
        // One whose manifest was just taken away is no role of the lab's any more.
        eventually(Duration::from_secs(60), role, || {
            let ran = lab.minilab(&["restart", role]);
            if ran.code == 0 || ran.stderr.contains("has no role") { Ok(()) } else { Err(ran.stderr) }
        });
    }
    for (words, _) in then.objects.iter().filter(|(_, object)| object.is_none()) {
        lab.kubectl(&[&["delete", "--ignore-not-found"], &named(words)[..]].concat()).ok();
    }
}

/// The mode a setting is found in.
fn mode(lab: &Lab, name: &str) -> String {
    let (path, setting) = name.split_once('.').unwrap();
    let all: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
    let mut paths = all.as_array().unwrap().iter();
    let rows = paths.find(|one| one["name"] == path).unwrap()["settings"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == setting).unwrap()["mode"].as_str().unwrap().to_owned()
}

/// Everything that can be told of a setting says it is in this mode.
fn holds(lab: &Lab, name: &str, probe: &Value, wanted: &str) {
    eventually(Duration::from_secs(60), &format!("{name} is {wanted} by hand"), || {
        let (found, said) = (mode(lab, name), probes::answer(lab, probe));
        let told = probe[wanted].as_array().unwrap().iter().any(|text| said.contains(text.as_str().unwrap()));
        if found == wanted && told { Ok(()) } else { Err(format!("{found}; the probe says {said}")) }
    });
    let verdict = if wanted == "insecure" { "compromised" } else { "defeated" };
    lab.minilab(&["attack", name, "--expect", verdict]).ok();
}

#[test]
fn settings_are_hardened_and_softened_by_files_and_kubectl_alone_with_the_same_verdicts() {
    let lab = Lab::up();
    let full = rounds(20) == 20;
    // The tunnels' own task is followed by hand in another test; wire's part of it is no administrator's.
    let elsewhere = |name: &str| name.starts_with("apiserver-egress.") || name == "apiserver-proxy.transport";
    // These need others to be open or shut before there is anything to attack.
    let staged = ["kubelet-access.authentication", "apiserver-to-kubelet.serving-certificates"];
    for (name, probe) in probes::probes(&lab) {
        let wanted =
            if full { !elsewhere(&name) && !staged.contains(&&*name) } else { FEW.contains(&&*name) };
        if !wanted {
            continue;
        }
        if name.starts_with("apiserver-to-kubelet.") {
            lab.minilab(&["harden", "apiserver-to-kubelet"]).ok();
        }
        lab.minilab(&["soften", &name]).ok();
        let shown = lab.minilab(&["harden", &name, "-o", "json"]).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let places = places(shown["difference"].as_str().unwrap());
        let restarted: Vec<String> = serde_json::from_value(shown["restarted"].clone()).unwrap();
        let hardened = snapshot(&lab, &places);
        lab.minilab(&["soften", &name]).ok();
        let softened = snapshot(&lab, &places);
        by_hand(&lab, &hardened, &restarted);
        holds(&lab, &name, &probe, "hardened");
        by_hand(&lab, &softened, &restarted);
        holds(&lab, &name, &probe, "insecure");
        lab.minilab(&["harden", &name]).ok();
    }
}

/// A rule of the CIS benchmark (cis-1.12): where the process is, its name, the flag or field, and what it must be.
struct Rule(&'static str, &'static str, &'static str, &'static str, Must);

enum Must {
    Be(&'static str),
    Have(&'static str),
    NotHave(&'static str),
    /// Absent is as good: a file's default is the safe one.
    BeIfSet(&'static str),
    BeSet,
    NotBeSet,
}

const RULES: &[Rule] = &[
    Rule("1.2.2", "control", "kube-apiserver", "--token-auth-file", Must::NotBeSet),
    Rule(
        "1.2.3",
        "control",
        "kube-apiserver",
        "--enable-admission-plugins",
        Must::Have("DenyServiceExternalIPs"),
    ),
    Rule("1.2.5", "control", "kube-apiserver", "--kubelet-certificate-authority", Must::BeSet),
    Rule("1.2.6", "control", "kube-apiserver", "--authorization-mode", Must::NotHave("AlwaysAllow")),
    Rule("1.2.7", "control", "kube-apiserver", "--authorization-mode", Must::Have("Node")),
    Rule("1.2.8", "control", "kube-apiserver", "--authorization-mode", Must::Have("RBAC")),
    Rule("1.2.14", "control", "kube-apiserver", "--enable-admission-plugins", Must::Have("NodeRestriction")),
    Rule(
        "1.2.30",
        "control",
        "kube-apiserver",
        "--service-account-extend-token-expiration",
        Must::Be("false"),
    ),
    Rule("1.3.2", "control", "kube-controller-manager", "--profiling", Must::Be("false")),
    Rule(
        "1.3.3",
        "control",
        "kube-controller-manager",
        "--use-service-account-credentials",
        Must::Be("true"),
    ),
    Rule("1.3.7", "control", "kube-controller-manager", "--bind-address", Must::Be("127.0.0.1")),
    Rule("1.4.1", "control", "kube-scheduler", "--profiling", Must::Be("false")),
    Rule("1.4.2", "control", "kube-scheduler", "--bind-address", Must::Be("127.0.0.1")),
    Rule("4.2.1", "node-1", "kubelet", "authentication.anonymous.enabled", Must::Be("false")),
    Rule("4.2.2", "node-1", "kubelet", "authorization.mode", Must::NotHave("AlwaysAllow")),
    Rule("4.2.4", "node-1", "kubelet", "readOnlyPort", Must::BeIfSet("0")),
    Rule("4.2.11", "node-1", "kubelet", "serverTLSBootstrap", Must::Be("true")),
];

/// The command line of a process, as `/proc` has it.
const CMDLINE: &str = "for p in /proc/[0-9]*; do \
    [ \"$(tr '\\0' '\\n' < $p/cmdline 2>/dev/null | head -n 1)\" = \"$0\" ] && tr '\\0' '\\n' < $p/cmdline; done; true";

/// What a rule's flag or field is: the flag of the process, or the field of the file its `--config` names.
fn value(lab: &Lab, Rule(_, host, process, what, _): &Rule) -> Option<String> {
    let argv = lab.on(host, &["sh", "-c", CMDLINE, process]);
    assert!(argv.starts_with(process), "{process} runs: {argv}");
    let flag = |name: &str| {
        let mut words = argv.lines().filter_map(|word| word.split_once('='));
        words.find(|(flag, _)| *flag == name).map(|(_, value)| value.to_owned())
    };
    if what.starts_with("--") {
        return flag(what);
    }
    let config = lab.on(host, &["cat", &flag("--config").unwrap()]);
    let config: Value = serde_yaml_ng::from_str(&config).unwrap();
    let field = config.pointer(&format!("/{}", what.replace('.', "/")))?;
    Some(field.as_str().map_or_else(|| field.to_string(), str::to_owned))
}

fn passes(lab: &Lab, rule: &Rule) -> bool {
    let value = value(lab, rule);
    let has = |word: &str| value.as_deref().is_some_and(|value| value.split(',').any(|one| one == word));
    match rule.4 {
        Must::Be(wanted) => value.as_deref() == Some(wanted),
        Must::Have(word) => has(word),
        Must::NotHave(word) => value.is_some() && !has(word),
        Must::BeIfSet(wanted) => value.as_deref().is_none_or(|value| value == wanted),
        Must::BeSet => value.is_some(),
        Must::NotBeSet => value.is_none(),
    }
}

#[test]
fn rules_that_look_at_processes_and_files_fail_before_and_pass_after_harden() {
    let lab = Lab::new();
    lab.minilab(&["up", "--profile", "insecure"]).ok();
    let passed = |lab: &Lab| -> Vec<&str> {
        RULES.iter().filter(|rule| passes(lab, rule)).map(|rule| rule.0).collect()
    };
    assert_eq!(passed(&lab), [""; 0]);
    lab.minilab(&["harden", "--all"]).ok();
    assert_eq!(passed(&lab), RULES.iter().map(|rule| rule.0).collect::<Vec<_>>());
}
