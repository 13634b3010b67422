//! The restricted standard: what a hardened pod has, beside all that baseline asks.

use serde_json::Value;

use super::baseline::{adders, bad_seccomp, proc_mount};
use super::spec::{Pod, containers, distinct, list, plural, quoted, setters};
use super::{Check, Fault, Test};
use crate::control::apiserver::lookup::text;

/// In upstream's order. Until 1.25 they were asked of pods for Windows too.
pub(super) const CHECKS: &[Check] = &[
    Check::new("allowPrivilegeEscalation", &[(8, escalation), (25, |pod| on_linux(pod, escalation))]),
    Check::new("capabilities_restricted", &[(22, capabilities), (25, |pod| on_linux(pod, capabilities))])
        .instead_of(&["capabilities_baseline"]),
    Check::new("procMount_restricted", &[(35, proc_mount)]).instead_of(&["procMount"]),
    Check::new("restrictedVolumes", &[(0, volumes)]).instead_of(&["hostPathVolumes"]),
    Check::new("runAsNonRoot", &[(0, non_root), (35, |pod| with_host_users(pod, non_root))]),
    Check::new("runAsUser", &[(23, user), (35, |pod| with_host_users(pod, user))]),
    Check::new("seccompProfile_restricted", &[(19, seccomp), (25, |pod| on_linux(pod, seccomp))])
        .instead_of(&["seccompProfile_baseline"]),
];

fn on_linux(pod: &Pod<'_>, test: Test) -> Option<Fault> {
    if pod.is_windows() { None } else { test(pod) }
}

/// Root of a pod with users of its own is nobody on the node (KEP-127).
fn with_host_users(pod: &Pod<'_>, test: Test) -> Option<Fault> {
    if pod.has_own_users() { None } else { test(pod) }
}

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn escalation(pod: &Pod<'_>) -> Option<Fault> {
    let bad = pod.those(|one| *one.security("allowPrivilegeEscalation") != false);
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    (!bad.is_empty()).then(|| ("allowPrivilegeEscalation != false".into(), detail()))
}

fn capabilities(pod: &Pod<'_>) -> Option<Fault> {
    let drops_all = |capabilities: &Value| list(&capabilities["drop"]).iter().any(|name| name == "ALL");
    let keeping = pod.those(|one| !drops_all(one.security("capabilities")));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if let Some((bad, names)) = adders(pod, &["NET_BIND_SERVICE"]) {
        let names = quoted(&names);
        details.push(format!(
            "{} must not include {names} in securityContext.capabilities.add",
            containers(&bad)
        ));
    }
    (!details.is_empty()).then(|| ("unrestricted capabilities".into(), details.join("; ")))
}

fn volumes(pod: &Pod<'_>) -> Option<Fault> {
    let kind = |volume: &Value| -> Option<String> {
        let fields = volume.as_object()?;
        let known = |name: &&String| VOLUMES.contains(&name.as_str());
        let kinds: Vec<&String> = fields.keys().filter(|name| *name != "name").collect();
        if kinds.iter().any(known) {
            return None;
        }
        Some(kinds.first().map_or_else(|| "unknown".to_owned(), |name| (*name).clone()))
    };
    let bad: Vec<&str> =
        pod.volumes().iter().filter(|one| kind(one).is_some()).map(|one| text(one, "/name")).collect();
    let kinds = distinct(pod.volumes().iter().filter_map(kind));
    (!bad.is_empty()).then(|| {
        let (volumes, uses) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
        let types = plural("restricted volume type", "restricted volume types", kinds.len());
        let detail = format!("{volumes} {} {uses} {types} {}", quoted(&bad), quoted(&kinds));
        ("restricted volume types".into(), detail)
    })
}

fn non_root(pod: &Pod<'_>) -> Option<Fault> {
    let own = pod.security("runAsNonRoot");
    let against = pod.those(|one| *one.security("runAsNonRoot") == false);
    let silent = pod.those(|one| one.security("runAsNonRoot").is_null());
    let fault = |detail| Some(("runAsNonRoot != true".to_owned(), detail));
    let pod_is_bad = *own == false;
    if pod_is_bad || !against.is_empty() {
        return fault(format!(
            "{} must not set securityContext.runAsNonRoot=false",
            setters(pod_is_bad, &against)
        ));
    }
    match *own == true || silent.is_empty() {
        true => None,
        false => fault(format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent))),
    }
}

fn user(pod: &Pod<'_>) -> Option<Fault> {
    let own = *pod.security("runAsUser") == 0;
    let bad = pod.those(|one| *one.security("runAsUser") == 0);
    let detail = || format!("{} must not set runAsUser=0", setters(own, &bad));
    (own || !bad.is_empty()).then(|| ("runAsUser=0".into(), detail()))
}

fn seccomp(pod: &Pod<'_>) -> Option<Fault> {
    let fault = |detail| Some(("seccompProfile".to_owned(), detail));
    if let Some(detail) = bad_seccomp(pod) {
        return fault(detail);
    }
    let set = |profile: &Value| profile["type"].is_string();
    let silent = pod.those(|one| !set(one.security("seccompProfile")));
    match set(pod.security("seccompProfile")) || silent.is_empty() {
        true => None,
        false => fault(format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&silent)
        )),
    }
}
