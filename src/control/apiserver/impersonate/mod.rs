//! Acting as somebody else: `kubectl --as`, `--as-group`, `--as-uid`, `--as-user-extra`
//! (`endpoints/filters/impersonation`).
//!
//! The constrained modes are tried before the old one, whose verb `impersonate` opens every request at once
//! (KEP-5284). Left out on purpose: upstream's memory of which mode let a user through last, which only
//! saves questions and decides whose refusal is told.

mod modes;

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{HeaderMap, HeaderName};

use super::authz::Authorizer;
use super::request::{RequestInfo, unescape};
use super::user::UserInfo;
use crate::api::status::{Result, Status};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Whom a request acts as.
#[derive(Debug, PartialEq)]
pub struct Acting {
    pub user: UserInfo,
    /// The verb of the constrained mode that let it, for the audit log; empty for the old one.
    pub constraint: String,
}

/// The user the request acts as, when it names one and its sender may; the headers that name one come off.
pub async fn user(
    authorizer: &Authorizer,
    own: &UserInfo,
    info: &RequestInfo,
    headers: &mut HeaderMap,
) -> Result<Option<Acting>> {
    let wanted = named(headers);
    strip(headers);
    match wanted? {
        None => Ok(None),
        Some(wanted) => modes::act(authorizer, own, info, wanted).await.map(Some),
    }
}

/// The identity the headers name, as they name it.
///
/// # Errors
/// 400 for parts of an identity without a name.
fn named(headers: &HeaderMap) -> Result<Option<UserInfo>> {
    let first = |name: &str| texts(headers, name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(unescape(key)).or_default().extend(texts(headers, header.as_str()));
        }
    }
    let wanted = UserInfo { name: first(USER), uid: first(UID), groups: texts(headers, GROUP), extra };
    let parts = !wanted.uid.is_empty() || !wanted.groups.is_empty() || !wanted.extra.is_empty();
    match (wanted.name.is_empty(), parts) {
        (false, _) => Ok(Some(wanted)),
        (true, false) => Ok(None),
        (true, true) => Err(Status::bad_request(format!(
            "requested {} without impersonating a user name",
            printed(&wanted)
        ))),
    }
}

/// Every value of a header: bytes as they are, not only ASCII.
fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

fn strip(headers: &mut HeaderMap) {
    let ours =
        |name: &&HeaderName| matches!(name.as_str(), USER | UID | GROUP) || name.as_str().starts_with(EXTRA);
    let gone: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    gone.into_iter().for_each(|name| drop(headers.remove(name)));
}

/// The identity as Go's `%#v` prints it.
fn printed(user: &UserInfo) -> String {
    let strings = |list: &[String]| {
        let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".into() } else { strings(&user.groups) };
    let mut extra = String::from("map[string][]string");
    match user.extra.is_empty() {
        true => extra += "(nil)",
        false => {
            let pairs = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", strings(values)));
            // Writing into a string has no way to fail.
            let _ = write!(extra, "{{{}}}", pairs.collect::<Vec<_>>().join(", "));
        }
    }
    format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}", user.name, user.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    #[test]
    fn only_the_headers_of_an_identity_count() {
        assert_eq!(named(&headers(&[("impersonate-foo", "x")])), Ok(None));
        assert_eq!(named(&headers(&[("impersonate-user", "")])), Ok(None));
        let user = named(&headers(&[("impersonate-user", "josé"), ("impersonate-extra-a%2fb", "c")]));
        let user = user.unwrap().unwrap();
        assert_eq!((user.name.as_str(), &user.extra["a/b"]), ("josé", &vec!["c".to_owned()]));
        let mut all = headers(&[("impersonate-user", "a"), ("impersonate-foo", "x"), ("accept", "y")]);
        strip(&mut all);
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn parts_without_a_name_are_refused_in_gos_words() {
        let refused = named(&headers(&[("impersonate-group", "x")])).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (
                400,
                "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"x\"}, \
                 Extra:map[string][]string(nil)} without impersonating a user name"
            )
        );
    }
}
