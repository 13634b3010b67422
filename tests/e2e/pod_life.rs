//! What a kubelet does inside a running pod by itself: hooks, probes by command, and ephemeral containers.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Lab, eventually};

/// Waits for an event about a pod: its reason and the start of its message.
fn event(lab: &Lab, pod: &str, reason: &str, message: &str) {
    eventually(Duration::from_secs(20), message, || {
        let selector = format!("involvedObject.name={pod},reason={reason}");
        let events = lab.object(&["events", "--field-selector", &selector]);
        let all = events["items"].as_array().cloned().unwrap_or_default();
        let texts: Vec<String> =
            all.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect();
        match texts.iter().any(|text| text.starts_with(message)) {
            true => Ok(()),
            false => Err(format!("{reason}: {texts:?}")),
        }
    });
}

fn pod(name: &str, container: Value) -> String {
    let mut container = container;
    container["name"] = "main".into();
    container["image"] = "minilab/toolbox".into();
    if container["command"].is_null() {
        container["command"] = serde_json::json!(["sleep", "1000"]);
    }
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
    })
    .to_string()
}

#[test]
fn hooks_run_in_their_container_and_their_failures_are_told() {
    let lab = Lab::up();
    lab.apply(&pod(
        "good",
        serde_json::json!({"lifecycle": {
            "postStart": {"exec": {"command": ["sh", "-c", "echo $HOSTNAME > /tmp/hook"]}},
            "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1; exit 3"]}},
        }}),
    ));
    lab.wait_ready("good");
    assert_eq!(lab.kubectl(&["exec", "good", "--", "cat", "/tmp/hook"]).ok(), "good\n");
    lab.kubectl(&["delete", "pod", "good"]).ok();
    event(&lab, "good", "FailedPreStopHook", "PreStopHook failed");
    lab.apply(&pod(
        "bad",
        serde_json::json!({"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "exit 9"]}}}}),
    ));
    event(&lab, "bad", "FailedPostStartHook", "PostStartHook failed");
    event(&lab, "bad", "Killing", "FailedPostStartHook");
}

#[test]
fn a_command_says_whether_its_container_is_alive_and_ready() {
    let lab = Lab::up();
    let probe = |command: &str| {
        serde_json::json!({
            "exec": {"command": ["sh", "-c", command]}, "periodSeconds": 1, "failureThreshold": 1,
            "timeoutSeconds": 1,
        })
    };
    lab.apply(&pod(
        "checked",
        serde_json::json!({
            "readinessProbe": probe("cat /tmp/ready"), "livenessProbe": probe("! test -e /tmp/broken"),
        }),
    ));
    event(&lab, "checked", "Unhealthy", "Readiness probe failed: cat: /tmp/ready: No such file or directory");
    lab.kubectl(&["exec", "checked", "--", "touch", "/tmp/ready"]).ok();
    lab.wait_ready("checked");
    lab.kubectl(&["exec", "checked", "--", "touch", "/tmp/broken"]).ok();
    event(&lab, "checked", "Killing", "Container main failed liveness probe, will be restarted");
    lab.apply(&pod("slow", serde_json::json!({"readinessProbe": probe("sleep 9")})));
    let text = "Readiness probe failed: command timed out: \"sh -c sleep 9\" timed out after 1s";
    event(&lab, "slow", "Unhealthy", text);
    lab.apply(&pod(
        "absent",
        serde_json::json!({"readinessProbe": {"exec": {"command": ["nosuch"]}, "periodSeconds": 1}}),
    ));
    let text = "Readiness probe errored and resulted in unknown state: rpc error: code = Unknown desc = failed to \
                exec in container: failed to start exec \"";
    event(&lab, "absent", "Unhealthy", text);
}

#[test]
fn an_ephemeral_container_joins_the_processes_of_its_target() {
    let lab = Lab::up();
    lab.run("web", "exec sleep 4321");
    let debug = |target: &[&str], name: &str| {
        let image = ["debug", "web", "--image=minilab/toolbox", "--profile=general", "-c", name];
        let command = ["--", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; echo; sleep 1000"];
        lab.kubectl(&[&image[..], target, &command].concat()).ok();
        let running = format!(
            "--for=jsonpath={{.status.ephemeralContainerStatuses[?(@.name=='{name}')].state.running}}"
        );
        lab.kubectl(&["wait", &running, "pod/web", "--timeout=20s"]).ok();
        eventually(Duration::from_secs(10), "it says what pid 1 is", || {
            let said = lab.kubectl(&["logs", "web", "-c", name]).ok();
            if said.is_empty() { Err(said) } else { Ok(said) }
        })
    };
    assert_eq!(debug(&["--target=web"], "near"), "sleep 4321 \n");
    // The control: without a target it is pid 1 itself.
    assert!(debug(&[], "alone").starts_with("sh -c"));
    let status = lab.object(&["pod", "web"]);
    let near = &status["status"]["ephemeralContainerStatuses"][0];
    assert_eq!(
        (&near["name"], &near["ready"], &near["restartCount"]),
        (&"near".into(), &false.into(), &0.into())
    );
    assert_eq!(lab.kubectl(&["exec", "web", "-c", "near", "--", "cat", "/proc/1/comm"]).ok(), "sleep\n");
    // A kubelet that starts again neither loses nor repeats it.
    lab.minilab(&["restart", "kubelet@node-1"]).ok();
    lab.minilab(&["restart", "kubelet@node-2"]).ok();
    lab.kubectl(&["exec", "web", "-c", "near", "--", "true"]).ok();
    event(&lab, "web", "Started", "Started container near");
}
