//! Bootstrap tokens: Secrets in kube-system that let a node introduce itself
//! (`plugin/pkg/auth/authenticator/token/bootstrap`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::lookup;
use super::super::user::UserInfo;
use crate::control::store::Store;

/// A token's user, nothing when this is no token of that form or none that counts.
///
/// To the client every failure is the same 401; the reason is for the log.
pub(super) fn verify(store: &Store, token: &str, now: i64) -> Result<Option<UserInfo>, String> {
    let Some((id, secret)) = split(token) else { return Ok(None) };
    let name = format!("bootstrap-token-{id}");
    let Some(object) = lookup::object(store, "", "secrets", "kube-system", &name) else { return Ok(None) };
    if lookup::deleted_at(&object).is_some()
        || lookup::text(&object, "/type") != "bootstrap.kubernetes.io/token"
    {
        return Ok(None);
    }
    let known = data(&object, "token-secret");
    if data(&object, "token-id") != id || !same(&known, secret) {
        return Ok(None);
    }
    if is_expired(&data(&object, "expiration"), now)
        || data(&object, "usage-bootstrap-authentication") != "true"
    {
        return Ok(None);
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    let extra = data(&object, "auth-extra-groups");
    for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        if !is_bootstrap_group(group) {
            return Err(format!("bootstrap group {group:?} is invalid"));
        }
        groups.push(group.to_owned());
    }
    Ok(Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() }))
}

/// `abcdef.0123456789abcdef` taken apart.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// `^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b':' || byte == b'-';
    (1..=256).contains(&rest.len())
        && rest.bytes().all(allowed)
        && rest.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
}

/// An expiration that cannot be read has passed.
fn is_expired(text: &str, now: i64) -> bool {
    match text {
        "" => false,
        text => text.parse::<jiff::Timestamp>().map_or(true, |end| end.as_second() <= now),
    }
}

fn data(secret: &Value, key: &str) -> String {
    let encoded = secret["data"][key].as_str().unwrap_or_default();
    STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Compares without telling by its time how much was right.
fn same(known: &str, offered: &str) -> bool {
    known.len() == offered.len()
        && known.bytes().zip(offered.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
