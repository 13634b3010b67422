//! Certificate signing requests: who may have one (approve), the signers (sign), and their end (clean).
//!
//! kube-controller-manager's csrapproving, csrsigning and csrcleaner controllers.

pub mod approve;
pub mod clean;
pub(in crate::control) mod kubelet;
pub mod sign;

use std::rc::Rc;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::queue::Queue;
use super::world::World;
use crate::client::informer::key_of;

/// Whether a request has a condition of this type that is not `False`.
pub fn has(csr: &CertificateSigningRequest, condition: &str) -> bool {
    conditions(csr).iter().any(|one| one.type_ == condition && one.status != "False")
}

pub fn conditions(csr: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    csr.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn is_issued(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|cert| !cert.0.is_empty())
}

fn condition(type_: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    let now = Some(Time(Timestamp::now()));
    CertificateSigningRequestCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: now.clone(),
        last_transition_time: now,
    }
}

/// The PEM a request carries.
fn request_pem(csr: &CertificateSigningRequest) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&csr.spec.request.0)
}

fn usages(csr: &CertificateSigningRequest) -> Vec<&str> {
    csr.spec.usages.iter().flatten().map(String::as_str).collect()
}

/// A queue fed with every request that appears or changes.
fn requests(world: &Rc<World>) -> Queue {
    let queue = Queue::default();
    let fed = queue.clone();
    world.csrs.on_change(move |_, new| {
        if let Some(csr) = new {
            fed.add(key_of(&**csr));
        }
    });
    queue
}
