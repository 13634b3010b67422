//! bootstrapsigner: signs `kube-public/cluster-info` with every bootstrap token, so that a node that
//! holds one can tell whether the file it fetched from nobody in particular is the cluster's.
//!
//! A detached JWS (HS256, keyed with the token's secret) per token, in `jws-kubeconfig-<id>`.

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use ring::hmac;

use super::cleaner::{field, remaining};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

const KEY: &str = "kube-public/cluster-info";
const SIGNATURE: &str = "jws-kubeconfig-";

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.tokens.on_change(move |_, _| fed.add(KEY));
    let fed = queue.clone();
    world.cluster_info.on_change(move |_, _| fed.add(KEY));
    let actor = world.actor("bootstrap-signer", "bootstrap-signer");
    let world = world.clone();
    Box::pin(async move {
        world.tokens.synced().await;
        queue.work("bootstrapsigner", 1, |_| sign(&world, &actor)).await;
    })
}

/// `header..signature`: the payload stays where it is.
fn detached(payload: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The data of the ConfigMap with one signature a usable token and no other.
fn signed(
    data: &BTreeMap<String, String>,
    tokens: &[Rc<Secret>],
    now: Timestamp,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = data
        .iter()
        .filter(|(key, _)| !key.starts_with(SIGNATURE))
        .map(|(key, text)| (key.clone(), text.clone()))
        .collect();
    let Some(payload) = data.get("kubeconfig") else { return data.clone() };
    for token in tokens {
        let usable = field(token, "usage-bootstrap-signing") == Some("true")
            && remaining(token, now).is_none_or(|left| !left.is_zero());
        if let (true, Some(id), Some(secret)) =
            (usable, field(token, "token-id"), field(token, "token-secret"))
        {
            all.insert(format!("{SIGNATURE}{id}"), detached(payload, id, secret));
        }
    }
    all
}

async fn sign(world: &World, actor: &Actor) -> Result<Next, kube::Error> {
    let Some(info) = world.cluster_info.get(KEY) else { return Ok(Next::Done) };
    let data = info.data.clone().unwrap_or_default();
    let wanted = signed(&data, &world.tokens.all(), Timestamp::now());
    if wanted == data {
        return Ok(Next::Done);
    }
    let mut changed = (*info).clone();
    changed.data = Some(wanted);
    let api: Api<ConfigMap> = Api::namespaced(actor.client.clone(), "kube-public");
    world.cluster_info.learn(api.replace("cluster-info", &PostParams::default(), &changed).await?);
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn every_signing_token_signs_and_a_gone_one_does_not() {
        let fields = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
        ];
        let data = fields
            .iter()
            .map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())))
            .collect();
        let token = Rc::new(Secret { data: Some(data), ..Secret::default() });
        let plain = BTreeMap::from([("kubeconfig".to_owned(), "apiVersion: v1".to_owned())]);
        let once = signed(&plain, &[token], Timestamp::UNIX_EPOCH);
        let signature = &once["jws-kubeconfig-abcdef"];
        let (header, tag) = signature.split_once("..").unwrap();
        assert_eq!(header, "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9");
        assert_eq!(URL_SAFE_NO_PAD.decode(tag).unwrap().len(), 32);
        assert_eq!(signed(&once, &[], Timestamp::UNIX_EPOCH), plain);
    }
}
