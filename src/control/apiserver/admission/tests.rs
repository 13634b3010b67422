//! Plugins on real objects in a real store.

use serde_json::json;

use super::*;
use crate::control::apiserver::authn::tests::put;
use crate::control::apiserver::authz::AuthzFlags;

async fn admission(plugins: &[&str]) -> (tempfile::TempDir, Store, Admission) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for (plural, object) in [
        ("namespaces", json!({"metadata": {"name": "default"}, "status": {"phase": "Active"}})),
        ("namespaces", json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}})),
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default"}})),
    ] {
        put(&store, "", plural, object).await;
    }
    let modes = AuthzFlags { authorization_mode: vec!["RBAC".into()], ..AuthzFlags::strict() };
    let flags = AdmissionFlags {
        enable_admission_plugins: plugins.iter().map(|name| (*name).into()).collect(),
        ..AdmissionFlags::default()
    };
    let authorizer = Arc::new(modes.build(store.clone()).unwrap());
    (dir, store.clone(), flags.build(store, authorizer, crate::net::Roads::default()).unwrap())
}

fn write(user: &str, group: &str, resource: &str, object: Value) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let groups = if user.starts_with("system:node:") { vec!["system:nodes".to_owned()] } else { Vec::new() };
    Attributes {
        user: UserInfo { name: user.into(), groups, ..UserInfo::default() },
        operation: Operation::Create,
        group: group.into(),
        version: "v1".into(),
        kind: String::new(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: lookup::text(&object, "/metadata/namespace").into(),
        name: lookup::text(&object, "/metadata/name").into(),
        object: Some(object),
        old: None,
        dry_run: false,
        annotations: Vec::new(),
        warnings: Vec::new(),
    }
}

#[tokio::test]
async fn a_pod_gets_its_account_token_tolerations_and_priority() {
    let (_dir, _store, admission) = admission(&[]).await;
    let pod =
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "c"}]}});
    let mut attributes = write("jane", "", "pods", pod);
    admission.admit(&mut attributes).await.unwrap();
    let spec = &attributes.object.as_ref().unwrap()["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5);
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    assert_eq!(spec["tolerations"][1]["key"], "node.kubernetes.io/unreachable");
}

#[tokio::test]
async fn automount_false_is_respected_and_a_missing_account_refused() {
    let (_dir, _store, admission) = admission(&[]).await;
    let spec = json!({"automountServiceAccountToken": false, "containers": [{"name": "c"}]});
    let mut attributes =
        write("jane", "", "pods", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
    admission.admit(&mut attributes).await.unwrap();
    assert!(attributes.object.unwrap()["spec"]["volumes"].is_null());
    let spec = json!({"serviceAccountName": "ghost", "containers": []});
    let mut attributes =
        write("jane", "", "pods", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
    assert_eq!(
        admission.admit(&mut attributes).await.unwrap_err().message,
        "pods \"web\" is forbidden: error looking up service account default/ghost: serviceaccount \"ghost\" not found"
    );
}

#[tokio::test]
async fn a_namespace_must_be_there_to_stay() {
    let (_dir, _store, admission) = admission(&[]).await;
    let map = |namespace: &str| {
        write("jane", "", "configmaps", json!({"metadata": {"name": "a", "namespace": namespace}}))
    };
    assert_eq!(
        admission.admit(&mut map("nowhere")).await.unwrap_err().message,
        "namespaces \"nowhere\" not found"
    );
    let refusal = admission.admit(&mut map("going")).await.unwrap_err();
    assert_eq!(
        refusal.message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    assert_eq!(refusal.details.unwrap()["causes"][0]["reason"], "NamespaceTerminating");
    let mut delete = write("jane", "", "namespaces", json!({"metadata": {"name": "default"}}));
    delete.operation = Operation::Delete;
    assert!(admission.admit(&mut delete).await.is_err());
}

#[tokio::test]
async fn a_node_may_not_touch_another_node_its_taints_or_foreign_pods() {
    let (_dir, store, admission) = admission(&["NodeRestriction"]).await;
    let pod = json!({"metadata": {"name": "b", "namespace": "default", "uid": "u"}, "spec": {"nodeName": "node-2"}});
    put(&store, "", "pods", pod).await;
    let said = async |mut attributes: Attributes| admission.admit(&mut attributes).await.unwrap_err().message;
    let node = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
    assert_eq!(
        said(write("system:node:node-1", "", "nodes", node("node-2"))).await,
        "nodes \"node-2\" is forbidden: node \"node-1\" is not allowed to modify node \"node-2\""
    );
    let mut taint = write("system:node:node-1", "", "nodes", node("node-1"));
    taint.operation = Operation::Update;
    taint.old = taint.object.clone();
    taint.object.as_mut().unwrap()["spec"]["taints"] = json!([{"key": "a", "effect": "NoSchedule"}]);
    assert!(said(taint).await.ends_with("node \"node-1\" is not allowed to modify taints"));
    let request = json!({
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "u"}},
    });
    let token = write("system:node:node-1", "", "serviceaccounts/token", request.clone());
    assert!(said(token).await.ends_with("node requested token bound to a pod scheduled on a different node"));
    admission.admit(&mut write("system:node:node-2", "", "serviceaccounts/token", request)).await.unwrap();
    let labels = json!({"metadata": {"name": "node-1", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": "x"}}});
    assert_eq!(
        said(write("system:node:node-1", "", "nodes", labels)).await,
        "nodes \"node-1\" is forbidden: node \"node-1\" is not allowed to set the following labels: \
         node-role.kubernetes.io/control-plane"
    );
}

#[tokio::test]
async fn a_mirror_pod_refers_to_nothing_that_is_somebody_elses() {
    let (_dir, store, admission) = admission(&["NodeRestriction"]).await;
    put(&store, "", "nodes", json!({"metadata": {"name": "node-1", "uid": "u"}})).await;
    let mirror = |container: Value| {
        json!({
            "metadata": {
                "name": "m", "namespace": "default", "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "u", "controller": true}],
            },
            "spec": {"nodeName": "node-1", "containers": [container]},
        })
    };
    let name = "system:node:node-1";
    admission.admit(&mut write(name, "", "pods", mirror(json!({"name": "c"})))).await.unwrap();
    for (container, what) in [
        (json!({"name": "c", "envFrom": [{"secretRef": {"name": "db"}}]}), "secrets"),
        (
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "db"}}}]}),
            "secrets",
        ),
        (json!({"name": "c", "envFrom": [{"configMapRef": {"name": "db"}}]}), "configmaps"),
    ] {
        let refused =
            admission.admit(&mut write(name, "", "pods", mirror(container))).await.unwrap_err().message;
        assert!(
            refused.ends_with(&format!("node \"node-1\" can not create pods that reference {what}")),
            "{refused}"
        );
    }
    for (field, value, what) in [
        ("controller", json!(false), "can only create pods with a controller owner reference set to itself"),
        ("blockOwnerDeletion", json!(true), "must not set blockOwnerDeletion on an owner reference"),
        ("uid", json!("v"), "UID mismatch: expected v got u"),
    ] {
        let mut pod = mirror(json!({"name": "c"}));
        pod["metadata"]["ownerReferences"][0][field] = value;
        let refused = admission.admit(&mut write(name, "", "pods", pod)).await.unwrap_err().message;
        assert!(refused.ends_with(what), "{refused}");
    }
}

