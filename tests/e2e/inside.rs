//! Insecure only inside: whatever the modes, the machine sees one door of a lab, and that one lets nobody in.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kit::{Lab, process};

/// Inodes of the sockets a process holds.
fn sockets(pid: i32) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// Local addresses of the machine's own TCP and UDP sockets that belong to one of these, in the kernel's hex.
fn open_on_the_machine(inodes: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (table, listening) in [("tcp", Some("0A")), ("tcp6", Some("0A")), ("udp", None), ("udp6", None)] {
        // Ours, not the lab's: this process is on the machine's side.
        let text = std::fs::read_to_string(format!("/proc/self/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if listening.is_none_or(|state| fields[3] == state) && inodes.contains(fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

fn status(lab: &Lab, url: &str) -> Value {
    // The same tool asks from the machine as from inside: no credential, any certificate.
    let tool = lab.home.path().join("attacker");
    if !tool.exists() {
        std::os::unix::fs::symlink(crate::kit::lab::binary(), &tool).unwrap();
    }
    let output = lab.command(&tool).args(["http", url]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["status"].clone()
}

#[test]
fn in_the_all_insecure_profile_the_machine_has_one_door_and_nobody_gets_in_without_a_credential() {
    let lab = Lab::new();
    lab.minilab(&["up", "--profile", "insecure"]).ok();
    let port = lab.status()["server"].as_str().unwrap().rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let mut inodes = BTreeSet::new();
    for process in process::tree(lab.keeper()) {
        inodes.extend(sockets(process.pid));
    }
    assert!(inodes.len() > 20, "the lab's sockets are seen at all: {inodes:?}");
    let mut open = open_on_the_machine(&inodes);
    open.dedup();
    assert_eq!(open, [format!("0100007F:{port:04X}")], "127.0.0.1 and the lab's port, nothing else");
    let url = |path: &str| format!("https://127.0.0.1:{port}{path}");
    assert_eq!(status(&lab, &url("/livez")), 200, "the door is there");
    for path in
        ["/api", "/apis", "/api/v1/secrets", "/api/v1/nodes/node-1/proxy/pods", "/metrics", "/openapi/v2"]
    {
        let answer = status(&lab, &url(path));
        assert!(answer == 401 || answer == 403, "{path}: {answer}");
    }
    // Inside, the same question is answered: the profile is as open as it says.
    let inside = lab.on("wire", &["attacker", "http", "https://192.0.2.11:10250/pods"]);
    assert_eq!(serde_json::from_str::<Value>(&inside).unwrap()["status"], 200);
}
