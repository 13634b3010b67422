//! csrapproving: approves a kubelet's client certificate when the requester may have it.
//!
//! Recognizers are tried in upstream's order; each that fits asks the API server whether the
//! requester may create the matching subresource. It never denies: what it does not know it leaves
//! to a person.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::PostParams;
use tracing::{debug, info};

use super::kubelet::client_fault;
use super::{condition, conditions, has, is_issued, request_pem, requests, usages};
use crate::control::controllers::queue::Next;
use crate::control::controllers::world::{Actor, World};
use crate::pki::Request;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

struct Recognizer {
    subresource: &'static str,
    fits: fn(&CertificateSigningRequest, &Request) -> bool,
    message: &'static str,
}

const RECOGNIZERS: &[Recognizer] = &[
    Recognizer {
        subresource: "selfnodeclient",
        fits: |csr, request| csr.spec.username.as_deref() == Some(&request.cn),
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    },
    Recognizer {
        subresource: "nodeclient",
        fits: |_, _| true,
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    },
];

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = requests(world);
    let actor = world.actor("certificate-controller", "certificate-controller");
    let world = world.clone();
    Box::pin(async move {
        queue.work("csrapproving", 8, |name| approve(&world, &actor, name)).await;
    })
}

/// The recognizers a request fits, in the order they are tried.
fn recognize(csr: &CertificateSigningRequest) -> Vec<&'static Recognizer> {
    if csr.spec.signer_name != SIGNER || is_issued(csr) || has(csr, "Approved") || has(csr, "Denied") {
        return Vec::new();
    }
    let Ok(request) = Request::from_pem(&request_pem(csr)) else { return Vec::new() };
    if client_fault(&request, &usages(csr)).is_some() {
        return Vec::new();
    }
    RECOGNIZERS.iter().filter(|one| (one.fits)(csr, &request)).collect()
}

async fn approve(world: &World, actor: &Actor, name: String) -> Result<Next, kube::Error> {
    let Some(csr) = world.csrs.get(&name) else { return Ok(Next::Done) };
    let recognized = recognize(&csr);
    if recognized.is_empty() {
        return Ok(Next::Done);
    }
    for recognizer in &recognized {
        if !may_create(actor, &csr, recognizer.subresource).await? {
            continue;
        }
        let mut approved = (*csr).clone();
        let mut all = conditions(&csr).to_vec();
        all.push(condition("Approved", "AutoApproved", recognizer.message));
        approved.status.get_or_insert_default().conditions = Some(all);
        let api: Api<CertificateSigningRequest> = Api::all(actor.client.clone());
        let approved = api.replace_subresource("approval", &name, &PostParams::default(), &approved).await?;
        world.csrs.learn(approved);
        info!(csr = name, "approved");
        return Ok(Next::Done);
    }
    let tried: Vec<&str> = recognized.iter().map(|one| one.subresource).collect();
    debug!(csr = name, tried = ?tried, "recognized csr but subject access review was not approved");
    // The binding that allows it may be on its way (a cluster that is just starting).
    Ok(Next::Soon)
}

async fn may_create(
    actor: &Actor,
    csr: &CertificateSigningRequest,
    subresource: &str,
) -> Result<bool, kube::Error> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                verb: Some("create".into()),
                subresource: Some(subresource.into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(actor.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;

    fn csr(cn: &str, username: &str) -> CertificateSigningRequest {
        let (pem, _) = crate::pki::request(cn, &["system:nodes"], &[], &[]).unwrap();
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SIGNER.into(),
                username: Some(username.into()),
                usages: Some(vec!["digital signature".into(), "client auth".into()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    fn names(csr: &CertificateSigningRequest) -> Vec<&'static str> {
        recognize(csr).iter().map(|one| one.subresource).collect()
    }

    #[test]
    fn a_bootstrapping_node_is_a_nodeclient_and_a_renewing_one_a_selfnodeclient_first() {
        assert_eq!(names(&csr("system:node:a", "system:bootstrap:abcdef")), ["nodeclient"]);
        assert_eq!(names(&csr("system:node:a", "system:node:a")), ["selfnodeclient", "nodeclient"]);
        assert!(names(&csr("eve", "eve")).is_empty());
    }

    #[test]
    fn a_settled_request_is_left_alone() {
        let mut settled = csr("system:node:a", "system:node:a");
        settled.status.get_or_insert_default().conditions = Some(vec![condition("Denied", "", "")]);
        assert!(names(&settled).is_empty());
    }
}
