//! The kubelet's own HTTPS API: who is let in to what, with which certificate it answers, in upstream's words.

mod certificates;
mod door;
mod serving;

use std::time::Duration;

use crate::kit::{Lab, eventually};

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
