//! Pods that want to be near others, or far from them (the InterPodAffinity plugin).
//!
//! A `namespaceSelector` sees of a namespace only the label every one has, its name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};

use super::cluster::Candidate;
use super::filter::Refusal;

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub fn labels(pod: &Pod) -> BTreeMap<String, String> {
    pod.metadata.labels.clone().unwrap_or_default()
}

/// Where a node is, by the key of a topology.
pub fn domain<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// A selector with the pod's own values for some keys.
pub fn with_own_values(
    selector: Option<&LabelSelector>,
    keys: Option<&[String]>,
    pod: &Pod,
) -> Option<Selector> {
    let mut selector = selector?.clone();
    let own = labels(pod);
    for key in keys.unwrap_or_default() {
        if let Some(value) = own.get(key) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: "In".into(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    Selector::try_from(selector).ok()
}

/// Whether `other` is one of those a term of `pod` is about.
fn is_meant(term: &PodAffinityTerm, pod: &Pod, other: &Pod) -> bool {
    let namespace = other.metadata.namespace.clone().unwrap_or_default();
    let named = term.namespaces.as_deref().unwrap_or_default();
    let by_labels = term.namespace_selector.as_ref().is_some_and(|selector| {
        let known = BTreeMap::from([(NAMESPACE_NAME.to_owned(), namespace.clone())]);
        Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&known))
    });
    let own = named.is_empty()
        && term.namespace_selector.is_none()
        && pod.metadata.namespace == other.metadata.namespace;
    let selector = with_own_values(term.label_selector.as_ref(), term.match_label_keys.as_deref(), pod);
    (own || by_labels || named.contains(&namespace))
        && selector.is_some_and(|selector| selector.matches(&labels(other)))
}

#[derive(Clone, Copy)]
enum Wish {
    Near,
    Far,
}

fn required(pod: &Pod, wish: Wish) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let terms = affinity.and_then(|affinity| match wish {
        Wish::Near => {
            affinity.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref()
        }
        Wish::Far => affinity
            .pod_anti_affinity
            .as_ref()?
            .required_during_scheduling_ignored_during_execution
            .as_deref(),
    });
    terms.unwrap_or_default()
}

fn preferred(pod: &Pod, wish: Wish) -> &[WeightedPodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let terms = affinity.and_then(|affinity| match wish {
        Wish::Near => {
            affinity.pod_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_deref()
        }
        Wish::Far => affinity
            .pod_anti_affinity
            .as_ref()?
            .preferred_during_scheduling_ignored_during_execution
            .as_deref(),
    });
    terms.unwrap_or_default()
}

/// How many pods of a term are where this node is.
fn near(term: &PodAffinityTerm, pod: &Pod, node: &Node, all: &[Candidate]) -> usize {
    let Some(here) = domain(node, &term.topology_key) else { return 0 };
    let same = all.iter().filter(|other| domain(&other.node, &term.topology_key) == Some(here));
    same.flat_map(|other| &other.load.here).filter(|other| is_meant(term, pod, other)).count()
}

/// Whether the neighbours allow a pod on a node.
pub fn check(pod: &Pod, candidate: &Candidate, all: &[Candidate]) -> Result<(), Refusal> {
    let node = &candidate.node;
    let near_enough = |term: &PodAffinityTerm| {
        if domain(node, &term.topology_key).is_none() {
            return false;
        }
        // The first of a group that wants to be together has to begin somewhere.
        let nobody = || !all.iter().flat_map(|one| &one.load.here).any(|other| is_meant(term, pod, other));
        near(term, pod, node, all) > 0 || (is_meant(term, pod, pod) && nobody())
    };
    if !required(pod, Wish::Near).iter().all(near_enough) {
        return Err(Refusal::for_good("node(s) didn't match pod affinity rules"));
    }
    if required(pod, Wish::Far).iter().any(|term| near(term, pod, node, all) > 0) {
        return Err(Refusal::for_now(vec!["node(s) didn't match pod anti-affinity rules".into()]));
    }
    let objects = |other: &Pod, at: &Node| {
        required(other, Wish::Far).iter().any(|term| {
            let here = domain(node, &term.topology_key);
            here.is_some() && here == domain(at, &term.topology_key) && is_meant(term, other, pod)
        })
    };
    if all.iter().any(|other| other.load.here.iter().any(|one| objects(one, &other.node))) {
        return Err(Refusal::for_now(vec![
            "node(s) didn't satisfy existing pods anti-affinity rules".into(),
        ]));
    }
    Ok(())
}

/// What the pod's preferences make of a node; may be negative.
#[expect(clippy::cast_precision_loss, reason = "a count of pods is small")]
pub fn preference(pod: &Pod, candidate: &Candidate, all: &[Candidate]) -> f64 {
    let sum = |wish: Wish| -> f64 {
        let terms = preferred(pod, wish).iter();
        terms
            .map(|one| f64::from(one.weight) * near(&one.pod_affinity_term, pod, &candidate.node, all) as f64)
            .sum()
    };
    sum(Wish::Near) - sum(Wish::Far)
}
