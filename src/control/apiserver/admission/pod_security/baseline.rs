//! The baseline standard: nothing that is known to lead out of a container.

use serde_json::Value;

use super::spec::{Pod, containers, distinct, list, plural, quoted, setters};
use super::{Check, Fault};
use crate::control::apiserver::lookup::text;

/// In upstream's order.
pub(super) const CHECKS: &[Check] = &[
    Check::new("appArmorProfile", &[(0, app_armor)]),
    Check::new("capabilities_baseline", &[(0, capabilities)]),
    Check::new("hostNamespaces", &[(0, host_namespaces)]),
    Check::new("hostPathVolumes", &[(0, host_paths)]),
    Check::new("hostPorts", &[(0, host_ports)]),
    Check::new("hostProbesAndhostLifecycle", &[(34, hosts_of_probes)]),
    Check::new("privileged", &[(0, privileged)]),
    Check::new("procMount", &[(0, proc_mount), (35, proc_mount_of_host_users)]),
    Check::new("seLinuxOptions", &[(0, se_linux_before_engines), (31, se_linux)]),
    Check::new("seccompProfile_baseline", &[(0, seccomp_annotations), (19, seccomp)]),
    Check::new(
        "sysctls",
        &[
            (0, |pod| sysctls(pod, 0)),
            (27, |pod| sysctls(pod, 27)),
            (29, |pod| sysctls(pod, 29)),
            (32, |pod| sysctls(pod, 32)),
        ],
    ),
    Check::new("windowsHostProcess", &[(0, host_process)]),
];

/// What a container runtime grants by default.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Each with the version since which it is safe.
const SAFE_SYSCTLS: &[(u32, &str)] = &[
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (0, "net.ipv4.ping_group_range"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (32, "net.ipv4.tcp_rmem"),
    (0, "net.ipv4.tcp_syncookies"),
    (32, "net.ipv4.tcp_wmem"),
];

/// The last one is safe since 1.31.
const SE_LINUX_TYPES: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(pod: &Pod<'_>) -> Option<Fault> {
    let bad = |profile: &Value| {
        profile["type"]
            .as_str()
            .filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
            .map(str::to_owned)
    };
    let own = bad(pod.security("appArmorProfile"));
    let of_containers = pod.those(|one| bad(one.security("appArmorProfile")).is_some());
    let mut details = Vec::new();
    if own.is_some() || !of_containers.is_empty() {
        let all = pod.containers();
        let values =
            distinct(all.iter().filter_map(|one| bad(one.security("appArmorProfile"))).chain(own.clone()));
        let who = setters(own.is_some(), &of_containers);
        details.push(format!("{who} must not set AppArmor profile type to {}", quoted(&values)));
    }
    let annotated = pod.annotations.as_object().into_iter().flatten();
    let forbidden = annotated.filter(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        key.starts_with(APP_ARMOR) && !fine
    });
    let annotations: Vec<String> = forbidden.map(|(key, value)| format!("{key:?}={value}")).collect();
    if !annotations.is_empty() {
        let word = plural("annotation", "annotations", annotations.len());
        details.push(format!("{word} {}", annotations.join(", ")));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", details.len());
    (!details.is_empty()).then(|| (reason.to_owned(), details.join(", ")))
}

fn added(container: &super::spec::Container<'_>) -> Vec<String> {
    let added = list(&container.security("capabilities")["add"]).iter();
    added.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The containers that add capabilities beside these, and which.
pub(super) fn adders<'a>(pod: &Pod<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, Vec<String>)> {
    let wrong = |name: &String| !allowed.contains(&name.as_str());
    let bad = pod.those(|one| added(one).iter().any(wrong));
    let all = pod.containers();
    let names = distinct(all.iter().flat_map(added).filter(wrong));
    (!bad.is_empty()).then_some((bad, names))
}

fn capabilities(pod: &Pod<'_>) -> Option<Fault> {
    let (bad, names) = adders(pod, DEFAULT_CAPABILITIES)?;
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&bad),
        quoted(&names)
    );
    Some(("non-default capabilities".into(), detail))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Fault> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    (!set.is_empty()).then(|| ("host namespaces".into(), set.join(", ")))
}

fn host_paths(pod: &Pod<'_>) -> Option<Fault> {
    let bad: Vec<&str> = pod
        .volumes()
        .iter()
        .filter(|one| one["hostPath"].is_object())
        .map(|one| text(one, "/name"))
        .collect();
    let word = plural("volume", "volumes", bad.len());
    (!bad.is_empty()).then(|| ("hostPath volumes".into(), format!("{word} {}", quoted(&bad))))
}

fn host_ports(pod: &Pod<'_>) -> Option<Fault> {
    let of = |fields: &Value| -> Vec<u64> {
        list(&fields["ports"])
            .iter()
            .filter_map(|port| port["hostPort"].as_u64())
            .filter(|port| *port != 0)
            .collect()
    };
    let bad = pod.those(|one| !of(one.fields).is_empty());
    let ports = distinct(pod.containers().iter().flat_map(|one| of(one.fields)).map(|port| port.to_string()));
    (!bad.is_empty()).then(|| {
        let word = plural("hostPort", "hostPorts", ports.len());
        let uses = plural("uses", "use", bad.len());
        (word.to_owned(), format!("{} {uses} {word} {}", containers(&bad), ports.join(", ")))
    })
}

