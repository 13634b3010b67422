//! What an approver must ask of a request for a serving certificate: pure.
//!
//! The built-in signer asks none of it; approving blindly is handing out certificates to whoever wants to
//! stand between the API server and a kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::control::controllers::csr::kubelet::server_fault;
use crate::pki::Request;

/// The only signer this approver has a say in.
pub const SIGNER: &str = "kubernetes.io/kubelet-serving";
const NODE: &str = "system:node:";

/// By node: the names and addresses it has.
pub type Inventory = BTreeMap<String, BTreeSet<String>>;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Approve,
    /// It stays pending, for this reason.
    Leave(String),
}

/// A request that waits for an approver.
#[derive(Debug)]
pub struct Pending {
    pub requester: String,
    groups: Vec<String>,
    usages: Vec<String>,
    request: Result<Request, String>,
}

impl Pending {
    /// Nothing for a request of another signer or one that is settled.
    pub fn of(csr: &CertificateSigningRequest) -> Option<Self> {
        let status = csr.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        if csr.spec.signer_name != SIGNER || !conditions.is_empty() {
            return None;
        }
        let pem = String::from_utf8_lossy(&csr.spec.request.0);
        Some(Self {
            requester: csr.spec.username.clone().unwrap_or_default(),
            groups: csr.spec.groups.clone().unwrap_or_default(),
            usages: csr.spec.usages.clone().unwrap_or_default(),
            request: Request::from_pem(&pem).map_err(|error| error.to_string()),
        })
    }

    /// The node that asks, if a node does.
    pub fn node(&self) -> Option<&str> {
        self.requester.strip_prefix(NODE).filter(|name| !name.is_empty())
    }

    /// Approves only a node that asks for itself, for nothing but `known` names and addresses.
    /// `whose` says where those are from.
    pub fn judge(&self, known: Option<&BTreeSet<String>>, whose: &str) -> Verdict {
        match self.fault(known, whose) {
            None => Verdict::Approve,
            Some(why) => Verdict::Leave(why),
        }
    }

    fn fault(&self, known: Option<&BTreeSet<String>>, whose: &str) -> Option<String> {
        let request = match &self.request {
            Ok(request) => request,
            Err(why) => return Some(why.clone()),
        };
        let Some(node) = self.node().filter(|_| self.groups.iter().any(|group| group == "system:nodes"))
        else {
            return Some(format!("requester {:?} is no node", self.requester));
        };
        if request.cn != self.requester {
            return Some(format!("requester {:?} asks for common name {:?}", self.requester, request.cn));
        }
        // What the signer would refuse is not approved either.
        let usages: Vec<&str> = self.usages.iter().map(String::as_str).collect();
        if let Some(fault) = server_fault(request, &usages) {
            return Some(fault);
        }
        let Some(known) = known else { return Some(format!("{whose} has no node {node:?}")) };
        let strange = |name: &String| !known.contains(name);
        let ips: Vec<String> = request.ips.iter().map(IpAddr::to_string).collect();
        let strange: Vec<&str> =
            request.dns.iter().chain(&ips).filter(|name| strange(name)).map(String::as_str).collect();
        (!strange.is_empty())
            .then(|| format!("{} is not an address that {whose} gives {node:?}", strange.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    };

    fn csr(requester: &str, cn: &str, dns: &[&str], ips: &[&str]) -> CertificateSigningRequest {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let (pem, _) = crate::pki::request(cn, &["system:nodes"], dns, &ips).unwrap();
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SIGNER.into(),
                usages: Some(vec!["digital signature".into(), "server auth".into()]),
                username: Some(requester.into()),
                groups: Some(vec!["system:nodes".into(), "system:authenticated".into()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    fn verdict(csr: &CertificateSigningRequest) -> Verdict {
        let known = BTreeSet::from(["node-1".to_owned(), "192.0.2.11".to_owned()]);
        Pending::of(csr).unwrap().judge(Some(&known), "the inventory")
    }

    #[test]
    fn a_node_gets_its_own_addresses_and_no_other() {
        let own = csr("system:node:node-1", "system:node:node-1", &["node-1"], &["192.0.2.11"]);
        assert_eq!(verdict(&own), Verdict::Approve);
        let sibling =
            csr("system:node:node-1", "system:node:node-1", &["node-1"], &["192.0.2.11", "192.0.2.12"]);
        let why = "192.0.2.12 is not an address that the inventory gives \"node-1\"".to_owned();
        assert_eq!(verdict(&sibling), Verdict::Leave(why));
        let other = csr("system:node:node-1", "system:node:node-2", &["node-1"], &[]);
        assert!(matches!(verdict(&other), Verdict::Leave(why) if why.contains("asks for common name")));
        let nobody = csr("alice", "system:node:node-1", &["node-1"], &[]);
        assert!(matches!(verdict(&nobody), Verdict::Leave(why) if why.contains("is no node")));
        let empty = csr("system:node:node-1", "system:node:node-1", &[], &[]);
        assert!(matches!(verdict(&empty), Verdict::Leave(_)));
        let mut client = own.clone();
        client.spec.usages =
            Some(vec!["digital signature".into(), "server auth".into(), "client auth".into()]);
        assert!(matches!(verdict(&client), Verdict::Leave(why) if why.contains("usages did not match")));
        let unknown = Pending::of(&own).unwrap().judge(None, "the inventory");
        assert!(matches!(unknown, Verdict::Leave(why) if why.contains("has no node")));
    }

    #[test]
    fn settled_requests_and_other_signers_are_left_alone() {
        let mut settled = csr("system:node:node-1", "system:node:node-1", &["node-1"], &[]);
        settled.status.get_or_insert_default().conditions =
            Some(vec![CertificateSigningRequestCondition { type_: "Denied".into(), ..Default::default() }]);
        assert!(Pending::of(&settled).is_none());
        let mut client = csr("system:node:node-1", "system:node:node-1", &[], &[]);
        client.spec.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".into();
        assert!(Pending::of(&client).is_none());
    }
}
