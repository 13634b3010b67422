//! What a kubelet reads and writes on its node: static pods, secrets in memory, rotated logs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::kit::{Lab, clients, eventually};
use crate::kubelet::{put, reconfigure, replaced, restart};

const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: fixed}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: fixed
    image: minilab/toolbox
    command: [sh, -c, 'echo fixed; sleep 1000']
";
const PLACE: &str = "/etc/kubernetes/manifests/fixed.yaml";

fn container(lab: &Lab) -> Result<String, String> {
    let ran = lab.kubectl(&["get", "pod", "fixed-node-1", "-o", "json"]);
    let pod: serde_json::Value = serde_json::from_str(&ran.stdout).map_err(|_| ran.stderr.clone())?;
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"].as_str().filter(|_| status["ready"] == true);
    id.map(str::to_owned).ok_or_else(|| pod["status"].to_string())
}

#[test]
fn a_file_on_a_node_runs_whatever_becomes_of_its_mirror() {
    let lab = Lab::up();
    let limit = Duration::from_secs(40);
    lab.on("node-1", &["mkdir", "-p", "/etc/kubernetes/manifests"]);
    put(&lab, "node-1", PLACE, MANIFEST);
    let first = eventually(limit, "the static pod runs", || container(&lab));
    assert_eq!(lab.kubectl(&["logs", "fixed-node-1"]).ok(), "fixed\n");
    let pod = lab.object(&["pod", "fixed-node-1"]);
    assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Node");
    let mirror = pod["metadata"]["uid"].clone();
    lab.kubectl(&["delete", "pod", "fixed-node-1"]).ok();
    eventually(limit, "the mirror comes back", || {
        let again = container(&lab)?;
        let uid = lab.object(&["pod", "fixed-node-1"])["metadata"]["uid"].clone();
        match again == first && uid != mirror {
            true => Ok(()),
            false => Err(format!("{again} {uid}")),
        }
    });
    restart(&lab, "node-1");
    assert_eq!(eventually(limit, "it still runs", || container(&lab)), first);
    put(&lab, "node-1", PLACE, &MANIFEST.replace("echo fixed", "echo changed"));
    eventually(limit, "a changed file is another pod", || {
        let log = lab.kubectl(&["logs", "fixed-node-1"]);
        if log.stdout == "changed\n" { Ok(()) } else { Err(log.stdout + &log.stderr) }
    });
    lab.on("node-1", &["rm", PLACE]);
    eventually(limit, "without its file it is gone", || {
        let ran = lab.kubectl(&["get", "pod", "fixed-node-1"]);
        if ran.stderr.contains("NotFound") { Ok(()) } else { Err(ran.stdout) }
    });
}

#[test]
fn secrets_and_tokens_are_kept_in_memory_and_leave_no_mount() {
    let lab = Lab::up();
    lab.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: look}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: look
    image: minilab/toolbox
    command: [sh, -c, 'cat /password/word; echo; sleep 1000']
    volumeMounts: [{name: password, mountPath: /password}]
  volumes:
  - {name: password, secret: {secretName: password}}
",
    );
    lab.wait_ready("look");
    assert_eq!(lab.kubectl(&["logs", "look"]).ok(), "sesame\n");
    let mounts = lab.kubectl(&["exec", "look", "--", "cat", "/proc/mounts"]).ok();
    for place in ["/password", "/run/secrets/kubernetes.io/serviceaccount"] {
        let row = mounts.lines().find(|row| row.split(' ').nth(1).is_some_and(|at| at.ends_with(place)));
        assert!(row.is_some_and(|row| row.split(' ').nth(2) == Some("tmpfs")), "{place} in\n{mounts}");
    }
    let uid = lab.kubectl(&["get", "pod", "look", "-o", "jsonpath={.metadata.uid}"]).ok();
    let count = format!("grep -c {uid}/volumes/kubernetes.io~ /proc/mounts || true");
    let left = || lab.on("node-1", &["sh", "-c", &count]);
    assert_eq!(left().trim(), "2", "one for the secret, one for the token");
    lab.kubectl(&["delete", "pod", "look"]).ok();
    eventually(Duration::from_secs(10), "the mounts go with the pod", || match left().trim() {
        "0" => Ok(()),
        some => Err(some.to_owned()),
    });
}

#[test]
fn a_log_that_grows_is_rotated_and_its_follower_misses_nothing() {
    let lab = Lab::up();
    reconfigure(&lab, "node-1", |config| {
        let own = "containerLogMaxSize: 64Ki\ncontainerLogMaxFiles: 3\ncontainerLogMonitorInterval: 1s\n";
        replaced(&config, &["containerLogMaxSize"], own)
    });
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: talk
    image: minilab/toolbox
    command: [sh, -c, 'i=0; while :; do for n in 1 2 3 4 5 6 7 8 9 10; do echo line $i; i=$((i+1)); done; sleep 0.01; done']
",
    );
    lab.wait_ready("talk");
    let mut follow = lab
        .kubectl_command(clients::any())
        .args(["logs", "-f", "talk"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let names = || lab.on("node-1", &["sh", "-c", "ls /var/log/pods/default_talk_*/talk"]);
    // Three rotations: a compressed one, the last, and the log itself.
    let mut expected = 0;
    let mut check = |upto: u64| {
        while expected < upto {
            let line = lines.next().unwrap().unwrap();
            assert_eq!(line, format!("line {expected}"));
            expected += 1;
        }
    };
    check(10_000);
    let listed = eventually(Duration::from_secs(30), "older logs are compressed", || {
        let names = names();
        if names.contains(".gz") { Ok(names) } else { Err(names) }
    });
    assert!(listed.lines().count() <= 3, "{listed}");
    check(20_000);
    follow.kill().unwrap();
    follow.wait().unwrap();
}
