//! Accounts: the token a pod is given, what it is good for, how it ends, and who may do what in a new cluster.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::kit::{Lab, eventually};

fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

/// What a pod does with its account: shows its token, then asks three times, each answer behind a mark.
const VISIT: &str = "
cd /var/run/secrets/kubernetes.io/serviceaccount
ask() { echo; echo @@; curl -sS -m 5 -w '%{http_code}' $1 -H \"Authorization: Bearer $(cat token)\" https://10.96.0.1$2 2>&1; }
cat token
ask '--cacert ca.crt' /api/v1/namespaces/default/pods
ask '--cacert ca.crt' /openid/v1/jwks
ask '' /openid/v1/jwks
echo; echo @@
sleep infinity";

#[test]
fn a_pod_is_its_account_by_the_service_address_until_it_is_deleted() {
    let lab = Lab::up();
    lab.run("web", VISIT);
    let log = eventually(Duration::from_secs(20), "the pod has asked", || {
        let log = lab.kubectl(&["logs", "web"]).ok();
        if log.matches("@@").count() == 4 { Ok(log) } else { Err(log) }
    });
    let said: Vec<&str> = log.split("@@").map(str::trim).collect();
    let token = said[0].to_owned();
    let pod = lab.object(&["pod", "web"]);
    let (claims, node) = (claims(&token), pod["spec"]["nodeName"].as_str().unwrap().to_owned());
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    let own = &claims["kubernetes.io"];
    assert_eq!(own["pod"], json!({"name": "web", "uid": pod["metadata"]["uid"]}));
    assert_eq!((&own["namespace"], &own["node"]["name"]), (&json!("default"), &json!(node)));
    let seconds = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(
        (seconds, own["warnafter"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()),
        (31_536_000, 3607)
    );
    let message = "pods is forbidden: User \\\"system:serviceaccount:default:default\\\" cannot list resource \\\"pods\\\" in API group \\\"\\\" in the namespace \\\"default\\\"";
    assert!(said[1].ends_with("403") && said[1].contains(message), "{}", said[1]);
    assert!(said[2].ends_with("200") && said[2].contains("\"ES256\""), "{}", said[2]);
    // Without the cluster's authority the server is nobody the image knows.
    assert!(said[3].starts_with("curl: (") && said[3].contains("certificate"), "{}", said[3]);

    let whoami = |token: &str| {
        lab.kubectl(&["auth", "whoami", "-o", "json", "--token", token, "--kubeconfig", &bare(&lab)])
    };
    let me: Value = serde_json::from_str(&whoami(&token).ok()).unwrap();
    let user = &me["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["web"]));
    lab.kubectl(&["delete", "pod", "web", "--grace-period=0", "--force"]).ok();
    // A token found good stays so for ten seconds.
    eventually(Duration::from_secs(15), "the token of a deleted pod is refused", || match whoami(&token) {
        answer if answer.stderr.contains("Unauthorized") => Ok(()),
        answer => Err(answer.stdout + &answer.stderr),
    });
}

/// A kubeconfig that knows the server and nobody.
pub fn bare(lab: &Lab) -> String {
    let text = lab.minilab(&["kubeconfig"]).ok();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("client-certificate-data") && !line.contains("client-key-data"))
        .collect();
    let path = lab.home.path().join("bare.conf");
    std::fs::write(&path, kept.join("\n").replace("user:\n", "user: {}\n")).unwrap();
    path.display().to_string()
}

#[test]
fn tokens_kept_in_secrets_are_filled_and_die_with_their_account() {
    let lab = Lab::up();
    lab.kubectl(&["create", "serviceaccount", "robot"]).ok();
    lab.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: robot-token, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
",
    );
    let secret = eventually(Duration::from_secs(30), "the Secret is filled", || {
        let secret = lab.object(&["secret", "robot-token"]);
        if secret["data"]["token"].is_string() { Ok(secret) } else { Err(secret.to_string()) }
    });
    let field = |name: &str| {
        let bytes = base64::prelude::BASE64_STANDARD.decode(secret["data"][name].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert!(field("ca.crt").contains("BEGIN CERTIFICATE") && field("namespace") == "default");
    let token = field("token");
    assert!(claims(&token).get("exp").is_none() && claims(&token)["iss"] == "kubernetes/serviceaccount");
    let can = |token: &str| lab.kubectl(&["auth", "whoami", "--token", token, "--kubeconfig", &bare(&lab)]);
    assert!(can(&token).ok().contains("system:serviceaccount:default:robot"));
    let used = eventually(Duration::from_secs(30), "its use is noted", || {
        let label = lab.object(&["secret", "robot-token"])["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].clone();
        label.as_str().map(str::to_owned).ok_or_else(|| "no label".into())
    });
    assert_eq!(used.len(), "2026-01-01".len());
    let short = lab.kubectl(&["create", "token", "robot", "--duration=10m", "--audience=vault"]).ok();
    assert_eq!(claims(short.trim())["aud"], json!(["vault"]));
    assert!(can(short.trim()).stderr.contains("Unauthorized"), "it is for somebody else");
    let refused = lab.kubectl(&["create", "token", "robot", "--duration=1m"]).fails_with(1);
    assert!(refused.contains("may not specify a duration less than 10 minutes"), "{refused}");
    lab.kubectl(&["delete", "serviceaccount", "robot"]).ok();
    eventually(Duration::from_secs(15), "account, Secret and token are gone", || {
        let secret = lab.kubectl(&["get", "secret", "robot-token"]);
        match secret.stderr.contains("NotFound") && can(&token).stderr.contains("Unauthorized") {
            true => Ok(()),
            false => Err(secret.stdout),
        }
    });
}

#[test]
fn a_new_clusters_roles_leases_and_gathered_rules_are_upstreams() {
    let lab = Lab::up();
    let list =
        |user: &[&str]| lab.kubectl(&[&["auth", "can-i", "--list", "-n", "default"], user].concat()).ok();
    let viewer = "view-only";
    lab.kubectl(&["create", "rolebinding", viewer, "--clusterrole=view", "--user=vera"]).ok();
    let seen = list(&["--as", "vera"]);
    for line in ["pods/log ", "endpoints ", "deployments.apps/scale", "endpointslices.discovery.k8s.io"] {
        assert!(seen.contains(line), "no {line} in\n{seen}");
    }
    assert!(!seen.contains("secrets") && !seen.contains("pods/exec"), "{seen}");
    let scheduler = list(&["--as", "system:kube-scheduler"]);
    assert!(
        scheduler.contains("pods/binding") && scheduler.contains("leasecandidates.coordination.k8s.io"),
        "{scheduler}"
    );
    lab.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: widgets, labels: {rbac.authorization.k8s.io/aggregate-to-view: \"true\"}}
rules: [{apiGroups: [example.com], resources: [widgets], verbs: [get]}]
",
    );
    eventually(Duration::from_secs(30), "view has gathered the new rule", || {
        let seen = list(&["--as", "vera"]);
        if seen.contains("widgets.example.com") { Ok(()) } else { Err(seen) }
    });
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let lease = lab.object(&["lease", "-n", "kube-system", name]);
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap();
        assert!(holder.starts_with("control_") && lease["spec"]["leaseDurationSeconds"] == 15, "{lease}");
    }
    let map = lab.object(&["configmap", "-n", "kube-system", "extension-apiserver-authentication"]);
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert!(map["data"]["client-ca-file"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn pod_security_refuses_warns_and_tells_what_is_there_already() {
    let lab = Lab::up();
    lab.kubectl(&["run", "plain", "--image=minilab/toolbox", "--restart=Never", "--", "sleep", "infinity"])
        .ok();
    let told = lab.kubectl(&[
        "label",
        "namespace",
        "default",
        "pod-security.kubernetes.io/enforce=restricted",
        "pod-security.kubernetes.io/warn=restricted",
    ]);
    assert!(told.stderr.contains("Warning: existing pods in namespace \"default\" violate the new PodSecurity enforce level \"restricted:latest\""), "{}", told.stderr);
    assert!(told.stderr.contains("Warning: plain: allowPrivilegeEscalation != false"), "{}", told.stderr);
    let refused = lab.kubectl(&["run", "other", "--image=minilab/toolbox"]).fails_with(1);
    assert!(refused.contains("pods \"other\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"other\" must set securityContext.allowPrivilegeEscalation=false)"), "{refused}");
    let made = lab.kubectl(&["create", "deployment", "web", "--image=minilab/toolbox"]);
    assert!(
        made.code == 0 && made.stderr.contains("Warning: would violate PodSecurity \"restricted:latest\""),
        "{}",
        made.stderr
    );
    let wrong = lab
        .kubectl(&["label", "namespace", "default", "pod-security.kubernetes.io/audit=strict"])
        .fails_with(1);
    assert!(wrong.contains("must be one of privileged, baseline, restricted"), "{wrong}");
}

#[test]
fn a_stolen_nodes_key_opens_no_other_node() {
    let lab = Lab::up();
    for number in [1, 2] {
        lab.apply(&format!(
            "
apiVersion: v1
kind: Secret
metadata: {{name: of-{number}}}
stringData: {{word: sesame}}
---
apiVersion: v1
kind: Pod
metadata: {{name: on-{number}}}
spec:
  nodeName: node-{number}
  containers:
  - {{name: c, image: minilab/toolbox, command: [sleep, infinity], envFrom: [{{secretRef: {{name: of-{number}}}}}]}}
"
        ));
        lab.wait_ready(&format!("on-{number}"));
    }
    let kubectl = crate::kit::clients::any().path.display().to_string();
    let as_node = |words: &str| {
        let line = format!("exec /root/kubectl --kubeconfig=/etc/kubernetes/kubelet.conf {words}");
        lab.minilab(&["exec", "node-1", "--", "sh", "-c", &line])
    };
    let bytes = std::fs::read(&kubectl).unwrap();
    let target = lab.home.path().join(format!("state/minilab/{}/hosts/node-1/root/kubectl", lab.name));
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::write(&target, bytes).unwrap();
    std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(as_node("get secret of-1 -o name").ok().contains("secret/of-1"));
    for (words, text) in [
        ("get secret of-2", "no relationship found between node 'node-1' and this object"),
        ("get node node-2", "node 'node-1' cannot read 'node-2', only its own Node object"),
        ("get pods", "can only list/watch pods with spec.nodeName field selector"),
        ("label node node-2 a=b", "node 'node-1' cannot read 'node-2'"),
        ("taint node node-1 a=b:NoSchedule", "is not allowed to modify taints"),
        ("delete pod on-2 --grace-period=0", "can only delete pods with spec.nodeName set to itself"),
    ] {
        let refused = as_node(words);
        assert!(
            refused.code != 0 && refused.stderr.contains(text),
            "{words}: {}{}",
            refused.stdout,
            refused.stderr
        );
    }
    let pod = lab.object(&["pod", "on-2"]);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let token = as_node(&format!(
        "create token default --bound-object-kind=Pod --bound-object-name=on-2 --bound-object-uid={uid}"
    ));
    assert!(
        token.stderr.contains("node requested token bound to a pod scheduled on a different node"),
        "{}",
        token.stderr
    );
}