#[tokio::test]
async fn a_label_that_would_gather_a_role_into_another_needs_its_rules() {
    let (_dir, _store, admission) = admission(&[]).await;
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "cluster-admin", "resourceVersion": "1"}, "rules": all});
    let change = |part: &str, value: Value| {
        let mut new = role.clone();
        new["metadata"][part] = value;
        let attributes = write("mallory", "rbac.authorization.k8s.io", "clusterroles", new);
        Attributes { operation: Operation::Update, old: Some(role.clone()), ..attributes }
    };
    let gathers = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    let refused = admission.admit(&mut change("labels", gathers)).await.unwrap_err();
    assert!(
        refused.message.contains("is attempting to grant RBAC permissions not currently held"),
        "{refused}"
    );
    admission.admit(&mut change("finalizers", json!(["a"]))).await.unwrap();
    admission.admit(&mut change("resourceVersion", json!("2"))).await.unwrap();
}

#[tokio::test]
async fn an_approvers_verdict_is_judged_by_the_signer_that_is_stored() {
    let (_dir, _store, admission) = admission(&[]).await;
    let csr = |signer: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": signer}});
    let sent = write(
        "mallory",
        "certificates.k8s.io",
        "certificatesigningrequests/approval",
        csr("example.com/mine"),
    );
    let old = Some(csr("kubernetes.io/kube-apiserver-client"));
    let mut swapped = Attributes { operation: Operation::Update, old, ..sent };
    let refused = admission.admit(&mut swapped).await.unwrap_err();
    assert!(refused.message.ends_with("signerName \"kubernetes.io/kube-apiserver-client\""), "{refused}");
}

#[tokio::test]
async fn a_node_asks_only_for_its_own_certificate_and_nobody_for_masters() {
    use base64::Engine;
    let (_dir, _store, admission) = admission(&["NodeRestriction"]).await;
    let csr = |cn: &str, org: &str, signer: &str| {
        let (pem, _) = crate::pki::request(cn, &[org], &[], &[]).unwrap();
        let request = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": "csr-x"}, "spec": {"request": request, "signerName": signer}})
    };
    let mut other = write(
        "system:node:node-1",
        "certificates.k8s.io",
        "certificatesigningrequests",
        csr("system:node:node-2", "system:nodes", "kubernetes.io/kubelet-serving"),
    );
    let text = admission.admit(&mut other).await.unwrap_err().message;
    assert!(text.ends_with("can only create a node CSR with CN=system:node:node-1"), "{text}");
    let mut masters = write(
        "jane",
        "certificates.k8s.io",
        "certificatesigningrequests",
        csr("jane", "system:masters", "kubernetes.io/kube-apiserver-client"),
    );
    assert!(admission.admit(&mut masters).await.is_err());
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let (_dir, _store, admission) = admission(&[]).await;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "r", "namespace": "default"}, "rules": rules});
    let mut jane = write("jane", "rbac.authorization.k8s.io", "roles", role);
    assert_eq!(
        admission.admit(&mut jane).await.unwrap_err().message,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[]) is attempting to grant RBAC \
         permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    jane.user.groups.push("system:masters".into());
    admission.admit(&mut jane).await.unwrap();
}

#[tokio::test]
async fn external_addresses_are_refused_only_when_asked_for() {
    let service =
        json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"externalIPs": ["198.51.100.2"]}});
    let (_dir, _store, open) = admission(&[]).await;
    open.admit(&mut write("jane", "", "services", service.clone())).await.unwrap();
    let (_dir, _store, closed) = admission(&["DenyServiceExternalIPs"]).await;
    assert!(closed.admit(&mut write("jane", "", "services", service)).await.is_err());
}
