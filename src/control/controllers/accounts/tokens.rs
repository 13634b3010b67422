//! serviceaccount-token: fills Secrets of type `kubernetes.io/service-account-token` with a token that never
//! ends, and takes them away with their account (`pkg/controller/serviceaccount/tokens_controller.go`).
//!
//! It acts as the controller manager itself, as upstream's does: with no account's token but its own key.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::json;
use tracing::{info, warn};

use crate::client::informer::{key, key_of, split_key};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::World;
use crate::pki::{PkiError, SigningKey};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// What such tokens say of who made them; upstream never changed it.
const ISSUER: &str = "kubernetes/serviceaccount";

/// What a Secret is filled with.
struct Maker {
    key: SigningKey,
    bundle: Option<String>,
}

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.token_secrets.on_change(move |_, new| {
        if let Some(secret) = new {
            fed.add(key_of(&**secret));
        }
    });
    let (fed, secrets) = (queue.clone(), world.token_secrets.clone());
    world.service_accounts.on_change(move |_, account| {
        let Some(account) = account else { return };
        let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
        let of_account =
            |secret: &&Rc<Secret>| annotation(secret, ACCOUNT_NAME) == account.metadata.name.as_deref();
        secrets
            .in_namespace(namespace)
            .iter()
            .filter(of_account)
            .for_each(|secret| fed.add(key_of(&**secret)));
    });
    let (fed, secrets) = (queue.clone(), world.token_secrets.clone());
    world.service_accounts.on_change(move |gone, new| {
        if let (Some(gone), None) = (gone, new) {
            let namespace = gone.metadata.namespace.as_deref().unwrap_or_default();
            secrets.in_namespace(namespace).iter().for_each(|secret| fed.add(key_of(&**secret)));
        }
    });
    let world = world.clone();
    Box::pin(async move {
        let Some(path) = &world.options.service_account_private_key_file else { return };
        let bundle = world.options.root_ca_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let maker = match signing_key(path) {
            Ok(key) => Maker { key, bundle },
            Err(error) => return warn!(path = %path.display(), error, "read the service account key"),
        };
        world.service_accounts.synced().await;
        world.token_secrets.synced().await;
        queue.work("serviceaccount-token", 5, |secret| sync(&world, &maker, secret)).await;
    })
}

fn signing_key(path: &Path) -> Result<SigningKey, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    SigningKey::from_pem(&text).map_err(|error| error.to_string())
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

async fn sync(world: &World, maker: &Maker, secret_key: String) -> Result<Next, kube::Error> {
    let Some(secret) = world.token_secrets.get(&secret_key) else { return Ok(Next::Done) };
    let Some(account) = annotation(&secret, ACCOUNT_NAME) else { return Ok(Next::Done) };
    let (namespace, name) = split_key(&secret_key);
    let api: Api<Secret> = Api::namespaced(world.identities.own(), namespace);
    let account = world.service_accounts.get(&key(Some(namespace), account));
    let uid = annotation(&secret, ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let Some(account) =
        account.filter(|account| uid.is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid)))
    else {
        return remove(&api, &secret, name).await;
    };
    let filled = match maker.fill(&secret, &account) {
        Ok(Some(filled)) => filled,
        Ok(None) => return Ok(Next::Done),
        Err(error) => {
            warn!(secret = secret_key, %error, "make a token");
            return Ok(Next::Soon);
        }
    };
    world.token_secrets.learn(api.replace(name, &PostParams::default(), &filled).await?);
    Ok(Next::Done)
}

/// The account is gone, or is another by now.
async fn remove(api: &Api<Secret>, secret: &Secret, name: &str) -> Result<Next, kube::Error> {
    let only_this = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
    let how = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match api.delete(name, &how).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        other => other.map(drop)?,
    }
    info!(secret = name, "deleted a service account token whose account is gone");
    Ok(Next::Done)
}

impl Maker {
    /// The Secret with what it lacks; nothing when it lacks nothing.
    fn fill(&self, secret: &Secret, account: &ServiceAccount) -> Result<Option<Secret>, PkiError> {
        let (namespace, name) = (of(&secret.metadata.namespace), of(&secret.metadata.name));
        let (account_name, uid) = (of(&account.metadata.name), of(&account.metadata.uid));
        let data = secret.data.clone().unwrap_or_default();
        let mut wanted: BTreeMap<String, ByteString> = data.clone();
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let claims = json!({
                "iss": ISSUER,
                "kubernetes.io/serviceaccount/namespace": namespace,
                "kubernetes.io/serviceaccount/secret.name": name,
                "kubernetes.io/serviceaccount/service-account.name": account_name,
                "kubernetes.io/serviceaccount/service-account.uid": uid,
                "sub": format!("system:serviceaccount:{namespace}:{account_name}"),
            });
            wanted.insert("token".into(), ByteString(self.key.sign(&claims)?.into_bytes()));
        }
        if let Some(bundle) = &self.bundle {
            wanted.insert("ca.crt".into(), ByteString(bundle.clone().into_bytes()));
        }
        wanted.entry("namespace".into()).or_insert_with(|| ByteString(namespace.clone().into_bytes()));
        if wanted == data && annotation(secret, ACCOUNT_UID) == Some(&uid) {
            return Ok(None);
        }
        let mut filled = secret.clone();
        filled.data = Some(wanted);
        filled.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.into(), uid);
        Ok(Some(filled))
    }
}

fn of(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{VerifyingKey, claims_unverified};

    #[test]
    fn a_secret_is_filled_once_and_its_token_names_the_account() {
        let maker = Maker { key: SigningKey::generate().unwrap(), bundle: Some("CA".into()) };
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "t", "namespace": "default", "annotations": {ACCOUNT_NAME: "robot"}},
            "type": "kubernetes.io/service-account-token",
        }))
        .unwrap();
        let account: ServiceAccount = serde_json::from_value(
            json!({"metadata": {"name": "robot", "namespace": "default", "uid": "u-1"}}),
        )
        .unwrap();
        let filled = maker.fill(&secret, &account).unwrap().unwrap();
        let data = filled.data.clone().unwrap();
        let token = String::from_utf8(data["token"].0.clone()).unwrap();
        VerifyingKey::from_pem(&maker.key.public_pem()).unwrap().verify(&token).unwrap();
        let claims = claims_unverified(&token).unwrap();
        assert_eq!((&claims["iss"], claims.get("exp"), claims.get("aud")), (&json!(ISSUER), None, None));
        assert_eq!(claims["kubernetes.io/serviceaccount/service-account.uid"], "u-1");
        assert_eq!(
            (data["ca.crt"].0.as_slice(), data["namespace"].0.as_slice()),
            (&b"CA"[..], &b"default"[..])
        );
        assert!(maker.fill(&filled, &account).unwrap().is_none());
    }
}
