//! Every probe, run in both modes: it must tell them apart, with the answers `explain` promises.

use serde_json::Value;

use crate::kit::{Lab, clients};

/// A probe as `explain -o json` gives it, with the setting's full name.
pub fn probes(lab: &Lab) -> Vec<(String, Value)> {
    let paths: Value = serde_json::from_str(&lab.minilab(&["paths", "-o", "json"]).ok()).unwrap();
    let names = paths.as_array().unwrap().iter().map(|path| path["name"].as_str().unwrap().to_owned());
    let explained = |name: String| {
        let all: Value = serde_json::from_str(&lab.minilab(&["explain", &name, "-o", "json"]).ok()).unwrap();
        let rows = all.as_array().unwrap().clone().into_iter().filter(|row| !row["probe"].is_null());
        rows.map(|row| (format!("{name}.{}", row["setting"].as_str().unwrap()), row["probe"].clone()))
            .collect::<Vec<_>>()
    };
    names.flat_map(explained).collect()
}

/// What a probe says now.
pub fn answer(lab: &Lab, probe: &Value) -> String {
    let line = probe["line"].as_str().unwrap();
    let host = match probe["at"].as_str().unwrap() {
        "kubectl" => {
            let kubectl = clients::any();
            let mut path = kubectl.path.parent().unwrap().display().to_string();
            path += &format!(":{}", std::env::var("PATH").unwrap());
            let output = lab.command("/bin/sh").args(["-c", line]).env("PATH", path).output().unwrap();
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        "node" => "node-1",
        other => other,
    };
    lab.minilab(&["exec", host, "--", "sh", "-c", line]).stdout
}

#[test]
fn every_probe_tells_the_two_modes_apart() {
    let lab = Lab::up();
    let probes = probes(&lab);
    assert_eq!(probes.len(), 25, "every setting has one");
    for (name, probe) in probes {
        if name == "apiserver-egress.ssh-host-key" {
            lab.minilab(&["harden", "apiserver-egress.tunnel", "--with", "ssh"]).ok();
        }
        let mut answers = Vec::new();
        for (verb, mode) in [("soften", "insecure"), ("harden", "hardened")] {
            lab.minilab(&[verb, &name]).ok();
            let said = answer(&lab, &probe);
            let promised = probe[mode].as_array().unwrap();
            let kept = promised.iter().any(|text| said.contains(text.as_str().unwrap()));
            assert!(kept, "{name}, {mode}: {} answered {said:?}", probe["line"]);
            answers.push(said);
        }
        assert_ne!(answers[0], answers[1], "{name}");
    }
}
