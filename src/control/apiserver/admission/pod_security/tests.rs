//! The standards' texts on real pods.

use serde_json::json;

use super::*;

fn said(level: Level, spec: Value) -> String {
    let policy = Policy { level, version: "latest".into() };
    policy.violations(&json!({"metadata": {}, "spec": spec})).unwrap_or_default()
}

#[test]
fn a_plain_pod_is_fine_for_baseline_and_has_four_faults_for_restricted() {
    let plain = json!({"containers": [{"name": "web", "image": "nginx"}]});
    assert_eq!(said(Level::Baseline, plain.clone()), "");
    assert_eq!(
        said(Level::Restricted, plain),
        "allowPrivilegeEscalation != false (container \"web\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"web\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"web\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"web\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn a_hardened_pod_passes() {
    let container = json!({
        "name": "web",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
    });
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "t", "projected": {}}, {"name": "e", "emptyDir": {}}],
    });
    assert_eq!(said(Level::Restricted, spec), "");
}

#[test]
fn what_leads_out_is_named_by_part() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"sysctls": [{"name": "kernel.msgmax"}], "seccompProfile": {"type": "Unconfined"}},
        "containers": [
            {"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}},
            {"name": "b", "ports": [{"hostPort": 80}, {"hostPort": 81}], "securityContext": {"privileged": true}},
        ],
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
    });
    assert_eq!(
        said(Level::Baseline, spec.clone()),
        "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in \
         securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes \
         (volume \"root\"), hostPorts (container \"b\" uses hostPorts 80, 81), privileged (containers \"a\", \"b\" \
         must not set securityContext.privileged=true), seccompProfile (pod must not set \
         securityContext.seccompProfile.type to \"Unconfined\"), forbidden sysctls (kernel.msgmax)"
    );
    assert!(
        said(Level::Restricted, spec)
            .contains("restricted volume types (volume \"root\" uses restricted volume type \"hostPath\")")
    );
}

#[test]
fn root_is_named_and_labels_must_make_sense() {
    let spec =
        json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": false}, "containers": [{"name": "c"}]});
    let text = said(Level::Restricted, spec);
    assert!(
        text.contains("runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)"),
        "{text}"
    );
    assert!(text.contains("runAsUser=0 (pod must not set runAsUser=0)"), "{text}");
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "1"}}});
    let fields: Vec<String> = faults(&labels).iter().map(ToString::to_string).collect();
    assert_eq!(fields.len(), 2, "{fields:?}");
    assert!(fields[0].contains("must be one of privileged, baseline, restricted"));
}

#[test]
fn a_pinned_version_is_judged_by_its_own_checks() {
    let at = |level, version: &str, spec: &Value| {
        let policy = Policy { level, version: version.into() };
        policy.violations(&json!({"metadata": {}, "spec": spec})).unwrap_or_default()
    };
    let probe = json!({"containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"host": "192.0.2.1"}}}]});
    assert_eq!(at(Level::Baseline, "v1.33", &probe), "");
    assert!(at(Level::Baseline, "v1.34", &probe).contains("probe or lifecycle host"));
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}, "containers": []});
    assert_eq!(at(Level::Baseline, "v1.31", &sysctl), "forbidden sysctls (net.ipv4.tcp_rmem)");
    assert_eq!(at(Level::Baseline, "v1.99", &sysctl), "");
    let plain = json!({"containers": [{"name": "c"}]});
    assert_eq!(
        at(Level::Restricted, "v1.7", &plain),
        "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
    );
    assert!(!is_version("v1.01") && is_version("v1.0") && is_version("v1.10"));
}

#[test]
fn root_of_a_pod_with_its_own_users_is_nobody() {
    let at = |level, version: &str, own: bool| {
        let spec = json!({"hostUsers": !own, "securityContext": {"runAsUser": 0},
            "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]});
        let policy = Policy { level, version: version.into() };
        policy.violations(&json!({"metadata": {}, "spec": spec})).unwrap_or_default()
    };
    assert_eq!(at(Level::Baseline, "latest", true), "");
    for (version, own) in [("latest", false), ("v1.34", true)] {
        assert!(at(Level::Baseline, version, own).contains("procMount"), "{version}");
        assert!(at(Level::Restricted, version, own).contains("runAsUser=0"), "{version}");
    }
    let strict = at(Level::Restricted, "latest", true);
    assert!(!strict.contains("runAsUser") && !strict.contains("runAsNonRoot"), "{strict}");
    assert!(strict.contains("procMount"), "{strict}");
}
