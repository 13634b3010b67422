//! The tables of who may do what, with upstream's texts.

use serde_json::json;

use super::super::authn::tests::put;
use super::*;
use crate::control::apiserver::request::ResourceRequest;
use crate::control::store::Store;

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(|group| (*group).into()).collect(),
        ..UserInfo::default()
    }
}

fn resource(verb: &str, group: &str, path: &str, namespace: &str) -> RequestInfo {
    // `pods/log:web` is the log of the pod web.
    let (what, name) = path.split_once(':').unwrap_or((path, ""));
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let resource = ResourceRequest {
        group: group.into(),
        namespace: namespace.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        ..ResourceRequest::default()
    };
    RequestInfo { verb: verb.into(), resource: Some(resource), ..RequestInfo::default() }
}

fn path(verb: &str, path: &str) -> RequestInfo {
    RequestInfo { verb: verb.into(), path: path.into(), resource: None }
}

async fn authorizer(modes: &[&str]) -> (tempfile::TempDir, Store, Authorizer) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let flags = AuthzFlags {
        authorization_mode: modes.iter().map(|mode| (*mode).into()).collect(),
        ..AuthzFlags::strict()
    };
    (dir, store.clone(), flags.build(store).unwrap())
}

async fn bind(
    store: &Store,
    kind: &str,
    name: &str,
    namespace: &str,
    role: (&str, &str),
    subject: serde_json::Value,
) {
    let object = json!({
        "metadata": {"name": name, "namespace": namespace},
        "subjects": [subject], "roleRef": {"kind": role.0, "name": role.1},
    });
    put(store, "rbac.authorization.k8s.io", kind, object).await;
}

#[tokio::test]
async fn a_binding_counts_at_once_and_only_in_its_namespace() {
    let (_dir, store, authorizer) = authorizer(&["RBAC"]).await;
    let jane = user("jane", &["devs", "system:authenticated"]);
    let list = resource("list", "", "pods", "default");
    assert_eq!(authorizer.authorize(&jane, &list).await, Decision::NoOpinion { reason: String::new() });
    let role = json!({
        "metadata": {"name": "reader", "namespace": "default"},
        "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"]},
        ],
    });
    put(&store, "rbac.authorization.k8s.io", "roles", role).await;
    let devs = json!({"kind": "Group", "name": "devs"});
    bind(&store, "rolebindings", "devs-read", "default", ("Role", "reader"), devs).await;
    match authorizer.authorize(&jane, &list).await {
        Decision::Allow { reason } => assert_eq!(
            &*reason,
            "RBAC: allowed by RoleBinding \"devs-read/default\" of Role \"reader\" to Group \"devs\""
        ),
        other => panic!("{other:?}"),
    }
    for (info, allowed) in [
        (resource("get", "", "pods/log:web", "default"), true),
        (resource("get", "", "pods/exec:web", "default"), false),
        (resource("list", "", "pods", "kube-system"), false),
        (resource("list", "", "pods", ""), false),
        (resource("delete", "", "pods:web", "default"), false),
        (resource("get", "", "secrets:db", "default"), true),
        (resource("get", "", "secrets:other", "default"), false),
        (resource("list", "", "secrets", "default"), false),
        (resource("get", "apps", "pods:web", "default"), false),
    ] {
        assert_eq!(authorizer.authorize(&jane, &info).await.is_allowed(), allowed, "{info:?}");
    }
}

#[tokio::test]
async fn a_missing_role_is_named_and_accounts_and_paths_match() {
    let (_dir, store, authorizer) = authorizer(&["RBAC"]).await;
    let account = json!({"kind": "ServiceAccount", "name": "default", "namespace": "default"});
    bind(&store, "clusterrolebindings", "b", "", ("ClusterRole", "info"), account).await;
    let pod = user("system:serviceaccount:default:default", &["system:serviceaccounts"]);
    let version = path("get", "/version");
    assert_eq!(
        authorizer.authorize(&pod, &version).await,
        Decision::NoOpinion {
            reason: "RBAC: clusterrole.rbac.authorization.k8s.io \"info\" not found".into()
        }
    );
    let role = json!({
        "metadata": {"name": "info"},
        "rules": [{"verbs": ["get"], "nonResourceURLs": ["/version", "/healthz/*"]}],
    });
    put(&store, "rbac.authorization.k8s.io", "clusterroles", role).await;
    assert!(authorizer.authorize(&pod, &version).await.is_allowed());
    assert!(authorizer.authorize(&pod, &path("get", "/healthz/ping")).await.is_allowed());
    assert!(!authorizer.authorize(&pod, &path("get", "/healthz")).await.is_allowed());
    assert!(!authorizer.authorize(&pod, &path("post", "/version")).await.is_allowed());
}

