//! From a pod's specification to what its shim is asked for.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::env::expand;
use super::etc::hostname;
use crate::api::quantity::Quantity;
use crate::node::shim::{ContainerSpec, Limits, Mount, SandboxNetwork, SandboxSpec, Security};

/// `/var/log/pods/NAMESPACE_NAME_UID`.
pub fn log_directory(root: &Path, pod: &Pod) -> PathBuf {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let meta = &pod.metadata;
    root.join(format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid)))
}

/// A container's log, relative to the pod's directory.
pub fn log_path(container: &str, attempt: u32) -> PathBuf {
    PathBuf::from(container).join(format!("{attempt}.log"))
}

/// The sandbox of a pod; no address means the node's own network.
pub fn sandbox(
    pod: &Pod,
    attempt: u32,
    address: Option<Ipv4Addr>,
    node: &str,
    log_root: &Path,
) -> SandboxSpec {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let sysctls = spec.security_context.as_ref().and_then(|security| security.sysctls.as_ref());
    SandboxSpec {
        pod_uid: text(&pod.metadata.uid),
        pod_name: text(&pod.metadata.name),
        pod_namespace: text(&pod.metadata.namespace),
        attempt,
        hostname: if address.is_none() { node.to_owned() } else { hostname(pod) },
        network: address.map_or(SandboxNetwork::Host, |address| SandboxNetwork::Pod { address }),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_process_namespace: spec.share_process_namespace == Some(true),
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect(),
        log_directory: log_directory(log_root, pod),
    }
}

/// A container with its environment and mounts already worked out.
pub fn container(
    pod: &PodSpec,
    container: &Container,
    attempt: u32,
    env: Vec<(String, String)>,
    mounts: Vec<Mount>,
) -> ContainerSpec {
    let lookup = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    ContainerSpec {
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        log_path: log_path(&container.name, attempt),
        security: security(pod, container),
        limits: limits(container.resources.as_ref()),
        oom_score: 1000,
        target: target(pod, &container.name),
        env,
    }
}

/// Whose processes an ephemeral container is to see.
fn target(pod: &PodSpec, name: &str) -> Option<String> {
    let mut ephemeral = pod.ephemeral_containers.iter().flatten();
    let target = ephemeral.find(|one| one.name == name)?.target_container_name.clone()?;
    Some(target).filter(|target| !target.is_empty())
}

/// The container's security context over the pod's.
fn security(pod: &PodSpec, container: &Container) -> Security {
    let own = container.security_context.clone().unwrap_or_default();
    let base = pod.security_context.clone().unwrap_or_default();
    let id = |id: i64| u32::try_from(id).ok();
    let capabilities = own.capabilities.unwrap_or_default();
    let mut groups: Vec<u32> = base.supplemental_groups.into_iter().flatten().filter_map(id).collect();
    groups.extend(base.fs_group.and_then(id));
    Security {
        run_as_user: own.run_as_user.or(base.run_as_user).and_then(id),
        run_as_group: own.run_as_group.or(base.run_as_group).and_then(id),
        supplemental_groups: groups,
        run_as_non_root: own.run_as_non_root.or(base.run_as_non_root) == Some(true),
        privileged: own.privileged == Some(true),
        allow_privilege_escalation: own.allow_privilege_escalation,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_root_filesystem: own.read_only_root_filesystem == Some(true),
        seccomp: own.seccomp_profile.or(base.seccomp_profile).map(|profile| profile.type_),
    }
}

fn limits(resources: Option<&ResourceRequirements>) -> Limits {
    let limit = |name: &str| {
        let amount = resources?.limits.as_ref()?.get(name)?;
        Quantity::parse(&amount.0).ok()
    };
    let positive = |amount: i64| u64::try_from(amount).ok().filter(|amount| *amount > 0);
    Limits {
        memory_bytes: limit("memory").and_then(|amount| positive(amount.value())),
        cpu_millis: limit("cpu").and_then(|amount| positive(amount.milli())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_asked_for_with_expanded_words_and_merged_security() {
        let pod: PodSpec = serde_json::from_value(json!({
            "securityContext": {"runAsUser": 1000, "fsGroup": 7, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "web", "image": "minilab/toolbox", "args": ["echo", "$(WHO)"],
                "securityContext": {"runAsUser": 0, "capabilities": {"drop": ["ALL"]}},
                "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}},
            }],
        }))
        .unwrap();
        let spec = container(&pod, &pod.containers[0], 3, vec![("WHO".into(), "me".into())], Vec::new());
        assert_eq!(spec.args, ["echo", "me"]);
        assert_eq!(spec.log_path, Path::new("web/3.log"));
        assert_eq!((spec.security.run_as_user, spec.security.supplemental_groups), (Some(0), vec![7]));
        assert_eq!(spec.security.seccomp.as_deref(), Some("RuntimeDefault"));
        assert_eq!((spec.limits.cpu_millis, spec.limits.memory_bytes), (Some(250), Some(64 << 20)));
    }
}
