//! The front proxy at a component's own port: whoever shows a certificate of the requestheader authority may
//! say, in headers, for whom it asks (`authentication/request/headerrequest`).

use std::collections::BTreeMap;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;

use super::delegated::Caller;
use crate::api::percent::unescape;
use crate::pki::ClientRoots;

/// Whose word counts, and which headers name a user.
pub struct FrontProxy {
    pub roots: ClientRoots,
    /// Common names that may speak for others; empty allows any certificate of the authority.
    pub allowed: Vec<String>,
    pub headers: RemoteHeaders,
}

/// `--requestheader-*-headers` and the prefix.
#[derive(Debug, Clone, Default)]
pub struct RemoteHeaders {
    pub user: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra: Vec<String>,
}

impl FrontProxy {
    /// The caller the headers name, if whoever sends them may name one.
    pub fn caller(&self, headers: &HeaderMap, peer: &[CertificateDer<'_>]) -> Result<Option<Caller>, String> {
        let subject = self.roots.verify(peer).map_err(|error| error.to_string())?;
        if !self.allowed.is_empty() && !self.allowed.contains(&subject.cn) {
            return Err(format!("x509: subject with cn={} is not in the allowed list", subject.cn));
        }
        Ok(self.headers.caller(headers))
    }
}

impl RemoteHeaders {
    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|name| values(headers, name));
            values.filter(|value| !value.is_empty()).collect()
        };
        let name = all(&self.user).into_iter().next()?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for header in headers.keys() {
            let prefixed = |prefix: &String| header.as_str().strip_prefix(&prefix.to_ascii_lowercase());
            if let Some(key) = self.extra.iter().find_map(prefixed) {
                let values = values(headers, header.as_str());
                extra.entry(unescape(key).to_lowercase()).or_default().extend(values);
            }
        }
        let uid = all(&self.uid).into_iter().next().unwrap_or_default();
        Some(Caller { name, uid, groups: all(&self.group), extra })
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let all = headers.get_all(name).iter();
    all.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LeafSpec, certificates};

    #[test]
    fn only_an_allowed_certificate_may_name_somebody() {
        let ca = Authority::new("front-proxy-ca").unwrap();
        let chain =
            |cn| certificates(ca.issue(&LeafSpec::client(cn, &[])).unwrap().cert_pem.as_bytes()).unwrap();
        let one = |name: &str| vec![name.to_owned()];
        let proxy = FrontProxy {
            roots: ClientRoots::from_pem(ca.cert_pem().as_bytes()).unwrap(),
            allowed: one("front-proxy-client"),
            headers: RemoteHeaders {
                user: one("X-Remote-User"),
                uid: Vec::new(),
                group: one("X-Remote-Group"),
                extra: one("X-Remote-Extra-"),
            },
        };
        let mut headers = HeaderMap::new();
        let client = chain("front-proxy-client");
        assert_eq!(proxy.caller(&headers, &client), Ok(None), "nobody is named");
        headers.insert("x-remote-user", "jane".parse().unwrap());
        headers.insert("x-remote-group", "devs".parse().unwrap());
        headers.insert("x-remote-extra-scopes%2fx", "a".parse().unwrap());
        let caller = proxy.caller(&headers, &client).unwrap().unwrap();
        assert_eq!((caller.name.as_str(), caller.groups), ("jane", one("devs")));
        assert_eq!(caller.extra["scopes/x"], one("a"));
        let refusal = proxy.caller(&headers, &chain("mallory")).unwrap_err();
        assert_eq!(refusal, "x509: subject with cn=mallory is not in the allowed list");
    }
}
