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