/// A probe of another host would let a pod have the kubelet scan for it.
fn hosts_of_probes(pod: &Pod<'_>) -> Option<Fault> {
    let of = |fields: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &fields[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &fields["lifecycle"][hook]);
        let actions = probes.into_iter().chain(hooks);
        let hosts = actions.flat_map(|action| [&action["httpGet"]["host"], &action["tcpSocket"]["host"]]);
        hosts.filter_map(Value::as_str).filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad = pod.those(|one| !of(one.fields).is_empty());
    let hosts = distinct(pod.containers().iter().flat_map(|one| of(one.fields)));
    (!bad.is_empty()).then(|| {
        let word = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
        let uses = plural("uses", "use", bad.len());
        ("probe or lifecycle host".into(), format!("{} {uses} {word} {}", containers(&bad), quoted(&hosts)))
    })
}

fn privileged(pod: &Pod<'_>) -> Option<Fault> {
    let bad = pod.those(|one| *one.security("privileged") == true);
    let detail = || format!("{} must not set securityContext.privileged=true", containers(&bad));
    (!bad.is_empty()).then(|| ("privileged".into(), detail()))
}

/// A pod with users of its own may see all of its /proc.
fn proc_mount_of_host_users(pod: &Pod<'_>) -> Option<Fault> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Fault> {
    let wrong = |value: &Value| value.as_str().is_some_and(|text| !matches!(text, "" | "Default"));
    let bad = pod.those(|one| wrong(one.security("procMount")));
    let all = pod.containers();
    let values = all.iter().map(|one| one.security("procMount")).filter(|value| wrong(value));
    let values = distinct(values.filter_map(Value::as_str).map(str::to_owned));
    let detail =
        || format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&values));
    (!bad.is_empty()).then(|| ("procMount".into(), detail()))
}

fn se_linux(pod: &Pod<'_>) -> Option<Fault> {
    se_linux_of(pod, SE_LINUX_TYPES)
}

fn se_linux_before_engines(pod: &Pod<'_>) -> Option<Fault> {
    se_linux_of(pod, &SE_LINUX_TYPES[..SE_LINUX_TYPES.len() - 1])
}

fn se_linux_of(pod: &Pod<'_>, types: &[&str]) -> Option<Fault> {
    let field = |options: &Value, name: &str| options[name].as_str().unwrap_or_default().to_owned();
    let wrong_type = |options: &Value| !types.contains(&field(options, "type").as_str());
    let named = |options: &Value, name: &str| !field(options, name).is_empty();
    let wrong = |options: &Value| wrong_type(options) || named(options, "user") || named(options, "role");
    let own = pod.security("seLinuxOptions");
    let bad = pod.those(|one| wrong(one.security("seLinuxOptions")));
    if !wrong(own) && bad.is_empty() {
        return None;
    }
    let all: Vec<&Value> = std::iter::once(own)
        .chain(pod.containers().iter().map(|one| one.security("seLinuxOptions")))
        .collect();
    let wrong_types = distinct(all.iter().filter(|one| wrong_type(one)).map(|one| field(one, "type")));
    let mut said = Vec::new();
    if !wrong_types.is_empty() {
        said.push(format!("{} {}", plural("type", "types", wrong_types.len()), quoted(&wrong_types)));
    }
    for name in ["user", "role"] {
        if all.iter().any(|one| named(one, name)) {
            said.push(format!("{name} may not be set"));
        }
    }
    let who = setters(wrong(own), &bad);
    Some((
        "seLinuxOptions".into(),
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", said.join("; ")),
    ))
}

/// The parts whose seccomp profile is none of the good ones, as upstream's detail says it.
pub(super) fn bad_seccomp(pod: &Pod<'_>) -> Option<String> {
    let kind = |profile: &Value| profile["type"].as_str().unwrap_or_default().to_owned();
    let wrong = |profile: &Value| !matches!(kind(profile).as_str(), "" | "RuntimeDefault" | "Localhost");
    let own = pod.security("seccompProfile");
    let bad = pod.those(|one| wrong(one.security("seccompProfile")));
    if !wrong(own) && bad.is_empty() {
        return None;
    }
    let all = pod.containers();
    let profiles = std::iter::once(own).chain(all.iter().map(|one| one.security("seccompProfile")));
    let values = distinct(profiles.filter(|one| wrong(one)).map(kind));
    let who = setters(wrong(own), &bad);
    Some(format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values)))
}

/// Before 1.19 profiles were annotations.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<Fault> {
    let fine = |value: &str| {
        matches!(value, "" | "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let named = |name: String| {
        let value = pod.annotations[&name].as_str().unwrap_or_default();
        (!fine(value)).then(|| format!("{name}={value:?}"))
    };
    let of_containers = pod.containers().into_iter().map(|one| format!("{SECCOMP_OF_CONTAINER}{}", one.name));
    let bad: Vec<String> =
        std::iter::once(SECCOMP_OF_POD.to_owned()).chain(of_containers).filter_map(named).collect();
    let word = plural("annotation", "annotations", bad.len());
    (!bad.is_empty()).then(|| ("seccompProfile".into(), format!("forbidden {word} {}", bad.join(", "))))
}

fn seccomp(pod: &Pod<'_>) -> Option<Fault> {
    bad_seccomp(pod).map(|detail| ("seccompProfile".into(), detail))
}

fn sysctls(pod: &Pod<'_>, version: u32) -> Option<Fault> {
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(since, known)| *known == name && *since <= version);
    let names = list(pod.security("sysctls")).iter().map(|one| text(one, "/name"));
    let bad: Vec<&str> = names.filter(|name| !safe(name)).collect();
    (!bad.is_empty()).then(|| ("forbidden sysctls".into(), bad.join(", ")))
}

fn host_process(pod: &Pod<'_>) -> Option<Fault> {
    let own = pod.security("windowsOptions")["hostProcess"] == true;
    let bad = pod.those(|one| one.security("windowsOptions")["hostProcess"] == true);
    let detail =
        || format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters(own, &bad));
    (own || !bad.is_empty()).then(|| ("hostProcess".into(), detail()))
}
