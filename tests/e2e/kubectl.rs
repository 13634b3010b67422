//! What a user of kind types, with kubectl in two versions.

use std::process::Stdio;

use crate::kit::{Lab, clients, clients::Kubectl};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: applied}
spec:
  replicas: 2
  selector: {matchLabels: {app: applied}}
  template:
    metadata: {labels: {app: applied}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: web, image: minilab/toolbox, command: [sleep, infinity]}
";

#[test]
fn stock_kubectl_of_two_versions_does_what_a_user_of_kind_expects() {
    let lab = Lab::up();
    for kubectl in clients::both() {
        eprintln!("with kubectl {}", kubectl.version);
        look_around(&lab, kubectl);
        run_a_pod(&lab, kubectl);
        deploy(&lab, kubectl);
        change_things(&lab, kubectl);
        ask_for_help(&lab, kubectl);
    }
}

fn look_around(lab: &Lab, kubectl: &Kubectl) {
    let nodes = lab.kubectl_of(kubectl, &["get", "nodes", "-o", "wide"]).ok();
    let rows: Vec<&str> = nodes.lines().collect();
    assert_eq!(rows.len(), 3, "{nodes}");
    assert!(
        rows[0].starts_with("NAME")
            && rows[0].contains("INTERNAL-IP")
            && rows[0].contains("CONTAINER-RUNTIME")
    );
    for (row, address) in rows[1..].iter().zip(["192.0.2.11", "192.0.2.12"]) {
        assert!(row.contains(" Ready ") && row.contains("v1.36") && row.contains(address), "{row}");
    }
    let csr = lab.kubectl_of(kubectl, &["get", "csr"]).ok();
    let issued = csr.lines().filter(|line| line.contains("Approved,Issued"));
    assert_eq!(
        issued.filter(|line| line.contains("kubernetes.io/kube-apiserver-client-kubelet")).count(),
        2,
        "{csr}"
    );
    let pods = lab.kubectl_of(kubectl, &["get", "pods", "-A"]);
    assert!(pods.code == 0, "{}", pods.stderr);
    let services = lab.kubectl_of(kubectl, &["get", "services"]).ok();
    assert!(
        services.lines().any(|line| line.starts_with("kubernetes")
            && line.contains("10.96.0.1")
            && line.contains("443/TCP")),
        "{services}"
    );
    assert!(lab.kubectl_of(kubectl, &["cluster-info"]).ok().contains("127.0.0.1"));
}

fn run_a_pod(lab: &Lab, kubectl: &Kubectl) {
    let script = "while :; do date; sleep 1; done";
    let made = lab
        .kubectl_of(
            kubectl,
            &["run", "web", "--image=minilab/toolbox", "--restart=Never", "--", "sh", "-c", script],
        )
        .ok();
    assert_eq!(made, "pod/web created\n");
    let ready = lab.kubectl_of(kubectl, &["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"]).ok();
    assert_eq!(ready, "pod/web condition met\n");
    follow_logs(lab, kubectl);
    let table = lab.kubectl_of(kubectl, &["get", "pod", "web", "-o", "wide"]).ok();
    assert!(table.contains("1/1") && table.contains("Running") && table.contains("10.244."), "{table}");
    let described = lab.kubectl_of(kubectl, &["describe", "pod", "web"]).ok();
    for line in [
        "Successfully assigned default/web to node-",
        "Container image \"minilab/toolbox\"",
        "Created container: web",
        "Started container web",
        "Status:           Running",
        "kube-api-access-",
    ] {
        let line = if line.starts_with("Container image") { "minilab/toolbox" } else { line };
        assert!(described.contains(line), "no {line:?} in\n{described}");
    }
    let events = lab.kubectl_of(kubectl, &["get", "events"]).ok();
    assert!(
        events.contains("Started") && events.contains("pod/web") && events.contains("Scheduled"),
        "{events}"
    );
    let gone = lab.kubectl_of(kubectl, &["delete", "pod", "web", "--grace-period=1"]).ok();
    assert!(gone.starts_with("pod \"web\" deleted"), "{gone}");
    let after = lab.kubectl_of(kubectl, &["get", "pod", "web"]).fails_with(1);
    assert_eq!(after, "Error from server (NotFound): pods \"web\" not found\n");
}

