//! A container's environment: services, `envFrom`, `env` with `valueFrom`, and `$(NAME)` expansion.
//!
//! `makeEnvironmentVariables` in `pkg/kubelet/kubelet_pods.go`, `third_party/forked/golang/expansion`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::PodError;
use super::downward::{Surroundings, field, resource};
use super::objects::{Fetched, Source};

/// Everything an environment is made from.
pub struct Context<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub services: &'a BTreeMap<String, String>,
    pub objects: &'a Fetched,
    pub around: &'a Surroundings,
}

/// The objects a container's environment needs.
pub fn wanted(container: &Container) -> Vec<(Source, String)> {
    let mut wanted = Vec::new();
    for from in container.env_from.iter().flatten() {
        wanted.extend(from.config_map_ref.iter().map(|map| (Source::ConfigMap, map.name.clone())));
        wanted.extend(from.secret_ref.iter().map(|secret| (Source::Secret, secret.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        wanted.extend(from.config_map_key_ref.iter().map(|map| (Source::ConfigMap, map.name.clone())));
        wanted.extend(from.secret_key_ref.iter().map(|secret| (Source::Secret, secret.name.clone())));
    }
    wanted
}

/// The variables, in order; later ones win.
pub fn environment(context: &Context<'_>) -> Result<Vec<(String, String)>, PodError> {
    let mut result: Vec<(String, String)> = Vec::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for from in context.container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        let sources = [
            from.config_map_ref.as_ref().map(|map| (Source::ConfigMap, &map.name, map.optional)),
            from.secret_ref.as_ref().map(|secret| (Source::Secret, &secret.name, secret.optional)),
        ];
        for (source, name, optional) in sources.into_iter().flatten() {
            let Some(data) = data(context, source, name, optional)? else { continue };
            for (key, value) in data {
                set(
                    &mut result,
                    &mut known,
                    format!("{prefix}{key}"),
                    String::from_utf8_lossy(value).into_owned(),
                );
            }
        }
    }
    for variable in context.container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(from)) => match from_source(context, from)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => {
                let value = value.as_deref().unwrap_or_default();
                expand(value, |name| known.get(name).or_else(|| context.services.get(name)).cloned())
            }
        };
        set(&mut result, &mut known, variable.name.clone(), value);
    }
    let services = context.services.iter().filter(|(name, _)| !known.contains_key(*name));
    result.extend(services.map(|(name, value)| (name.clone(), value.clone())));
    Ok(result)
}

fn set(
    result: &mut Vec<(String, String)>,
    known: &mut BTreeMap<String, String>,
    name: String,
    value: String,
) {
    if known.insert(name.clone(), value.clone()).is_some() {
        result.retain(|(earlier, _)| *earlier != name);
    }
    result.push((name, value));
}

/// An object's keys; nothing where it is missing and may be.
fn data<'a>(
    context: &Context<'a>,
    source: Source,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a BTreeMap<String, Vec<u8>>>, PodError> {
    match context.objects.get(source, name) {
        Some(data) => Ok(Some(data)),
        None if optional == Some(true) => Ok(None),
        None => Err(PodError::Config(format!("{} \"{name}\" not found", source.word()))),
    }
}

fn from_source(context: &Context<'_>, from: &EnvVarSource) -> Result<Option<String>, PodError> {
    if let Some(selector) = &from.field_ref {
        return field(context.pod, selector, context.around).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return resource(
            container_named(context, selector.container_name.as_deref()),
            selector,
            context.around,
        )
        .map(Some);
    }
    let (source, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(map), _) => (Source::ConfigMap, &map.name, &map.key, map.optional),
        (None, Some(secret)) => (Source::Secret, &secret.name, &secret.key, secret.optional),
        (None, None) => return Err(PodError::Config("this valueFrom source is not supported".into())),
    };
    let Some(data) = data(context, source, name, optional)? else { return Ok(None) };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => {
            let namespace = context.pod.metadata.namespace.as_deref().unwrap_or_default();
            let word = if source == Source::Secret { "Secret" } else { "ConfigMap" };
            Err(PodError::Config(format!("couldn't find key {key} in {word} {namespace}/{name}")))
        }
    }
}

fn container_named<'a>(context: &Context<'a>, name: Option<&str>) -> &'a Container {
    let spec = context.pod.spec.as_ref();
    let named =
        spec.and_then(|spec| spec.containers.iter().find(|container| Some(container.name.as_str()) == name));
    named.unwrap_or(context.container)
}

/// Replaces `$(NAME)` by a variable's value; `$$` is a dollar, an unknown name stays as it is.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn references_expand_and_doubled_dollars_do_not() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, expected) in [
            ("$(A)", "x"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("a$(A)b$", "axb$"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn env_wins_over_env_from_and_both_over_services() {
        let container: Container = serde_json::from_value(json!({
            "name": "a",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "gone", "optional": true}}],
            "env": [{"name": "P_K", "value": "own"}, {"name": "REF", "value": "$(P_K)-$(SVC)"},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
        }))
        .unwrap();
        let mut objects = Fetched::default();
        objects.insert(Source::ConfigMap, "m", Some(Arc::new(BTreeMap::from([("K".into(), b"v".to_vec())]))));
        let around = Surroundings {
            host_ip: "192.0.2.11".parse().unwrap(),
            pod_ip: String::new(),
            cpus: 1,
            memory_bytes: 0,
            storage_bytes: 0,
        };
        let services = BTreeMap::from([("SVC".to_owned(), "s".to_owned())]);
        let pod = Pod::default();
        let context = Context {
            pod: &pod,
            container: &container,
            services: &services,
            objects: &objects,
            around: &around,
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            environment(&context).unwrap(),
            [pair("P_K", "own"), pair("REF", "own-s"), pair("NODE", "192.0.2.11"), pair("SVC", "s")]
        );
    }
}
