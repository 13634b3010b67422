//! Modes before a real RBAC.

use serde_json::json;

use super::*;
use crate::control::apiserver::authn::tests::put;
use crate::control::apiserver::authz::AuthzFlags;
use crate::control::store::Store;

const GROUP: &str = "rbac.authorization.k8s.io";

/// An authorizer that lets `jane` do what these rules say.
async fn rbac(rules: serde_json::Value) -> (tempfile::TempDir, Authorizer) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, GROUP, "clusterroles", json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let subjects = json!([
        {"kind": "User", "name": "jane", "apiGroup": GROUP},
        {"kind": "ServiceAccount", "name": "agent", "namespace": "kube-system"},
    ]);
    let binding = json!({"metadata": {"name": "b"}, "subjects": subjects,
        "roleRef": {"kind": "ClusterRole", "name": "r", "apiGroup": GROUP}});
    put(&store, GROUP, "clusterrolebindings", binding).await;
    let flags = AuthzFlags { authorization_mode: vec!["RBAC".into()], ..AuthzFlags::strict() };
    let authorizer = flags.build(store).unwrap();
    (dir, authorizer)
}

fn rule(group: &str, resource: &str, verb: &str) -> serde_json::Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
}

fn named(name: &str) -> UserInfo {
    UserInfo { name: name.into(), ..UserInfo::default() }
}

fn pods(verb: &str) -> RequestInfo {
    RequestInfo {
        verb: verb.into(),
        path: "/api/v1/namespaces/default/pods".into(),
        resource: Some(ResourceRequest { namespace: "default".into(), ..one("", "pods", "") }),
    }
}

#[tokio::test]
async fn a_constrained_mode_opens_one_verb_and_the_old_one_every_request() {
    let (_dir, narrow) = rbac(json!([
        rule("", "pods", "impersonate-on:user-info:list"),
        rule(AUTHENTICATION, "users", "impersonate:user-info"),
    ]))
    .await;
    let acting = act(&narrow, &named("jane"), &pods("list"), named("joe")).await.unwrap();
    assert_eq!(acting.constraint, "impersonate:user-info");
    assert_eq!(acting.user.groups, [AUTHENTICATED]);
    let refused = act(&narrow, &named("jane"), &pods("create"), named("joe")).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"jane\" cannot impersonate-on:user-info:create resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let (_dir, old) = rbac(json!([rule("", "users", "impersonate")])).await;
    let acting = act(&old, &named("jane"), &pods("create"), named("joe")).await.unwrap();
    assert_eq!(acting.constraint, "");
}

#[tokio::test]
async fn masters_are_nobodys_to_act_as_in_a_constrained_mode() {
    let (_dir, all) = rbac(json!([
        rule("*", "*", "impersonate:user-info"),
        rule("*", "*", "impersonate-on:user-info:list")
    ]))
    .await;
    let wanted = UserInfo { groups: vec![MASTERS.into()], ..named("joe") };
    let refused = act(&all, &named("jane"), &pods("list"), wanted).await.unwrap_err();
    assert!(refused.message.ends_with("impersonating the system:masters group is not allowed"), "{refused}");
}

#[tokio::test]
async fn a_pod_acts_as_its_own_node_and_as_no_other() {
    let (_dir, authorizer) = rbac(json!([
        rule("", "pods", "impersonate-on:associated-node:list"),
        rule(AUTHENTICATION, "nodes", "impersonate:associated-node"),
    ]))
    .await;
    let extra = [(NODE_KEY.to_owned(), vec!["node-1".to_owned()])].into();
    let agent = UserInfo { extra, ..named("system:serviceaccount:kube-system:agent") };
    let agent = UserInfo { groups: vec!["system:serviceaccounts".into()], ..agent };
    let acting = act(&authorizer, &agent, &pods("list"), named("system:node:node-1")).await.unwrap();
    assert_eq!(acting.user.groups, ["system:nodes", AUTHENTICATED]);
    assert_eq!(acting.constraint, "impersonate:associated-node");
    assert_eq!(
        act(&authorizer, &agent, &pods("list"), named("system:node:node-2")).await.unwrap_err().code,
        403
    );
}

#[tokio::test]
async fn every_part_of_an_identity_is_asked_for() {
    let (_dir, authorizer) =
        rbac(json!([rule("", "users", "impersonate"), rule("", "groups", "impersonate")])).await;
    let try_as =
        async |wanted| act(&authorizer, &named("jane"), &pods("list"), wanted).await.map(|_| ()).is_ok();
    assert!(try_as(UserInfo { groups: vec!["g".into()], ..named("joe") }).await);
    assert!(!try_as(UserInfo { uid: "1".into(), ..named("joe") }).await);
    assert!(
        !try_as(UserInfo { extra: [("a".to_owned(), vec!["x".to_owned()])].into(), ..named("joe") }).await
    );
    assert!(!try_as(named("system:serviceaccount:a:b")).await);
}
