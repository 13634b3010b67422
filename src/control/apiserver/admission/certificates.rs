//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may say yes to a request,
//! who may sign it, and which one nobody signs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Attributes, Context, Operation};
use crate::api::status::Result;
use crate::control::apiserver::authz::MASTERS;
use crate::control::apiserver::request::{RequestInfo, ResourceRequest};
use crate::pki;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

pub(super) async fn approval(context: &Context, write: &Attributes) -> Result<()> {
    if write.operation != Operation::Update || !write.is(GROUP, "certificatesigningrequests/approval") {
        return Ok(());
    }
    let signer = write.old_text("/spec/signerName");
    match may(context, write, "approve", signer).await {
        true => Ok(()),
        false => {
            Err(write.forbidden(format!("user not permitted to approve requests with signerName {signer:?}")))
        }
    }
}

pub(super) async fn signing(context: &Context, write: &Attributes) -> Result<()> {
    if write.operation != Operation::Update || !write.is(GROUP, "certificatesigningrequests/status") {
        return Ok(());
    }
    let signer = write.old_text("/spec/signerName");
    // Only the certificate and the verdict on signing need the permission.
    let failed = |object: &Option<serde_json::Value>| -> Vec<serde_json::Value> {
        let conditions = object.as_ref().map_or(&[][..], |csr| super::list(&csr["status"]["conditions"]));
        conditions.iter().filter(|one| one["type"] == "Failed").cloned().collect()
    };
    let same = write.new_text("/status/certificate") == write.old_text("/status/certificate")
        && failed(&write.object) == failed(&write.old);
    match same || may(context, write, "sign", signer).await {
        true => Ok(()),
        false => {
            Err(write.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
        }
    }
}

pub(super) fn subject(write: &Attributes) -> Result<()> {
    if write.operation != Operation::Create || !write.is(GROUP, RESOURCE) {
        return Ok(());
    }
    if write.new_text("/spec/signerName") != "kubernetes.io/kube-apiserver-client" {
        return Ok(());
    }
    let request =
        request_of(write).map_err(|error| write.forbidden(format!("failed to parse CSR: {error}")))?;
    match request.orgs.iter().any(|org| org == MASTERS) {
        true => Err(write.forbidden(
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        )),
        false => Ok(()),
    }
}

/// The request inside a CertificateSigningRequest.
pub(super) fn request_of(write: &Attributes) -> std::result::Result<pki::Request, pki::PkiError> {
    let bytes = STANDARD.decode(write.new_text("/spec/request")).unwrap_or_default();
    pki::Request::from_pem(&String::from_utf8_lossy(&bytes))
}

/// Asks for a verb on a signer, by its name or for all of its domain.
async fn may(context: &Context, write: &Attributes, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let resource = ResourceRequest {
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..ResourceRequest::default()
        };
        let info = RequestInfo { verb: verb.into(), resource: Some(resource), ..RequestInfo::default() };
        if context.authorizer.authorize(&write.user, &info).await.is_allowed() {
            return true;
        }
    }
    false
}
