//! Asking for a certificate by a CertificateSigningRequest object, and waiting for the answer.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::TryStreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use ring::digest;
use tracing::{info, warn};

use super::super::{KubeletError, api_text};
use crate::client::Backoff;
use crate::net::go_text;
use crate::pki;

/// Upstream waits this long for an answer before it asks anew.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What to ask for.
pub struct Ask<'a> {
    pub signer: &'static str,
    pub usages: &'static [&'static str],
    pub request_pem: &'a str,
    /// Empty: the server makes one (`csr-xxxxx`).
    pub name: String,
}

/// Signer and usages of a kubelet's client certificate.
pub const CLIENT: (&str, &[&str]) =
    ("kubernetes.io/kube-apiserver-client-kubelet", &["digital signature", "client auth"]);
/// Signer and usages of a kubelet's serving certificate.
pub const SERVING: (&str, &[&str]) = ("kubernetes.io/kubelet-serving", &["digital signature", "server auth"]);

/// `node-csr-…`: the same key and subject always give the same name, so that a retry finds its request.
pub fn digested_name(public_key: &[u8], subject: &[&str], usages: &[&str]) -> String {
    let mut hash = digest::Context::new(&digest::SHA512_256);
    hash.update(public_key);
    for part in subject.iter().chain(usages) {
        hash.update(b"|");
        hash.update(URL_SAFE_NO_PAD.encode(part).as_bytes());
    }
    format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finish()))
}

/// Creates the request, trying again until the server takes it, and waits until it is signed.
///
/// A server that is not there yet, a bootstrap token that is not there yet (401) and a binding that is not
/// there yet (403) all heal by themselves; each new complaint is logged once.
pub async fn certificate(client: &Client, ask: &Ask<'_>) -> Result<String, KubeletError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = create(&api, ask).await;
    tokio::time::timeout(PATIENCE, signed(&api, &name)).await.unwrap_or(Err(KubeletError::RequestUnanswered))
}

async fn create(api: &Api<CertificateSigningRequest>, ask: &Ask<'_>) -> String {
    let generate = ask.name.is_empty().then(|| "csr-".to_owned());
    let object = CertificateSigningRequest {
        metadata: ObjectMeta {
            name: (!ask.name.is_empty()).then(|| ask.name.clone()),
            generate_name: generate,
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(ask.request_pem.as_bytes().to_vec()),
            signer_name: ask.signer.into(),
            usages: Some(ask.usages.iter().map(|&usage| usage.to_owned()).collect()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let (mut backoff, mut said) = (Backoff::new(), String::new());
    loop {
        match api.create(&PostParams::default(), &object).await {
            Ok(created) => return created.metadata.name.unwrap_or_default(),
            Err(kube::Error::Api(status)) if status.code == 409 && !ask.name.is_empty() => {
                info!(csr = ask.name, "csr for this node already exists, reusing");
                return ask.name.clone();
            }
            Err(error) => {
                let text = api_text(&error);
                if text != said {
                    warn!(error = text, "cannot create certificate signing request");
                    said = text;
                }
                backoff.wait().await;
            }
        }
    }
}

/// Watches one request until it is signed, denied or failed.
async fn signed(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, KubeletError> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api.clone(), config).backoff(Backoff::new()).applied_objects());
    loop {
        match events.try_next().await {
            Ok(Some(request)) => {
                if let Some(answer) = answer(&request) {
                    return answer;
                }
            }
            Ok(None) => return Err(KubeletError::RequestUnanswered),
            Err(error) => {
                warn!(error = go_text(&error), csr = name, "Watching the certificate signing request failed")
            }
        }
    }
}

fn answer(request: &CertificateSigningRequest) -> Option<Result<String, KubeletError>> {
    let status = request.status.as_ref()?;
    let condition =
        |wanted: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == wanted);
    for (wanted, verb) in [("Denied", "denied"), ("Failed", "failed")] {
        if let Some(condition) = condition(wanted) {
            return Some(Err(KubeletError::RequestRefused {
                verb,
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            }));
        }
    }
    condition("Approved")?;
    let pem = String::from_utf8_lossy(&status.certificate.as_ref()?.0).into_owned();
    pki::Facts::from_pem(pem.as_bytes()).is_ok().then_some(Ok(pem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(status: serde_json::Value) -> CertificateSigningRequest {
        let spec = json!({"request": "", "signerName": CLIENT.0, "usages": CLIENT.1});
        serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn a_request_is_answered_by_a_certificate_or_a_refusal_and_by_nothing_else() {
        assert!(answer(&request(json!({}))).is_none());
        let approved = json!([{"type": "Approved", "status": "True"}]);
        assert!(answer(&request(json!({"conditions": approved}))).is_none());
        let denied = json!([{"type": "Denied", "status": "True", "reason": "No", "message": "not you"}]);
        let refusal = answer(&request(json!({"conditions": denied}))).unwrap().unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "certificate signing request is denied, reason: No, message: not you"
        );
    }

    #[test]
    fn the_same_key_and_subject_give_the_same_name() {
        let name = |key: &[u8]| digested_name(key, &["system:node:node-1", "system:nodes"], CLIENT.1);
        assert_eq!(name(b"k"), name(b"k"));
        assert_ne!(name(b"k"), name(b"l"));
        assert!(name(b"k").starts_with("node-csr-") && name(b"k").len() == 52);
    }
}
