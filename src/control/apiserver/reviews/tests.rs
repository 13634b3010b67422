//! Reviews and token requests on a real store.

use super::*;
use crate::control::apiserver::authn::AuthnFlags;
use crate::control::apiserver::authn::tests::put;
use crate::control::apiserver::authz::AuthzFlags;
use crate::control::apiserver::bootstrap;
use crate::control::store::Store;
use crate::pki::{SigningKey, claims_unverified};
use clap::Parser;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    authn: AuthnFlags,
    #[command(flatten)]
    authz: AuthzFlags,
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    authenticator: Authenticator,
    authorizer: Authorizer,
}

async fn world(extra: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("sa.key"), key.to_pem()).unwrap();
    std::fs::write(path("sa.pub"), key.public_pem()).unwrap();
    let words = [
        "kube-apiserver".to_owned(),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", path("sa.pub")),
        format!("--service-account-signing-key-file={}", path("sa.key")),
        "--enable-bootstrap-token-auth=true".into(),
        "--authorization-mode=Node,RBAC".into(),
    ];
    let flags = Flags::parse_from(words.into_iter().chain(extra.iter().map(|word| (*word).to_owned())));
    let store = Store::open(&dir.path().join("store")).unwrap();
    bootstrap::reconcile(&store).await.unwrap();
    for (plural, object) in [
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default", "uid": "sa-1"}})),
        ("nodes", json!({"metadata": {"name": "node-1", "uid": "n-1"}})),
        (
            "pods",
            json!({
                "metadata": {"name": "web", "namespace": "default", "uid": "pod-1"},
                "spec": {"serviceAccountName": "default", "nodeName": "node-1"},
            }),
        ),
    ] {
        put(&store, "", plural, object).await;
    }
    World {
        _dir: dir,
        authenticator: flags.authn.build(store.clone(), false).unwrap(),
        authorizer: flags.authz.build(store.clone()).unwrap(),
        store,
    }
}

impl World {
    fn asked(&self) -> Asked<'_> {
        Asked { authenticator: &self.authenticator, authorizer: &self.authorizer }
    }

    fn issue(&self, spec: Value) -> Result<Value> {
        let request = token::TokenFor {
            store: &self.store,
            accounts: self.authenticator.accounts().unwrap(),
            namespace: "default",
            name: "default",
        };
        let mut object = json!({"spec": spec});
        request.prepare(&mut object)?;
        request.issue(object)
    }

    async fn review(&self, token: &str) -> Value {
        let review = json!({"spec": {"token": token}});
        let answered = answer(self.asked(), "tokenreviews", "", review, &UserInfo::default()).await;
        answered.unwrap()["status"].clone()
    }
}

fn bound(seconds: i64) -> Value {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "pod-1"});
    json!({"expirationSeconds": seconds, "boundObjectRef": pod})
}

#[tokio::test]
async fn a_token_as_a_kubelet_asks_for_it_lives_a_year_and_warns_after_an_hour() {
    let world = world(&[]).await;
    let answer = world.issue(bound(3607)).unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    let claims = claims_unverified(token).unwrap();
    let iat = claims["iat"].as_i64().unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - iat, 365 * 24 * 3600);
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    assert_eq!(
        claims["kubernetes.io"],
        json!({
            "namespace": "default",
            "node": {"name": "node-1", "uid": "n-1"},
            "pod": {"name": "web", "uid": "pod-1"},
            "serviceaccount": {"name": "default", "uid": "sa-1"},
            "warnafter": iat + 3607,
        })
    );
    let end: jiff::Timestamp = answer["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(end.as_second() - iat, 3607);
    let status = world.review(token).await;
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/node-name"], json!(["node-1"]));
    assert!(status["user"]["groups"].as_array().unwrap().contains(&json!("system:authenticated")));
}

#[tokio::test]
async fn without_extension_it_lives_as_long_as_asked() {
    let world = world(&["--service-account-extend-token-expiration=false"]).await;
    let answer = world.issue(bound(3607)).unwrap();
    let claims = claims_unverified(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3607);
    assert!(claims["kubernetes.io"].get("warnafter").is_none());
}

#[tokio::test]
async fn impossible_tokens_are_refused_in_upstreams_words() {
    let world = world(&[]).await;
    assert_eq!(
        world.issue(json!({"expirationSeconds": 60})).unwrap_err().message,
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not \
         specify a duration less than 10 minutes"
    );
    let gone = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "gone"}});
    assert_eq!(world.issue(gone).unwrap_err().message, "pods \"gone\" not found");
    let other = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "old"}});
    assert_eq!(world.issue(other).unwrap_err().code, 409);
    assert!(world.review("junk").await["error"].is_string());
}

#[tokio::test]
async fn access_is_reviewed_with_the_reason() {
    let world = world(&[]).await;
    let ask = async |spec: Value| {
        let review = json!({"spec": spec});
        answer(world.asked(), "subjectaccessreviews", "", review, &UserInfo::default()).await
    };
    let status = ask(json!({
        "user": "system:kube-scheduler",
        "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "binding", "namespace": "default"},
    })).await;
    assert_eq!(
        status.unwrap()["status"],
        json!({
            "allowed": true,
            "reason": "RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \
                       \"system:kube-scheduler\" to User \"system:kube-scheduler\"",
        })
    );
    let denied =
        ask(json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}})).await;
    assert_eq!(denied.unwrap()["status"], json!({"allowed": false}));
    assert_eq!(ask(json!({"user": "jane"})).await.unwrap_err().code, 422);
    assert_eq!(
        ask(json!({"nonResourceAttributes": {"verb": "get", "path": "/"}})).await.unwrap_err().code,
        422
    );
}

#[tokio::test]
async fn i_can_ask_who_i_am_and_what_i_may_do() {
    let world = world(&[]).await;
    let me =
        UserInfo { name: "jane".into(), groups: vec!["system:authenticated".into()], ..UserInfo::default() };
    let who = answer(world.asked(), "selfsubjectreviews", "", json!({}), &me).await.unwrap();
    assert_eq!(who["status"]["userInfo"], json!({"username": "jane", "groups": ["system:authenticated"]}));
    let review = json!({"spec": {"namespace": "default"}});
    let rules = answer(world.asked(), "selfsubjectrulesreviews", "", review, &me).await.unwrap();
    assert_eq!(rules["status"]["incomplete"], false);
    assert!(rules["status"]["nonResourceRules"].as_array().unwrap().len() >= 2);
    let own = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}});
    let own = answer(world.asked(), "selfsubjectaccessreviews", "", own, &me).await.unwrap();
    assert_eq!(own["status"]["allowed"], false);
}
