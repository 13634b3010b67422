//! Two labs, and machines that say no.

use std::net::TcpListener;

use crate::kit::{Lab, lab::binary};

#[test]
fn two_labs_run_side_by_side() {
    let (one, two) = (Lab::up(), Lab::up());
    one.kubectl(&["create", "configmap", "mine", "--from-literal=a=b"]).ok();
    two.kubectl(&["get", "configmap", "mine"]).fails_with(1);
    two.run("pod", "sleep infinity");
    one.minilab(&["down"]).ok();
    two.kubectl(&["get", "nodes"]).ok();
}

#[test]
fn up_twice_says_that_it_runs_already() {
    let lab = Lab::up();
    let keeper = lab.keeper();
    let again = lab.minilab(&["up"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    assert_eq!(lab.keeper(), keeper);
}

#[test]
fn a_taken_port_is_named_and_nothing_is_half_made() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = lab.minilab(&["up", "--port", &port]).fails_with(1);
    assert!(error.contains(&port) && error.contains("--port"), "{error}");
    let state = lab.home.path().join("state/minilab").join(&lab.name);
    assert!(!state.exists(), "{} stays", state.display());
    assert!(!lab.home.path().join(".kube/config").exists());
}

#[test]
fn a_machine_without_user_namespaces_is_told_the_remedy() {
    let lab = Lab::new();
    // In a user namespace of its own the test may forbid what a distribution forbids.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" up";
    let output = lab
        .command("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(binary())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(error.contains("max_user_namespaces"), "{error}");
    let state = lab.home.path().join("state/minilab").join(&lab.name);
    assert!(!state.exists(), "{} stays", state.display());
}

#[test]
fn a_full_disk_is_named_and_nothing_is_half_made() {
    let lab = Lab::new();
    let script = "mkdir -p \"$XDG_STATE_HOME\" && mount -t tmpfs -o size=64k none \"$XDG_STATE_HOME\" && \"$0\" up; \
                  code=$?; ls -A \"$XDG_STATE_HOME\"/minilab; exit $code";
    let output = lab
        .command("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(binary())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 5)), "{error}");
    assert!(error.to_lowercase().contains("space"), "{error}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains(&lab.name), "the lab is half-made");
}
