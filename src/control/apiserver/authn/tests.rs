//! Real tokens and certificates against a real store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::control::apiserver::registry;
use crate::control::store::{Change, Draft};
use crate::pki::{Authority, LeafSpec, SigningKey, VerifyingKey};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Puts an object into the store as the handlers would.
pub(in crate::control::apiserver) async fn put(store: &Store, group: &str, plural: &str, mut object: Value) {
    let row = registry::by_name(group, plural).unwrap();
    let meta = object["metadata"].clone();
    let key = row.key(meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap());
    object["metadata"]["resourceVersion"] = json!("");
    let bytes = serde_json::to_vec(&object).unwrap();
    let mark = b"\"resourceVersion\":\"";
    let revision_at = bytes.windows(mark.len()).position(|part| part == mark).unwrap() + mark.len();
    store.write(&row.bucket, &key, None, Change::Put(Draft { bytes, revision_at })).await.unwrap();
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    ca: Authority,
    authenticator: Authenticator,
}

fn accounts(signer: SigningKey) -> ServiceAccounts {
    ServiceAccounts {
        issuers: vec![ISSUER.into()],
        keys: vec![VerifyingKey::from_pem(&signer.public_pem()).unwrap()],
        signer,
        audiences: vec![ISSUER.into()],
        extend: true,
        lookup: true,
        longest: 0,
    }
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ca = Authority::new("kubernetes").unwrap();
    for (plural, object) in [
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default", "uid": "sa-1"}})),
        ("pods", json!({"metadata": {"name": "web", "namespace": "default", "uid": "pod-1"}})),
        (
            "secrets",
            json!({
                "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
                "type": "bootstrap.kubernetes.io/token",
                "data": {
                    "token-id": STANDARD.encode("abcdef"),
                    "token-secret": STANDARD.encode("0123456789abcdef"),
                    "usage-bootstrap-authentication": STANDARD.encode("true"),
                    "auth-extra-groups": STANDARD.encode("system:bootstrappers:kubeadm:default-node-token"),
                },
            }),
        ),
    ] {
        put(&store, "", plural, object).await;
    }
    let authenticator = Authenticator {
        store: store.clone(),
        roots: Some(Arc::new(ClientRoots::from_pem(ca.cert_pem().as_bytes()).unwrap())),
        accounts: Some(Arc::new(accounts(SigningKey::generate().unwrap()))),
        bootstrap_tokens: true,
        anonymous: Anonymous::Allowed,
        tokens: Mutex::default(),
    };
    World { _dir: dir, store, ca, authenticator }
}

impl World {
    fn ask(&self, authorization: Option<&str>, chain: &[CertificateDer<'static>]) -> Result<UserInfo> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(http::header::AUTHORIZATION, value.parse().unwrap());
        }
        self.authenticator.authenticate(Credentials { headers: &headers, certificates: chain, path: "/api" })
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "aud": [ISSUER], "exp": now + 600, "iat": now, "nbf": now, "iss": ISSUER, "jti": "j-1",
            "sub": "system:serviceaccount:default:default",
            "kubernetes.io": {
                "namespace": "default",
                "serviceaccount": {"name": "default", "uid": "sa-1"},
                "pod": {"name": "web", "uid": "pod-1"},
                "node": {"name": "node-1", "uid": "n-1"},
            },
        });
        change(&mut claims);
        format!("Bearer {}", self.authenticator.accounts().unwrap().sign(&claims).unwrap())
    }
}

#[tokio::test]
async fn nothing_is_anonymous_and_anything_wrong_is_unauthorized() {
    let world = world().await;
    assert_eq!(world.ask(None, &[]).unwrap(), anonymous());
    assert_eq!(world.ask(Some("Bearer junk"), &[]).unwrap_err().code, 401);
    assert_eq!(world.ask(Some("Basic dTpw"), &[]).unwrap(), anonymous());
    let stranger =
        Authority::new("other").unwrap().issue(&LeafSpec::client("mallory", &["system:masters"])).unwrap();
    let chain = crate::pki::certificates(stranger.cert_pem.as_bytes()).unwrap();
    assert_eq!(world.ask(None, &chain).unwrap_err().code, 401);
}

#[tokio::test]
async fn a_certificate_names_user_and_group() {
    let world = world().await;
    let issued = world.ca.issue(&LeafSpec::client("system:node:node-1", &["system:nodes"])).unwrap();
    let chain = crate::pki::certificates(issued.cert_pem.as_bytes()).unwrap();
    let user = world.ask(None, &chain).unwrap();
    assert_eq!(user.name, "system:node:node-1");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
}

#[tokio::test]
async fn a_bootstrap_token_is_a_bootstrapper_and_a_wrong_secret_is_nobody() {
    let world = world().await;
    let user = world.ask(Some("Bearer abcdef.0123456789abcdef"), &[]).unwrap();
    assert_eq!(user.name, "system:bootstrap:abcdef");
    let groups =
        ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"];
    assert_eq!(user.groups, groups);
    assert_eq!(world.ask(Some("Bearer abcdef.0123456789abcdee"), &[]).unwrap_err().code, 401);
    assert_eq!(world.ask(Some("Bearer zzzzzz.0123456789abcdef"), &[]).unwrap_err().code, 401);
}

#[tokio::test]
async fn a_bound_token_is_its_account_and_dies_with_its_pod() {
    let world = world().await;
    let user = world.ask(Some(&world.token(|_| ())), &[]).unwrap();
    assert_eq!(user.name, "system:serviceaccount:default:default");
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    );
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=j-1"]);

    let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "pod-2"}});
    put(&world.store, "", "pods", pod).await;
    let again = world.token(|claims| claims["jti"] = json!("j-2"));
    assert_eq!(world.ask(Some(&again), &[]).unwrap_err().code, 401);
}

#[tokio::test]
async fn a_token_must_be_in_date_for_us_and_signed_by_us() {
    let world = world().await;
    let now = jiff::Timestamp::now().as_second();
    let expired = world.token(|claims| claims["exp"] = json!(now - 61));
    assert_eq!(world.ask(Some(&expired), &[]).unwrap_err().code, 401);
    let elsewhere = world.token(|claims| claims["aud"] = json!(["vault"]));
    assert_eq!(world.ask(Some(&elsewhere), &[]).unwrap_err().code, 401);
    let other = accounts(SigningKey::generate().unwrap());
    let forged = other.sign(&json!({"iss": ISSUER, "sub": "x"})).unwrap();
    assert_eq!(world.ask(Some(&format!("Bearer {forged}")), &[]).unwrap_err().code, 401);
    let reviewed = elsewhere.strip_prefix("Bearer ").unwrap();
    let (_, audiences) = world.authenticator.token(reviewed, &["vault".into()]).unwrap().unwrap();
    assert_eq!(audiences, ["vault"]);
}
