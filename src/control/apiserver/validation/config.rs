//! ConfigMaps and Secrets.

use serde_json::{Value, json};

use super::{immutable, invalid_all, join, metadata, text, too_long};
use crate::api::names;
use crate::api::status::Cause;

/// Upstream's limit for all of an object's data.
const MOST_BYTES: usize = 1024 * 1024;

pub fn config_map(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    for field in ["data", "binaryData"] {
        keys(&mut causes, object, field);
    }
    for key in object["binaryData"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if object["data"].get(key).is_some() {
            let why = "duplicate of key present in data";
            causes.push(Cause::invalid(format!("binaryData[{key}]"), &json!(key), why));
        }
    }
    let total = size(&object["data"]) + size(&object["binaryData"]) / 4 * 3;
    if total > MOST_BYTES {
        causes.push(too_long(String::new(), MOST_BYTES));
    }
    frozen(&mut causes, object, old, &["data", "binaryData"]);
    causes
}

pub fn secret(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    keys(&mut causes, object, "data");
    if size(&object["data"]) / 4 * 3 > MOST_BYTES {
        causes.push(too_long("data".to_owned(), MOST_BYTES));
    }
    let need: &[&str] = match text(object, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/service-account-token" => {
            let account = &object["metadata"]["annotations"]["kubernetes.io/service-account.name"];
            if account.as_str().is_none_or(str::is_empty) {
                let field = "metadata.annotations[kubernetes.io/service-account.name]";
                causes.push(Cause::required(field, ""));
            }
            &[]
        }
        _ => &[],
    };
    for key in need.iter().filter(|key| object["data"].get(**key).is_none()) {
        causes.push(Cause::required(format!("data[{key}]"), ""));
    }
    if let Some(old) = old {
        immutable(&mut causes, object, old, "type", "");
    }
    frozen(&mut causes, object, old, &["data"]);
    causes
}

fn keys(causes: &mut Vec<Cause>, object: &Value, field: &str) {
    for key in object[field].as_object().into_iter().flatten().map(|(key, _)| key) {
        let path = join("", &format!("{field}[{key}]"));
        causes.extend(invalid_all(&path, &json!(key), names::config_key(key)));
    }
}

fn size(data: &Value) -> usize {
    data.as_object().into_iter().flatten().map(|(_, value)| value.as_str().map_or(0, str::len)).sum()
}

/// `immutable: true` is for ever.
fn frozen(causes: &mut Vec<Cause>, new: &Value, old: Option<&Value>, fields: &[&str]) {
    let why = "field is immutable when `immutable` is set";
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", why));
    }
    for field in fields.iter().filter(|field| new[**field] != old[**field]) {
        causes.push(Cause::forbidden(*field, why));
    }
}
