//! Pods: what they see, how they end, whom they reach.

use std::time::Duration;

use crate::kit::{Lab, eventually, random};

#[test]
fn a_pod_sees_its_environment_its_files_and_nothing_of_the_machine() {
    let lab = Lab::up();
    let marker = format!("marker-{:x}", random());
    std::fs::write(lab.home.path().join(&marker), "secret").unwrap();
    lab.apply(&format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{colour: blue}}
---
apiVersion: v1
kind: Secret
metadata: {{name: password}}
stringData: {{word: sesame}}
---
apiVersion: v1
kind: Pod
metadata: {{name: look}}
spec:
  restartPolicy: Never
  containers:
  - name: look
    image: minilab/toolbox
    env:
    - {{name: WHO, value: \"pod $(NODE)\"}}
    - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
    - {{name: WORD, valueFrom: {{secretKeyRef: {{name: password, key: word}}}}}}
    command: [sh, -c]
    args:
    - |
      echo colour=$(cat /settings/colour) word=$WORD who=$WHO
      echo service=$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT
      ls /var/run/secrets/kubernetes.io/serviceaccount
      echo scratch > /scratch/file && cat /scratch/file
      find / -xdev -name '{marker}' 2>/dev/null; ls /home /root
      echo 1 > /proc/sys/vm/overcommit_memory || echo sys is read-only
      hostname
    volumeMounts:
    - {{name: settings, mountPath: /settings}}
    - {{name: scratch, mountPath: /scratch}}
  volumes:
  - {{name: settings, configMap: {{name: settings}}}}
  - {{name: scratch, emptyDir: {{}}}}
"
    ));
    lab.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/look", "--timeout=30s"]).ok();
    let logs = lab.kubectl(&["logs", "look"]).ok();
    for line in [
        "colour=blue word=sesame",
        "service=10.96.0.1:443",
        "ca.crt",
        "namespace",
        "token",
        "scratch",
        "sys is read-only",
        "\nlook\n",
    ] {
        assert!(logs.contains(line), "no {line:?} in\n{logs}");
    }
    assert!(!logs.contains(&marker), "the machine shows through:\n{logs}");
}

#[test]
fn pods_reach_each_other_across_nodes_and_the_api_server_by_its_service() {
    let lab = Lab::up();
    for node in ["node-1", "node-2"] {
        lab.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: on-{node}, labels: {{app: talk}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: talk
    image: minilab/toolbox
    command: [python3, -m, http.server, '8080', --directory, /var/run/secrets/kubernetes.io/serviceaccount]
"
        ));
    }
    lab.kubectl(&["expose", "pod", "on-node-2", "--name=talk", "--port=80", "--target-port=8080"]).ok();
    lab.wait_ready("on-node-1");
    lab.wait_ready("on-node-2");
    let peer = lab.object(&["pod", "on-node-2"])["status"]["podIP"].as_str().unwrap().to_owned();
    let service = lab.object(&["service", "talk"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let script = "
import os, ssl, urllib.request as u, sys
def get(url, **more):
    return u.urlopen(url, timeout=5, **more).read().decode()
d = '/var/run/secrets/kubernetes.io/serviceaccount/'
print('peer', get('http://@PEER@:8080/namespace'))
print('service', get('http://@SERVICE@/namespace'))
r = u.Request('https://%s:%s/version' % (os.environ['KUBERNETES_SERVICE_HOST'], os.environ['KUBERNETES_SERVICE_PORT']),
              headers={'Authorization': 'Bearer ' + open(d + 'token').read()})
print('api', get(r, context=ssl.create_default_context(cafile=d + 'ca.crt')))
"
    .replace("@PEER@", &peer)
    .replace("@SERVICE@", &service);
    lab.apply(
        &serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ask"},
            "spec": {"nodeName": "node-1", "restartPolicy": "OnFailure", "containers": [
                {"name": "ask", "image": "minilab/toolbox", "command": ["python3", "-c", script]}]},
        })
        .to_string(),
    );
    lab.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ask", "--timeout=60s"]).ok();
    let logs = lab.kubectl(&["logs", "ask"]).ok();
    assert!(
        logs.contains("peer default") && logs.contains("service default") && logs.contains("v1.36"),
        "{logs}"
    );
}

#[test]
fn a_failing_container_is_restarted_with_back_off_and_its_previous_log_stays() {
    let lab = Lab::up();
    lab.kubectl(&["run", "crash", "--image=minilab/toolbox", "--", "sh", "-c", "echo run $RANDOM$$; exit 7"])
        .ok();
    let pod = eventually(Duration::from_secs(40), "two restarts", || {
        let pod = lab.object(&["pod", "crash"]);
        let status = pod["status"]["containerStatuses"][0].clone();
        match status["restartCount"].as_u64() {
            Some(count) if count >= 2 => Ok(status),
            _ => Err(pod["status"].to_string()),
        }
    });
    assert_eq!(pod["lastState"]["terminated"]["exitCode"], 7, "{pod}");
    assert_eq!(pod["lastState"]["terminated"]["reason"], "Error");
    assert!(lab.kubectl(&["logs", "crash", "--previous"]).ok().starts_with("run "));
    eventually(Duration::from_secs(20), "back-off is shown", || {
        let table = lab.kubectl(&["get", "pod", "crash"]).ok();
        if table.contains("CrashLoopBackOff") { Ok(()) } else { Err(table) }
    });
}

#[test]
fn termination_gives_grace_and_then_ends_it() {
    let lab = Lab::up();
    lab.run("polite", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done");
    lab.run("stubborn", "trap '' TERM; while :; do sleep 1; done");
    let before = std::time::Instant::now();
    lab.kubectl(&["delete", "pod", "polite", "--grace-period=20"]).ok();
    assert!(before.elapsed() < Duration::from_secs(10), "a polite pod does not wait for its grace to end");
    lab.kubectl(&["delete", "pod", "stubborn", "--grace-period=2"]).ok();
    assert!(before.elapsed() >= Duration::from_secs(2));
}
