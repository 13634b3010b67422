//! Volumes: one source each, with what that source cannot do without.

use serde_json::Value;

use super::metadata::unique;
use super::{each, invalid_all, join, required, text};
use crate::api::names;
use crate::api::status::Cause;

const HOST_PATH_TYPES: [&str; 7] =
    ["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks a pod's volumes and answers their names.
pub fn check(causes: &mut Vec<Cause>, spec: &Value, path: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for (path, volume) in each(spec, "volumes", path) {
        if required(causes, volume, "name", &path) {
            let (field, reasons) = (join(&path, "name"), names::dns1123_label(text(volume, "name")));
            if reasons.is_empty() {
                unique(causes, &mut seen, &volume["name"], field);
            } else {
                causes.extend(invalid_all(&field, &volume["name"], reasons));
            }
        }
        source(causes, volume, &path);
    }
    seen
}

fn source(causes: &mut Vec<Cause>, volume: &Value, path: &str) {
    let mut sources =
        volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && value.is_object());
    let Some((kind, source)) = sources.next() else {
        causes.push(Cause::required(path, "must specify a volume type"));
        return;
    };
    for (extra, _) in sources {
        causes.push(Cause::forbidden(join(path, extra), "may not specify more than 1 volume type"));
    }
    let path = join(path, kind);
    match kind.as_str() {
        "hostPath" => {
            required(causes, source, "path", &path);
            if text(source, "path").split('/').any(|part| part == "..") {
                causes.push(Cause::invalid(join(&path, "path"), &source["path"], "must not contain '..'"));
            }
            let kind = text(source, "type");
            if !kind.is_empty() && !HOST_PATH_TYPES.contains(&kind) {
                causes.push(Cause::unsupported(join(&path, "type"), &source["type"], &HOST_PATH_TYPES));
            }
        }
        "secret" => {
            required(causes, source, "secretName", &path);
            files(causes, source, &path);
        }
        "configMap" => {
            required(causes, source, "name", &path);
            files(causes, source, &path);
        }
        "persistentVolumeClaim" => {
            required(causes, source, "claimName", &path);
        }
        "downwardAPI" => mode(causes, source, &path, "defaultMode"),
        "projected" => {
            mode(causes, source, &path, "defaultMode");
            for (path, one) in each(source, "sources", &path) {
                let token = &one["serviceAccountToken"];
                if token.is_object() {
                    let path = join(&path, "serviceAccountToken");
                    required(causes, token, "path", &path);
                    if token["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
                        let why = "may not specify a duration less than 10 minutes";
                        causes.push(Cause::invalid(
                            join(&path, "expirationSeconds"),
                            &token["expirationSeconds"],
                            why,
                        ));
                    }
                }
            }
        }
        _ => {}
    }
}

fn files(causes: &mut Vec<Cause>, source: &Value, path: &str) {
    mode(causes, source, path, "defaultMode");
    for (path, item) in each(source, "items", path) {
        required(causes, item, "key", &path);
        if required(causes, item, "path", &path) {
            let place = text(item, "path");
            if place.starts_with('/') {
                causes.push(Cause::invalid(join(&path, "path"), &item["path"], "must be a relative path"));
            }
            if place.split('/').any(|part| part == "..") {
                causes.push(Cause::invalid(join(&path, "path"), &item["path"], "must not contain '..'"));
            }
        }
        mode(causes, item, &path, "mode");
    }
}

fn mode(causes: &mut Vec<Cause>, of: &Value, path: &str, field: &str) {
    if of[field].as_i64().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.push(Cause::invalid(join(path, field), &of[field], why));
    }
}
