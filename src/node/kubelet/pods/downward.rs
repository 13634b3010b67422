//! The downward API: a pod's own fields and resources as text.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use super::PodError;
use crate::api::quantity::Quantity;

/// What a pod is told beside its object.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub host_ip: IpAddr,
    pub pod_ip: String,
    pub cpus: usize,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
}

/// The value of a `fieldRef`.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, around: &Surroundings) -> Result<String, PodError> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let path = selector.field_path.as_str();
    let map = |kind: &str| path.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = map("metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = map("metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(meta.labels.iter().flatten()),
        "metadata.annotations" => lines(meta.annotations.iter().flatten()),
        "spec.nodeName" => spec.map(|spec| text(&spec.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => spec.map(|spec| text(&spec.service_account_name)).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.to_string(),
        "status.podIP" | "status.podIPs" => around.pod_ip.clone(),
        _ => return Err(PodError::Config(format!("unsupported fieldPath: {path}"))),
    })
}

/// `key="value"`, a line each, as files of labels and annotations have them.
fn lines<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    pairs.map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`; a missing limit is what the node has.
pub fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, PodError> {
    let unknown = || PodError::Config(format!("unsupported container resource : {}", selector.resource));
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let list = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unknown()),
    };
    let parse = |text: &str| Quantity::parse(text).map_err(|error| PodError::Config(error.to_string()));
    let amount = match list.and_then(|list| list.get(name)) {
        Some(amount) => parse(&amount.0)?.milli(),
        None if selector.resource.starts_with("requests") => 0,
        None => match name {
            "cpu" => i64::try_from(around.cpus).unwrap_or(1) * 1000,
            "memory" => i64::try_from(around.memory_bytes).unwrap_or(i64::MAX / 1000).saturating_mul(1000),
            "ephemeral-storage" => {
                i64::try_from(around.storage_bytes).unwrap_or(i64::MAX / 1000).saturating_mul(1000)
            }
            _ => return Err(unknown()),
        },
    };
    let divisor = match selector.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => 1000,
        Some(text) => parse(text)?.milli().max(1),
    };
    // Rounded up, as upstream does.
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn around() -> Surroundings {
        Surroundings {
            host_ip: "192.0.2.11".parse().unwrap(),
            pod_ip: "10.244.1.5".into(),
            cpus: 2,
            memory_bytes: 4 << 30,
            storage_bytes: 0,
        }
    }

    #[test]
    fn fields_and_resources_read_as_upstream_writes_them() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": {"app": "web", "tier": "a\"b"}},
        }))
        .unwrap();
        let of = |path: &str| {
            let selector = ObjectFieldSelector { field_path: path.into(), api_version: None };
            field(&pod, &selector, &around()).ok()
        };
        assert_eq!(of("metadata.labels").as_deref(), Some("app=\"web\"\ntier=\"a\\\"b\""));
        assert_eq!(of("metadata.labels['app']").as_deref(), Some("web"));
        assert_eq!(of("status.podIP").as_deref(), Some("10.244.1.5"));
        assert_eq!(of("spec.containers"), None);
        let container: Container =
            serde_json::from_value(json!({"name": "a", "resources": {"limits": {"cpu": "1500m"}}})).unwrap();
        let of = |resource_name: &str, divisor: &str| {
            let selector =
                serde_json::from_value(json!({"resource": resource_name, "divisor": divisor})).unwrap();
            resource(&container, &selector, &around()).unwrap()
        };
        assert_eq!((of("limits.cpu", "0"), of("limits.cpu", "1m")), ("2".into(), "1500".into()));
        assert_eq!(of("limits.memory", "1Mi"), "4096");
    }
}
