//! Amounts: what a pod asks for, what a node has (`noderesources`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::api::quantity::Quantity;

/// What an empty request counts as when nodes are compared, never when they are filtered.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts by resource: `cpu` in thousandths, everything else in units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amounts(pub BTreeMap<String, i64>);

impl Amounts {
    fn read(list: Option<&BTreeMap<String, Text>>) -> Self {
        let amount = |(name, text): (&String, &Text)| {
            let quantity = Quantity::parse(&text.0).ok()?;
            Some((name.clone(), if name == "cpu" { quantity.milli() } else { quantity.value() }))
        };
        Self(list.into_iter().flatten().filter_map(amount).collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= amount;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}

/// What a pod asks for: its containers together, or its hungriest init container, and the overhead.
pub fn requested(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let of = |container: &Container| {
        Amounts::read(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    };
    let mut sum = Amounts::default();
    spec.containers.iter().for_each(|container| sum.add(&of(container)));
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&now);
            sidecars.add(&now);
            now = Amounts::default();
        }
        now.add(&sidecars);
        peak.raise_to(&now);
    }
    sum.raise_to(&peak);
    // What the pod says for itself as a whole wins (pod-level resources).
    let whole = Amounts::read(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    sum.0.extend(whole.0);
    sum.add(&Amounts::read(spec.overhead.as_ref()));
    sum
}

/// As `requested`, where every container counts for something: for spreading the unspecified ones.
pub fn weighed(pod: &Pod) -> Amounts {
    let mut amounts = requested(pod);
    let containers = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let containers = i64::try_from(containers).unwrap_or(i64::MAX);
    for (name, default) in [("cpu", DEFAULT_CPU), ("memory", DEFAULT_MEMORY)] {
        let amount = amounts.0.entry(name.into()).or_default();
        if *amount == 0 {
            *amount = default * containers;
        }
    }
    amounts
}

/// What a node has for pods.
pub fn allocatable(node: &Node) -> Amounts {
    Amounts::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_with_the_rest() {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "resources": asks("100m")}, {"name": "b", "resources": asks("0.2")}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": asks("50m")},
                {"name": "init", "resources": asks("1")},
            ],
        }}))
        .unwrap();
        assert_eq!(requested(&pod).get("cpu"), 1050);
    }

    #[test]
    fn a_pod_that_asks_for_nothing_still_weighs_something() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}]}})).unwrap();
        assert_eq!(requested(&pod).get("cpu"), 0);
        assert_eq!((weighed(&pod).get("cpu"), weighed(&pod).get("memory")), (100, 200 << 20));
    }
}
