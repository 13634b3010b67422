//! What makes a request a kubelet's (`pkg/apis/certificates/helpers.go`), with upstream's texts.

use crate::pki::Request;

const CLIENT_RSA: &[&str] = &["client auth", "digital signature", "key encipherment"];
const CLIENT: &[&str] = &["client auth", "digital signature"];
const SERVER_RSA: &[&str] = &["digital signature", "key encipherment", "server auth"];
const SERVER: &[&str] = &["digital signature", "server auth"];

fn same(usages: &[&str], wanted: &[&str]) -> bool {
    let mut sorted = usages.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted == wanted
}

/// The first reason why a request is no kubelet client's.
pub fn client_fault(request: &Request, usages: &[&str]) -> Option<String> {
    if request.orgs != ["system:nodes"] {
        return Some("subject organization is not system:nodes".into());
    }
    for (names, kind) in
        [(request.dns.len(), "DNS"), (request.emails.len(), "Email"), (request.ips.len(), "IP")]
    {
        if names > 0 {
            return Some(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    if !request.uris.is_empty() {
        return Some("URI subjectAltNames are not allowed".into());
    }
    if !request.cn.starts_with("system:node:") {
        return Some("subject common name does not begin with system:node:".into());
    }
    if !same(usages, CLIENT) && !same(usages, CLIENT_RSA) {
        return Some(format!("usages did not match [{}]", CLIENT_RSA.join(" ")));
    }
    None
}

/// The first reason why a request is no kubelet server's.
pub fn server_fault(request: &Request, usages: &[&str]) -> Option<String> {
    if request.orgs != ["system:nodes"] {
        return Some("subject organization is not system:nodes".into());
    }
    if request.dns.is_empty() && request.ips.is_empty() {
        return Some("DNS or IP subjectAltName is required".into());
    }
    if !request.emails.is_empty() {
        return Some("Email subjectAltNames are not allowed".into());
    }
    if !request.uris.is_empty() {
        return Some("URI subjectAltNames are not allowed".into());
    }
    if !same(usages, SERVER) && !same(usages, SERVER_RSA) {
        return Some(format!("usages did not match [{}]", SERVER_RSA.join(" ")));
    }
    if !request.cn.starts_with("system:node:") {
        return Some("subject common name does not begin with system:node:".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Request {
        Request { cn: "system:node:node-1".into(), orgs: vec!["system:nodes".into()], ..Request::default() }
    }

    #[test]
    fn a_kubelet_client_has_no_names_beside_its_own() {
        assert_eq!(client_fault(&node(), &["digital signature", "client auth"]), None);
        assert_eq!(client_fault(&node(), &["digital signature", "key encipherment", "client auth"]), None);
        let named = Request { dns: vec!["node-1".into()], ..node() };
        assert_eq!(client_fault(&named, CLIENT).unwrap(), "DNS subjectAltNames are not allowed");
        let admin = Request { orgs: vec!["system:masters".into()], ..node() };
        assert_eq!(client_fault(&admin, CLIENT).unwrap(), "subject organization is not system:nodes");
        let other = Request { cn: "eve".into(), ..node() };
        assert_eq!(
            client_fault(&other, CLIENT).unwrap(),
            "subject common name does not begin with system:node:"
        );
        assert_eq!(
            client_fault(&node(), &["server auth"]).unwrap(),
            "usages did not match [client auth digital signature key encipherment]"
        );
    }

    #[test]
    fn a_kubelet_server_needs_a_name() {
        assert_eq!(server_fault(&node(), SERVER).unwrap(), "DNS or IP subjectAltName is required");
        let named = Request { ips: vec!["192.0.2.11".parse().unwrap()], ..node() };
        assert_eq!(server_fault(&named, SERVER), None);
    }
}
