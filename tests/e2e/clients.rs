//! The official Python client, as people use it: by certificate, by token, and from inside a pod.

use std::process::Command;

use crate::kit::{Lab, clients};

const WHOAMI: &str = "
from kubernetes import client, config
HOW
api = client.AuthenticationV1Api()
review = api.create_self_subject_review(client.V1SelfSubjectReview())
print(review.status.user_info.username)
try:
    print(len(client.CoreV1Api().list_node().items), 'nodes')
except client.ApiException as error:
    print(error.status, error.reason)
";

fn python(lab: &Lab, how: &str) -> String {
    let output = Command::new("/usr/bin/python3")
        .env("PYTHONPATH", clients::python())
        .env("KUBECONFIG", lab.home.path().join(format!("state/minilab/{}/kubeconfig", lab.name)))
        .args(["-c", &WHOAMI.replace("HOW", how)])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_python_client_is_known_by_certificate_by_token_and_in_a_pod() {
    let lab = Lab::up();
    assert_eq!(python(&lab, "config.load_kube_config()"), "kubernetes-admin\n2 nodes\n");
    lab.kubectl(&["create", "serviceaccount", "robot"]).ok();
    let token = lab.kubectl(&["create", "token", "robot"]).ok();
    let how = format!(
        "config.load_kube_config()
own = client.Configuration.get_default_copy()
own.cert_file = own.key_file = None
own.api_key = {{'authorization': 'Bearer {}'}}
client.Configuration.set_default(own)",
        token.trim()
    );
    assert_eq!(python(&lab, &how), "system:serviceaccount:default:robot\n403 Forbidden\n");
    // In a pod the client finds everything by itself: the address in the environment, CA and token in files.
    let inside = lab.home.path().join(format!("state/minilab/{}/hosts/node-1/var/lib/python", lab.name));
    std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-r").arg(clients::python()).arg(&inside).status().unwrap();
    assert!(copied.success());
    let script = WHOAMI.replace("HOW", "config.load_incluster_config()").replace('\n', "\n        ");
    lab.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: inside}}
spec:
  nodeName: node-1
  restartPolicy: Never
  serviceAccountName: robot
  containers:
  - name: c
    image: minilab/toolbox
    env: [{{name: PYTHONPATH, value: /opt/python}}]
    command: [/usr/bin/python3, -c]
    args:
    - |
        {script}
    volumeMounts: [{{name: python, mountPath: /opt/python, readOnly: true}}]
  volumes: [{{name: python, hostPath: {{path: /var/lib/python}}}}]
"
    ));
    lab.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/inside", "--timeout=60s"]).ok();
    assert_eq!(lab.kubectl(&["logs", "inside"]).ok(), "system:serviceaccount:default:robot\n403 Forbidden\n");
}
