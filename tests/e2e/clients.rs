//! kube-rs, the official Python client and kubectl, as people use them: by certificate, by token, and from
//! inside a pod.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::kit::{Lab, clients};

/// Set where this test program runs inside a pod of a lab.
const INSIDE: &str = "MINILAB_TEST_INSIDE";
const ROBOT: &str = "system:serviceaccount:default:robot";

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
fn the_clients_people_use_are_known_by_certificate_by_token_and_in_a_pod() {
    let lab = Lab::up();
    lab.kubectl(&["create", "serviceaccount", "robot"]).ok();
    let token = lab.kubectl(&["create", "token", "robot"]).ok();
    by_certificate(&lab);
    by_token(&lab, token.trim());
    in_a_pod(&lab);
}

fn by_certificate(lab: &Lab) {
    assert_eq!(python(lab, "config.load_kube_config()"), "kubernetes-admin\n2 nodes\n");
    assert_eq!(kube_rs(config(kubeconfig(lab))), "kubernetes-admin 2 nodes");
    assert!(lab.kubectl(&["auth", "whoami"]).ok().contains("kubernetes-admin"));
}

fn by_token(lab: &Lab, token: &str) {
    let how = format!(
        "config.load_kube_config()
own = client.Configuration.get_default_copy()
own.cert_file = own.key_file = None
own.api_key = {{'authorization': 'Bearer {token}'}}
client.Configuration.set_default(own)"
    );
    assert_eq!(python(lab, &how), format!("{ROBOT}\n403 Forbidden\n"));
    let mut by_token = kubeconfig(lab);
    let user = by_token.auth_infos[0].auth_info.get_or_insert_default();
    (user.client_certificate_data, user.client_key_data) = (None, None);
    user.token = Some(token.to_owned().into());
    assert_eq!(kube_rs(config(by_token)), format!("{ROBOT} 403 Forbidden"));
    let bare = crate::accounts::bare(lab);
    let known = lab.kubectl(&["auth", "whoami", "--kubeconfig", &bare, "--token", token]).ok();
    assert!(known.contains(ROBOT), "{known}");
}

/// Who kube-rs is there, and what it gets when it asks for nodes.
fn kube_rs(config: impl Future<Output = Config>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::try_from(config.await).unwrap();
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
        let name = review.status.unwrap().user_info.unwrap().username.unwrap();
        let nodes: Api<Node> = Api::all(client);
        match nodes.list(&ListParams::default()).await {
            Ok(nodes) => format!("{name} {} nodes", nodes.items.len()),
            Err(kube::Error::Api(status)) => format!("{name} {} {}", status.code, status.reason),
            Err(error) => panic!("{error}"),
        }
    })
}

fn kubeconfig(lab: &Lab) -> Kubeconfig {
    Kubeconfig::from_yaml(&lab.minilab(&["kubeconfig"]).ok()).unwrap()
}

async fn config(kubeconfig: Kubeconfig) -> Config {
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// Run in a pod by the test above; elsewhere there is no account to be.
#[test]
fn kube_rs_finds_its_account_in_a_pod_and_nowhere_else() {
    match std::env::var_os(INSIDE) {
        Some(_) => println!("{}", kube_rs(async { Config::incluster().unwrap() })),
        None => assert!(Config::incluster().is_err()),
    }
}

/// Each finds everything by itself: the address in the environment, CA and token in files.
fn in_a_pod(lab: &Lab) {
    let inside = lab.home.path().join(format!("state/minilab/{}/hosts/node-1/var/lib/clients", lab.name));
    std::fs::create_dir_all(&inside).unwrap();
    let copy = |from: &Path, to: &str| {
        let copied = Command::new("cp").arg("-r").arg(from).arg(inside.join(to)).status().unwrap();
        assert!(copied.success(), "{}", from.display());
    };
    copy(&clients::python(), "python");
    copy(&clients::any().path, "kubectl");
    copy(&std::env::current_exe().unwrap(), "e2e");
    let script = WHOAMI.replace("HOW", "config.load_incluster_config()").replace('\n', "\n        ");
    let volume = "volumeMounts: [{name: clients, mountPath: /clients, readOnly: true}]";
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
  - name: python
    image: minilab/toolbox
    env: [{{name: PYTHONPATH, value: /clients/python}}]
    command: [/usr/bin/python3, -c]
    args:
    - |
        {script}
    {volume}
  - name: kubectl
    image: minilab/toolbox
    command: [sh, -c, 'HOME=/tmp /clients/kubectl auth whoami; HOME=/tmp /clients/kubectl get nodes 2>&1; true']
    {volume}
  - name: kube-rs
    image: minilab/toolbox
    env: [{{name: {INSIDE}, value: yes-inside}}]
    command: [/clients/e2e, --exact, 'clients::kube_rs_finds_its_account_in_a_pod_and_nowhere_else', --nocapture]
    {volume}
  volumes: [{{name: clients, hostPath: {{path: /var/lib/clients}}}}]
"
    ));
    let phase =
        lab.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/inside", "--timeout=120s"]);
    let said = |container: &str| lab.kubectl(&["logs", "inside", "-c", container]).ok();
    assert_eq!(phase.code, 0, "{}{}{}{}", phase.stderr, said("python"), said("kubectl"), said("kube-rs"));
    assert_eq!(said("python"), format!("{ROBOT}\n403 Forbidden\n"));
    assert!(said("kube-rs").contains(&format!("{ROBOT} 403 Forbidden")), "{}", said("kube-rs"));
    let kubectl = said("kubectl");
    let refused = format!("nodes is forbidden: User \"{ROBOT}\" cannot list resource \"nodes\"");
    assert!(kubectl.contains(ROBOT) && kubectl.contains(&refused), "{kubectl}");
}