#[tokio::test]
async fn a_node_reads_what_its_pods_name_and_nothing_else() {
    let (_dir, store, authorizer) = authorizer(&["Node", "RBAC"]).await;
    let pod = |name: &str, node: &str, secret: &str| {
        json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {
                "nodeName": node, "serviceAccountName": "default",
                "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "conf"}}}]}],
                "volumes": [
                    {"secret": {"secretName": secret}},
                    {"persistentVolumeClaim": {"claimName": format!("claim-{name}")}},
                    {"name": "scratch", "ephemeral": {}},
                ],
            },
        })
    };
    put(&store, "", "pods", pod("a", "node-1", "mine")).await;
    put(&store, "", "pods", pod("b", "node-2", "db")).await;
    for (volume, claim) in [("pv-a", "claim-a"), ("pv-b", "claim-b")] {
        let volume = json!({
            "metadata": {"name": volume},
            "spec": {
                "claimRef": {"namespace": "default", "name": claim},
                "csi": {"nodePublishSecretRef": {"namespace": "storage", "name": format!("key-of-{volume}")}},
            },
        });
        put(&store, "", "persistentvolumes", volume).await;
    }
    let node = user("system:node:node-1", &["system:nodes", "system:authenticated"]);
    for (info, allowed) in [
        (resource("get", "", "persistentvolumeclaims:claim-a", "default"), true),
        (resource("get", "", "persistentvolumeclaims:claim-b", "default"), false),
        (resource("get", "", "persistentvolumeclaims:a-scratch", "default"), true),
        (resource("patch", "", "persistentvolumeclaims/status:claim-a", "default"), true),
        (resource("get", "", "persistentvolumes:pv-a", ""), true),
        (resource("get", "", "persistentvolumes:pv-b", ""), false),
        (resource("get", "", "secrets:key-of-pv-a", "storage"), true),
        (resource("get", "", "secrets:key-of-pv-b", "storage"), false),
        (resource("get", "", "serviceaccounts:default", "default"), true),
        (resource("get", "", "serviceaccounts:default", "kube-system"), false),
        (resource("update", "storage.k8s.io", "csinodes:node-1", ""), true),
        (resource("update", "storage.k8s.io", "csinodes:node-2", ""), false),
        (resource("get", "", "secrets:mine", "default"), true),
        (resource("watch", "", "configmaps:conf", "default"), true),
        (resource("create", "", "serviceaccounts/token:default", "default"), true),
        (resource("get", "", "pods:a", "default"), true),
        (resource("get", "", "pods:b", "default"), false),
        (resource("get", "", "nodes:node-1", ""), true),
        (resource("list", "", "services", ""), true),
        (resource("update", "coordination.k8s.io", "leases:node-1", "kube-node-lease"), true),
        (resource("update", "coordination.k8s.io", "leases:node-2", "kube-node-lease"), false),
        (resource("create", "certificates.k8s.io", "certificatesigningrequests", ""), true),
        (resource("create", "authentication.k8s.io", "tokenreviews", ""), true),
        (resource("list", "", "secrets", ""), false),
    ] {
        assert_eq!(authorizer.authorize(&node, &info).await.is_allowed(), allowed, "{info:?}");
    }
    let refused = async |info: RequestInfo| match authorizer.authorize(&node, &info).await {
        Decision::NoOpinion { reason } => forbidden(&node, &info, &reason).message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(resource("get", "", "secrets:db", "default")).await,
        "secrets \"db\" is forbidden: User \"system:node:node-1\" cannot get resource \"secrets\" in API group \"\" \
         in the namespace \"default\": no relationship found between node 'node-1' and this object"
    );
    assert!(
        refused(resource("get", "", "nodes:node-2", ""))
            .await
            .ends_with("node 'node-1' cannot read 'node-2', only its own Node object")
    );
    let mut own = resource("list", "", "pods", "");
    assert!(
        refused(own.clone()).await.ends_with("can only list/watch pods with spec.nodeName field selector")
    );
    own.resource.as_mut().unwrap().field_selector = "spec.nodeName=node-1".into();
    assert!(authorizer.authorize(&node, &own).await.is_allowed());
}

#[test]
fn refusals_read_as_upstreams() {
    let nobody = user("system:anonymous", &[]);
    let said = |info: RequestInfo| forbidden(&nobody, &info, "").message;
    assert_eq!(said(path("get", "/")), "forbidden: User \"system:anonymous\" cannot get path \"/\"");
    assert_eq!(
        said(resource("list", "", "pods", "default")),
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
    assert_eq!(
        said(resource("get", "apps", "deployments/scale:web", "")),
        "deployments.apps \"web\" is forbidden: User \"system:anonymous\" cannot get resource \
         \"deployments/scale\" in API group \"apps\" at the cluster scope"
    );
}

#[tokio::test]
async fn masters_pass_everywhere_and_nobody_gives_what_they_lack() {
    let (_dir, store, authorizer) = authorizer(&["RBAC"]).await;
    let root = user("kubernetes-super-admin", &["system:masters"]);
    assert!(authorizer.authorize(&root, &path("get", "/")).await.is_allowed());
    let role = json!({
        "metadata": {"name": "edit-pods"},
        "rules": [{"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods"]}],
    });
    put(&store, "rbac.authorization.k8s.io", "clusterroles", role).await;
    let jane = json!({"kind": "User", "name": "jane"});
    bind(&store, "clusterrolebindings", "b", "", ("ClusterRole", "edit-pods"), jane).await;
    let jane = user("jane", &[]);
    let lacks = |wanted: Rule| authorizer.lacks(&jane, "", &[wanted]).0;
    assert!(lacks(Rule::resources(&["get"], &[""], &["pods"])).is_empty());
    let more = Rule::resources(&["get", "delete", "patch"], &[""], &["pods"]);
    let printed: Vec<String> = lacks(more).iter().map(Rule::printed).collect();
    assert_eq!(printed, ["{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"patch\"]}"]);
    assert!(!lacks(Rule::resources(&["get"], &["*"], &["pods"])).is_empty());
    assert!(authorizer.lacks(&root, "", &Rule::everything()).0.is_empty());
}
