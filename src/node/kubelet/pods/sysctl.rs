//! Which sysctls a pod may set (`pkg/kubelet/sysctl`): those that are safe, and those this kubelet was told to allow.

use k8s_openapi::api::core::v1::Pod;

use super::admit::Rejection;

/// Namespaced, and nobody's but the pod's (`safe_sysctls.go`).
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Judges a pod's sysctls; `unsafe_ones` are names, or patterns that end in `*`.
pub fn admit(pod: &Pod, unsafe_ones: &[String]) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let asked = spec.security_context.iter().flat_map(|security| security.sysctls.iter().flatten());
    for sysctl in asked {
        let name = dotted(&sysctl.name);
        let allowed = SAFE.contains(&&*name)
            || unsafe_ones.iter().any(|one| match one.strip_suffix('*') {
                Some(prefix) => name.starts_with(&dotted(prefix)),
                None => dotted(one) == name,
            });
        let shared = match namespace(&name) {
            "net" if spec.host_network == Some(true) => Some("net"),
            "ipc" if spec.host_ipc == Some(true) => Some("ipc"),
            _ => None,
        };
        let why = match (allowed, shared) {
            (false, _) => format!("{name:?} not allowlisted"),
            (true, Some(namespace)) => format!("{name:?} not allowed with host {namespace} enabled"),
            (true, None) => continue,
        };
        return Err(("SysctlForbidden".into(), format!("forbidden sysctl: {why}")));
    }
    Ok(())
}

fn namespace(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("net.") => "net",
        _ if name.starts_with("fs.mqueue.") => "ipc",
        "kernel.sem" | "kernel.shm_rmid_forced" => "ipc",
        _ if name.starts_with("kernel.msg") || name.starts_with("kernel.shm") => "ipc",
        _ => "",
    }
}

/// A name may be written as a path; then dots are part of its words.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => {
            let swapped = |letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swapped).collect()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, host_network: bool) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [], "hostNetwork": host_network,
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}}))
        .unwrap()
    }

    #[test]
    fn safe_sysctls_pass_and_others_are_forbidden_in_upstreams_words() {
        assert_eq!(admit(&pod("net.ipv4.ip_unprivileged_port_start", false), &[]), Ok(()));
        assert_eq!(admit(&pod("net/ipv4/tcp_rmem", false), &[]), Ok(()));
        let (reason, message) = admit(&pod("kernel.msgmax", false), &[]).unwrap_err();
        assert_eq!(
            (&*reason, &*message),
            ("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
        assert_eq!(admit(&pod("kernel.msgmax", false), &["kernel.msg*".into()]), Ok(()));
        let (_, message) = admit(&pod("net.ipv4.tcp_rmem", true), &[]).unwrap_err();
        assert_eq!(message, "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled");
    }
}
