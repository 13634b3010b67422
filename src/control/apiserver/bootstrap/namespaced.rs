//! The roles and bindings inside kube-system and kube-public.

use serde_json::{Value, json};

use super::{GROUP, Line, READ, base, named, on, rules_json, subjects};

/// A role in a namespace, and who holds it.
struct Local {
    namespace: &'static str,
    name: &'static str,
    /// Its binding's name, if that is another.
    binding: &'static str,
    rules: &'static [Line],
    subjects: &'static str,
}

const LEASES: Line = on("create get list update watch", "coordination.k8s.io", "leases");
const CANDIDATES: Line = on("create get list update watch", "coordination.k8s.io", "leasecandidates");

const LOCAL: &[Local] = &[
    Local {
        namespace: "kube-system",
        name: "extension-apiserver-authentication-reader",
        binding: "system::extension-apiserver-authentication-reader",
        rules: &[named(READ, "core", "configmaps", "extension-apiserver-authentication")],
        subjects: "user:system:kube-controller-manager user:system:kube-scheduler",
    },
    Local {
        namespace: "kube-system",
        name: "system:controller:bootstrap-signer",
        binding: "",
        rules: &[on(READ, "core", "secrets")],
        subjects: "account:kube-system:bootstrap-signer",
    },
    Local {
        namespace: "kube-system",
        name: "system:controller:cloud-provider",
        binding: "",
        rules: &[on("create get list watch", "core", "configmaps")],
        subjects: "account:kube-system:cloud-provider",
    },
    Local {
        namespace: "kube-system",
        name: "system:controller:token-cleaner",
        binding: "",
        rules: &[on("delete get list watch", "core", "secrets"), super::EVENTS],
        subjects: "account:kube-system:token-cleaner",
    },
    Local {
        namespace: "kube-system",
        name: "system::leader-locking-kube-controller-manager",
        binding: "",
        rules: &[LEASES, CANDIDATES],
        subjects: "user:system:kube-controller-manager account:kube-system:kube-controller-manager \
                   account:kube-system:leader-election-controller",
    },
    Local {
        namespace: "kube-system",
        name: "system::leader-locking-kube-scheduler",
        binding: "",
        rules: &[LEASES, CANDIDATES],
        subjects: "user:system:kube-scheduler account:kube-system:kube-scheduler",
    },
    Local {
        namespace: "kube-public",
        name: "system:controller:bootstrap-signer",
        binding: "",
        rules: &[
            on(READ, "core", "configmaps"),
            named("update", "core", "configmaps", "cluster-info"),
            super::EVENTS,
        ],
        subjects: "account:kube-system:bootstrap-signer",
    },
];

pub(super) fn objects() -> Vec<(&'static str, Value)> {
    let mut list = Vec::new();
    for local in LOCAL {
        let mut role = base("Role", local.name);
        role["metadata"]["namespace"] = json!(local.namespace);
        role["rules"] = Value::Array(rules_json(local.rules));
        list.push(("roles", role));
        let name = if local.binding.is_empty() { local.name } else { local.binding };
        let mut binding = base("RoleBinding", name);
        binding["metadata"]["namespace"] = json!(local.namespace);
        binding["subjects"] = Value::Array(subjects(local.subjects));
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "Role", "name": local.name});
        list.push(("rolebindings", binding));
    }
    list
}
