//! In which order groups are found when a name does not say which is meant (`DefaultGenericAPIServicePriorities`,
//! `apiVersionPriorities`).

/// A group, its priority, and those of its versions where one is not 15.
type Group = (&'static str, i64, &'static [(&'static str, i64)]);

const GROUPS: [Group; 21] = [
    ("", 18000, &[("v1", 1)]),
    ("apiregistration.k8s.io", 17900, &[]),
    ("apps", 17800, &[]),
    ("events.k8s.io", 17750, &[]),
    ("authentication.k8s.io", 17700, &[]),
    ("authorization.k8s.io", 17600, &[]),
    ("autoscaling", 17500, &[("v2", 30)]),
    ("batch", 17400, &[]),
    ("certificates.k8s.io", 17300, &[]),
    ("networking.k8s.io", 17200, &[]),
    ("policy", 17100, &[]),
    ("rbac.authorization.k8s.io", 17000, &[]),
    ("storage.k8s.io", 16800, &[]),
    ("admissionregistration.k8s.io", 16700, &[]),
    ("apiextensions.k8s.io", 16700, &[]),
    ("scheduling.k8s.io", 16600, &[]),
    ("coordination.k8s.io", 16500, &[]),
    ("node.k8s.io", 16300, &[]),
    ("discovery.k8s.io", 16200, &[]),
    ("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21)]),
    // metrics-server's own manifest says so.
    ("metrics.k8s.io", 100, &[("v1beta1", 100)]),
];
/// What users' own groups have (`crdregistration`).
const CUSTOM: (i64, i64) = (1000, 100);

/// The priority of a group and of a version in it.
pub fn of(group: &str, version: &str) -> (i64, i64) {
    let Some((_, own, versions)) = GROUPS.iter().find(|(name, ..)| *name == group) else { return CUSTOM };
    let found = versions.iter().find(|(name, _)| *name == version);
    (*own, found.map_or(15, |(_, priority)| *priority))
}
