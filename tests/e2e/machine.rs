//! The machine stays as it is: whatever a privileged pod or root of a host tries, also where root started
//! the lab.

use std::fs;

use crate::kit::Lab;

/// Settings that belong to the whole machine, whatever namespace they are written in.
const SETTINGS: &[&str] = &["vm/swappiness", "vm/overcommit_memory", "kernel/core_pattern", "fs/file-max"];

/// Puts the machine's settings back, should a test show that they can be changed after all.
struct Settings(Vec<(String, String)>);

impl Settings {
    fn read() -> Settings {
        let paths = SETTINGS.iter().map(|name| format!("/proc/sys/{name}"));
        Settings(paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            if fs::read_to_string(path).ok().as_ref() != Some(value) {
                let _ = fs::write(path, value);
            }
        }
    }
}

/// Tries every setting with the value it has, so that even a success changes nothing.
const TRY: &str = "mount -o remount,rw /proc/sys 2>/dev/null; mount -t proc proc /mnt 2>/dev/null; \
    for dir in /proc/sys /mnt/sys; do for name in $0 \"$@\"; do \
    test -e $dir/$name && value=$(cat $dir/$name) && (echo \"$value\" > $dir/$name) 2>/dev/null && \
    echo \"wrote $dir/$name\"; done; done; \
    (echo 1 > /mnt/sys/net/ipv4/ip_forward || echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null && echo tried; true";

#[test]
fn a_privileged_pod_and_root_in_a_host_cannot_change_the_machines_settings() {
    let before = Settings::read();
    let lab = Lab::up();
    let words: Vec<String> =
        ["sh", "-c", TRY].iter().chain(SETTINGS).map(|word| format!("{word:?}")).collect();
    lab.apply(&format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "strong"}}, "spec": {{
            "hostPID": true, "hostNetwork": true, "restartPolicy": "Never", "containers": [{{
            "name": "c", "image": "minilab/toolbox", "securityContext": {{"privileged": true}},
            "command": [{}]}}]}}}}"#,
        words.join(", ")
    ));
    lab.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/strong", "--timeout=30s"]).ok();
    let pod = lab.kubectl(&["logs", "strong"]).ok();
    let host = lab.on("node-1", &[&["sh", "-c", TRY], SETTINGS].concat());
    for (who, said) in [("the pod", &pod), ("the host", &host)] {
        assert!(!said.contains("wrote"), "{who}: {said}");
        // The control: what is the host's own can be written in the same way.
        assert!(said.contains("tried"), "{who}: {said}");
    }
    let supervisor = crate::kit::process::tree(lab.keeper());
    for process in supervisor.iter().skip(1) {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
        let real_root = ids.split_whitespace().skip(1).any(|id| id == "0");
        assert!(!real_root, "{} is the machine's root: {ids}", process.pid);
    }
    assert_eq!(before.0, Settings::read().0);
}