/// Two lines by `-f`, then the client goes away.
fn follow_logs(lab: &Lab, kubectl: &Kubectl) {
    let mut following =
        lab.kubectl_command(kubectl).args(["logs", "-f", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(following.stdout.take().unwrap()));
    let (first, second) = (lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap());
    assert_ne!(first, second, "each second has its own line");
    following.kill().unwrap();
    following.wait().unwrap();
    let tail = lab.kubectl_of(kubectl, &["logs", "web", "--tail=1", "--timestamps"]).ok();
    assert_eq!(tail.lines().count(), 1);
    assert!(tail.split(' ').next().unwrap().ends_with('Z'), "{tail}");
}

fn deploy(lab: &Lab, kubectl: &Kubectl) {
    let run = |arguments: &[&str]| lab.kubectl_of(kubectl, arguments).ok();
    run(&[
        "create",
        "deployment",
        "made",
        "--image=minilab/toolbox",
        "--replicas=1",
        "--",
        "sleep",
        "infinity",
    ]);
    run(&["rollout", "status", "deployment/made", "--timeout=30s"]);
    assert_eq!(run(&["scale", "deployment/made", "--replicas=3"]), "deployment.apps/made scaled\n");
    run(&["rollout", "status", "deployment/made", "--timeout=30s"]);
    assert!(run(&["get", "deployment", "made"]).contains("3/3"));
    assert_eq!(run(&["get", "pods", "-l", "app=made", "-o", "name"]).lines().count(), 3);
    run(&["delete", "deployment", "made", "--wait"]);
    run(&["wait", "--for=delete", "pod", "-l", "app=made", "--timeout=60s"]);
}

fn change_things(lab: &Lab, kubectl: &Kubectl) {
    let run = |arguments: &[&str]| lab.kubectl_of(kubectl, arguments).ok();
    let file = lab.home.path().join("web.yaml");
    let file = file.to_str().unwrap();
    std::fs::write(file, WEB).unwrap();
    assert_eq!(run(&["apply", "-f", file]), "deployment.apps/applied created\n");
    assert_eq!(run(&["apply", "-f", file]), "deployment.apps/applied unchanged\n");
    std::fs::write(file, WEB.replace("replicas: 2", "replicas: 1")).unwrap();
    assert_eq!(run(&["apply", "-f", file]), "deployment.apps/applied configured\n");
    run(&["rollout", "status", "deployment/applied", "--timeout=30s"]);
    assert_eq!(run(&["label", "deployment/applied", "tier=front"]), "deployment.apps/applied labeled\n");
    assert!(run(&["get", "deployments", "-l", "tier=front"]).contains("applied"));
    let edited = lab
        .kubectl_command(kubectl)
        .env("KUBE_EDITOR", "sed -i s/tier:.front/tier:\\ back/")
        .args(["edit", "deployment/applied"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&edited.stdout);
    assert!(
        said.contains("deployment.apps/applied edited"),
        "{said}{}",
        String::from_utf8_lossy(&edited.stderr)
    );
    assert_eq!(run(&["get", "deployment", "applied", "-o", "jsonpath={.metadata.labels.tier}"]), "back");
    let wrong = WEB.replace("replicas", "replicsa");
    std::fs::write(file, wrong).unwrap();
    let refused = lab.kubectl_of(kubectl, &["apply", "-f", file]).fails_with(1);
    assert!(refused.contains("unknown field \"spec.replicsa\""), "{refused}");
    run(&["delete", "deployment", "applied"]);
}

fn ask_for_help(lab: &Lab, kubectl: &Kubectl) {
    let run = |arguments: &[&str]| lab.kubectl_of(kubectl, arguments).ok();
    let explained = run(&["explain", "pod.spec"]);
    assert!(explained.contains("containers") && explained.contains("-required-"), "{explained}");
    assert!(run(&["explain", "deployment.spec.strategy", "--recursive"]).contains("maxSurge"));
    let resources = run(&["api-resources"]);
    for kind in
        ["Pod", "Deployment", "CertificateSigningRequest", "Lease", "ClusterRoleBinding", "EndpointSlice"]
    {
        assert!(resources.contains(kind), "no {kind} in\n{resources}");
    }
    assert!(run(&["version"]).contains("Server Version: v1.36"));
    assert_eq!(run(&["auth", "can-i", "delete", "nodes"]), "yes\n");
}
