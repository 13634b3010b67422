//! csrsigning: the four built-in signers, with the cluster's authority or each with its own.
//!
//! Each signs only approved requests that are what its name promises; another request gets the
//! condition `Failed` with upstream's text.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::PostParams;
use tracing::{info, warn};

use super::kubelet::{client_fault, server_fault};
use super::{condition, conditions, has, is_issued, request_pem, requests, usages};
use crate::control::controllers::queue::Next;
use crate::control::controllers::world::{Actor, World};
use crate::pki::{Authority, PkiError, Request};

/// A shorter life than this cannot be asked for.
const SHORTEST: Duration = Duration::from_secs(600);

/// By signer.
type Authorities = BTreeMap<&'static str, Rc<Authority>>;
type Fault = fn(&Request, &[&str]) -> Option<String>;

const SIGNERS: &[(&str, Fault)] = &[
    ("kubernetes.io/kubelet-serving", server_fault),
    ("kubernetes.io/kube-apiserver-client-kubelet", client_fault),
    ("kubernetes.io/kube-apiserver-client", api_client_fault),
    ("kubernetes.io/legacy-unknown", |_, _| None),
];

fn api_client_fault(_: &Request, usages: &[&str]) -> Option<String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    let fits = usages.contains(&"client auth") && usages.iter().all(|usage| allowed.contains(usage));
    (!fits).then(|| "usages did not match [client auth digital signature key encipherment]".into())
}

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = requests(world);
    let actor = world.actor("certificate-controller", "certificate-controller");
    let world = world.clone();
    Box::pin(async move {
        let authorities = match world.options.signing_authorities() {
            Ok(all) if all.is_empty() => {
                return warn!("no signing key given, certificates will not be signed");
            }
            Ok(all) => all,
            Err(error) => return warn!(%error, "read the signing key"),
        };
        queue.work("csrsigning", 8, |name| sign(&world, &actor, &authorities, name)).await;
    })
}

/// What a request's signer says to it.
#[derive(Debug, PartialEq)]
enum Answer {
    NotMine,
    Refuse(String),
    Sign(Duration),
}

fn judge(csr: &CertificateSigningRequest, longest: Duration) -> Answer {
    let signer = SIGNERS.iter().find(|(name, _)| *name == csr.spec.signer_name);
    let Some((_, fault)) = signer else { return Answer::NotMine };
    if !has(csr, "Approved") || has(csr, "Denied") || has(csr, "Failed") || is_issued(csr) {
        return Answer::NotMine;
    }
    let request = match Request::from_pem(&request_pem(csr)) {
        Ok(request) => request,
        Err(error) => return Answer::Refuse(format!("unable to parse csr {:?}: {error}", csr.metadata.name)),
    };
    if let Some(fault) = fault(&request, &usages(csr)) {
        return Answer::Refuse(fault);
    }
    let asked =
        csr.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    Answer::Sign(asked.map_or(longest, |asked| asked.max(SHORTEST).min(longest)))
}

async fn sign(
    world: &World,
    actor: &Actor,
    authorities: &Authorities,
    name: String,
) -> Result<Next, kube::Error> {
    let Some(csr) = world.csrs.get(&name) else { return Ok(Next::Done) };
    let Some(authority) = authorities.get(csr.spec.signer_name.as_str()) else { return Ok(Next::Done) };
    let answer = match judge(&csr, world.options.cluster_signing_duration) {
        Answer::NotMine => return Ok(Next::Done),
        Answer::Refuse(why) => Err(why),
        Answer::Sign(lifetime) => issue(authority, &csr, lifetime).map_err(|error| error.to_string()),
    };
    let mut settled = (*csr).clone();
    let status = settled.status.get_or_insert_default();
    match &answer {
        Ok(pem) => status.certificate = Some(ByteString(pem.clone().into_bytes())),
        Err(why) => {
            let mut all = conditions(&csr).to_vec();
            all.push(condition("Failed", "SignerValidationFailure", why));
            status.conditions = Some(all);
        }
    }
    let api: Api<CertificateSigningRequest> = Api::all(actor.client.clone());
    let settled = api.replace_status(&name, &PostParams::default(), &settled).await?;
    world.csrs.learn(settled);
    match answer {
        Ok(_) => info!(csr = name, signer = csr.spec.signer_name, "signed"),
        Err(reason) => warn!(csr = name, reason, "refused to sign"),
    }
    Ok(Next::Done)
}

fn issue(
    authority: &Authority,
    csr: &CertificateSigningRequest,
    lifetime: Duration,
) -> Result<String, PkiError> {
    authority.sign_request(&request_pem(csr), lifetime, &usages(csr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn csr(cn: &str, seconds: Option<i32>) -> CertificateSigningRequest {
        let (pem, _) = crate::pki::request(cn, &["system:nodes"], &[], &[]).unwrap();
        let mut csr = CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: "kubernetes.io/kube-apiserver-client-kubelet".into(),
                usages: Some(vec!["digital signature".into(), "client auth".into()]),
                expiration_seconds: seconds,
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        };
        csr.status.get_or_insert_default().conditions = Some(vec![condition("Approved", "", "")]);
        csr
    }

    #[test]
    fn an_approved_node_is_signed_and_a_stranger_refused_by_name() {
        assert_eq!(judge(&csr("system:node:a", None), YEAR), Answer::Sign(YEAR));
        assert_eq!(
            judge(&csr("eve", None), YEAR),
            Answer::Refuse("subject common name does not begin with system:node:".into())
        );
        let mut pending = csr("system:node:a", None);
        pending.status = None;
        assert_eq!(judge(&pending, YEAR), Answer::NotMine);
    }

    #[test]
    fn a_shorter_life_may_be_asked_for_but_not_below_ten_minutes() {
        assert_eq!(judge(&csr("system:node:a", Some(3600)), YEAR), Answer::Sign(Duration::from_secs(3600)));
        assert_eq!(judge(&csr("system:node:a", Some(1)), YEAR), Answer::Sign(SHORTEST));
        assert_eq!(judge(&csr("system:node:a", Some(i32::MAX)), YEAR), Answer::Sign(YEAR));
    }

    #[test]
    fn what_is_signed_carries_the_subject_and_only_the_usages_of_the_object() {
        let authority = Authority::new("kubernetes").unwrap();
        let pem = issue(&authority, &csr("system:node:a", None), YEAR).unwrap();
        let facts = crate::pki::Facts::from_pem(pem.as_bytes()).unwrap();
        assert_eq!((facts.cn.as_str(), facts.extended_usages), ("system:node:a", vec!["client auth"]));
    }
}
