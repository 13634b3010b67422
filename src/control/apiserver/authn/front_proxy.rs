//! The front proxy: whoever shows a certificate of `--requestheader-client-ca-file` may say, in headers,
//! for whom it asks (`authentication/request/headerrequest`).
//!
//! Without that certificate the headers mean nothing, and they are taken off every request.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use rustls_pki_types::CertificateDer;

use super::super::request::unescape;
use super::super::user::UserInfo;
use super::bundle::Bundle;

/// Which headers name a user, and whose word counts.
pub(super) struct FrontProxy {
    pub(super) roots: Arc<Bundle>,
    /// Common names that may speak for others; empty allows any certificate of the authority.
    pub(super) allowed: Vec<String>,
    pub(super) headers: HeaderNames,
}

/// `--requestheader-*-headers` and the prefix.
#[derive(Debug, Clone, Default)]
pub(super) struct HeaderNames {
    pub(super) user: Vec<String>,
    pub(super) uid: Vec<String>,
    pub(super) group: Vec<String>,
    pub(super) extra: Vec<String>,
}

impl FrontProxy {
    /// The user the headers name, if the client may name one.
    pub(super) fn user(
        &self,
        headers: &HeaderMap,
        chain: &[CertificateDer<'static>],
    ) -> Result<Option<UserInfo>, String> {
        if chain.is_empty() {
            return Ok(None);
        }
        let subject = self.roots.verify(chain).map_err(|error| error.to_string())?;
        if !self.allowed.is_empty() && !self.allowed.contains(&subject.cn) {
            return Err(format!("x509: subject with cn={} is not in the allowed list", subject.cn));
        }
        Ok(self.headers.user(headers))
    }
}

impl HeaderNames {
    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let first = |names: &[String]| all(headers, names).into_iter().next().unwrap_or_default();
        let name = first(&self.user);
        if name.is_empty() {
            return None;
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for header in headers.keys() {
            let prefixed = |prefix: &String| header.as_str().strip_prefix(&prefix.to_ascii_lowercase());
            if let Some(key) = self.extra.iter().find_map(prefixed) {
                extra
                    .entry(unescape(key).to_lowercase())
                    .or_default()
                    .extend(values(headers, header.as_str()));
            }
        }
        Some(UserInfo { name, uid: first(&self.uid), groups: all(headers, &self.group), extra })
    }

    /// Takes every header off that could name a user, the standard ones too.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let standard = ["x-remote-user", "x-remote-uid", "x-remote-group"].map(str::to_owned);
        for name in [&standard[..], &self.user, &self.uid, &self.group].into_iter().flatten() {
            headers.remove(name.as_str());
        }
        let prefixes: Vec<String> =
            self.extra.iter().map(|one| one.to_ascii_lowercase()).chain(["x-remote-extra-".into()]).collect();
        let named = |name: &&HeaderName| prefixes.iter().any(|prefix| name.as_str().starts_with(prefix));
        let gone: Vec<HeaderName> = headers.keys().filter(named).cloned().collect();
        for name in gone {
            headers.remove(name);
        }
    }
}

/// Every value of every one of these headers that is not blank.
fn all(headers: &HeaderMap, names: &[String]) -> Vec<String> {
    names.iter().flat_map(|name| values(headers, name)).filter(|value| !value.is_empty()).collect()
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
        .collect()
}
