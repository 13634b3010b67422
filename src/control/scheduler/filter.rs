//! Which nodes can take a pod, and the words for those that cannot (upstream's filter plugins, in order).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint};

use super::cluster::{Candidate, host_ports};
use super::resources::{Amounts, requested};
use crate::api::taints::tolerates;

/// Why a node is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reasons: Vec<String>,
    /// Whether evicting pods from it could change that.
    pub resolvable: bool,
}

impl Refusal {
    pub fn for_good(reason: &str) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }

    pub fn for_now(reasons: Vec<String>) -> Self {
        Self { reasons, resolvable: true }
    }
}

/// Whether this node can take this pod; the first plugin that objects speaks.
pub fn check(pod: &Pod, candidate: &Candidate) -> Result<(), Refusal> {
    let node = &*candidate.node;
    unschedulable(pod, node)?;
    node_name(pod, node)?;
    taints(pod, node)?;
    affinity(pod, node)?;
    ports(pod, candidate)?;
    fit(pod, candidate)
}

fn tolerated(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn unschedulable(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        value: None,
        time_added: None,
    };
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    if cordoned && !tolerated(pod, &taint) {
        return Err(Refusal::for_good("node(s) were unschedulable"));
    }
    Ok(())
}

fn node_name(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let asked = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
    if asked.is_some_and(|asked| node.metadata.name.as_deref() != Some(asked)) {
        return Err(Refusal::for_good("node(s) didn't match the requested node name"));
    }
    Ok(())
}

pub fn taints(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let all = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    match all.iter().filter(hard).find(|taint| !tolerated(pod, taint)) {
        // Which one is in the log and in `describe node`; the text names none since 1.35.
        Some(_) => Err(Refusal::for_good("node(s) had untolerated taint(s)")),
        None => Ok(()),
    }
}

pub fn affinity(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let refused = || Refusal::for_good("node(s) didn't match Pod's node affinity/selector");
    let Some(spec) = &pod.spec else { return Ok(()) };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let allowed = required
        .is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term_matches(term, node)));
    if selected && allowed { Ok(()) } else { Err(refused()) }
}

/// Whether a node fits one term of a node selector; an empty term fits nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let fields =
        BTreeMap::from([("metadata.name".to_owned(), node.metadata.name.clone().unwrap_or_default())]);
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let match_fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !match_fields.is_empty())
        && expressions.iter().all(|one| requirement_matches(one, &labels))
        && match_fields.iter().all(|one| requirement_matches(one, &fields))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let label = labels.get(&requirement.key);
    let compare = |holds: fn(i64, i64) -> bool| {
        let (Some(label), [bound]) = (label, values) else { return false };
        matches!((label.parse(), bound.parse()), (Ok(label), Ok(bound)) if holds(label, bound))
    };
    match requirement.operator.as_str() {
        "In" => label.is_some_and(|label| values.contains(label)),
        "NotIn" => label.is_none_or(|label| !values.contains(label)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => compare(|label, bound| label > bound),
        "Lt" => compare(|label, bound| label < bound),
        _ => false,
    }
}

fn ports(pod: &Pod, candidate: &Candidate) -> Result<(), Refusal> {
    let taken = |wanted: &(String, String, i32)| {
        candidate.load.ports.iter().any(|(protocol, address, port)| {
            let meets = *address == wanted.1 || address == "0.0.0.0" || wanted.1 == "0.0.0.0";
            *protocol == wanted.0 && *port == wanted.2 && meets
        })
    };
    if host_ports(pod).iter().any(taken) {
        return Err(Refusal::for_now(vec![
            "node(s) didn't have free ports for the requested pod ports".into(),
        ]));
    }
    Ok(())
}

fn fit(pod: &Pod, candidate: &Candidate) -> Result<(), Refusal> {
    let has = &candidate.allocatable;
    let mut refusal = Refusal::for_now(Vec::new());
    let room = has.get("pods");
    if candidate.load.pods + 1 > room {
        refusal.reasons.push("Too many pods".into());
        refusal.resolvable &= room > 0;
    }
    let Amounts(wanted) = requested(pod);
    for (name, amount) in wanted.iter().filter(|(_, amount)| **amount > 0) {
        if *amount > has.get(name) - candidate.load.requested.get(name) {
            refusal.reasons.push(format!("Insufficient {name}"));
            // No eviction makes a node larger.
            refusal.resolvable &= *amount <= has.get(name);
        }
    }
    if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
}

/// What `FailedScheduling` says of these refusals, one a node; when room is being made, that much.
pub fn explain(refusals: &[Refusal], room_is_made: bool) -> String {
    if refusals.is_empty() {
        return "no nodes available to schedule pods".into();
    }
    let total = refusals.len();
    let reasons = tally(refusals.iter().flat_map(|refusal| refusal.reasons.iter().map(String::as_str)));
    if room_is_made {
        return format!("0/{total} nodes are available: {reasons}.");
    }
    let preemption = tally(refusals.iter().map(|refusal| match refusal.resolvable {
        true => "No preemption victims found for incoming pod",
        false => "Preemption is not helpful for scheduling",
    }));
    format!(
        "0/{total} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{total} nodes are available: {preemption}."
    )
}

/// What it says when the reason is the pod's, whatever the node.
pub fn explain_for_all(total: usize, why: &str) -> String {
    format!(
        "0/{total} nodes are available: {why}. no new claims to deallocate, preemption: 0/{total} nodes are \
         available: {total} Preemption is not helpful for scheduling."
    )
}

/// `1 this, 2 that`, in upstream's order: sorted as text.
fn tally<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut texts: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::scheduler::cluster::Load;
    use crate::control::scheduler::resources::allocatable;
    use serde_json::{Value, json};
    use std::rc::Rc;

    fn candidate(node: Value) -> Candidate {
        let mut node: Node = serde_json::from_value(node).unwrap();
        let status = node.status.get_or_insert_default();
        status.allocatable =
            serde_json::from_value(json!({"cpu": "2", "memory": "1Gi", "pods": "2"})).unwrap();
        Candidate { allocatable: allocatable(&node), node: Rc::new(node), load: Load::default() }
    }

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"spec": {"containers": []}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    fn reason(pod: &Pod, candidate: &Candidate) -> String {
        check(pod, candidate).err().map(|refusal| refusal.reasons.join("; ")).unwrap_or_default()
    }

    fn asks(cpu: &str, memory: &str) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    #[test]
    fn taints_keep_out_whom_they_should() {
        let tainted = candidate(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}));
        assert_eq!(reason(&pod(json!({})), &tainted), "node(s) had untolerated taint(s)");
        let tolerant = pod(json!({"tolerations": [{"key": "a", "operator": "Exists"}]}));
        assert_eq!(check(&tolerant, &tainted), Ok(()));
        let soft = candidate(json!({"spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}}));
        assert_eq!(check(&pod(json!({})), &soft), Ok(()));
        let cordoned = candidate(json!({"spec": {"unschedulable": true}}));
        assert_eq!(reason(&pod(json!({})), &cordoned), "node(s) were unschedulable");
    }

    #[test]
    fn selectors_and_affinity_choose_by_label_and_name() {
        let node = candidate(json!({"metadata": {"name": "node-1", "labels": {"disk": "ssd", "size": "5"}}}));
        let refused = "node(s) didn't match Pod's node affinity/selector";
        assert_eq!(check(&pod(json!({"nodeSelector": {"disk": "ssd"}})), &node), Ok(()));
        assert_eq!(reason(&pod(json!({"nodeSelector": {"disk": "hdd"}})), &node), refused);
        let wants = |term: Value| {
            pod(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}}))
        };
        let field = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        assert_eq!(check(&wants(field("node-1")), &node), Ok(()));
        assert_eq!(reason(&wants(field("node-2")), &node), refused);
        let larger = json!({"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["4"]}]});
        assert_eq!(check(&wants(larger), &node), Ok(()));
        assert_eq!(reason(&wants(json!({})), &node), refused);
    }

    #[test]
    fn a_full_node_says_of_what() {
        let mut node = candidate(json!({}));
        assert_eq!(check(&asks("2", "1Gi"), &node), Ok(()));
        let too_large = check(&asks("3", "1Gi"), &node).unwrap_err();
        assert_eq!((too_large.reasons, too_large.resolvable), (vec!["Insufficient cpu".to_owned()], false));
        node.load.requested = requested(&asks("1500m", "0"));
        node.load.pods = 2;
        let full = check(&asks("1", "2Gi"), &node).unwrap_err();
        assert_eq!(full.reasons, ["Too many pods", "Insufficient cpu", "Insufficient memory"]);
        node.load.pods = 1;
        assert!(check(&asks("1", "0"), &node).unwrap_err().resolvable);
    }

    #[test]
    fn host_ports_are_given_once() {
        let wants =
            pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}));
        let mut node = candidate(json!({}));
        assert_eq!(check(&wants, &node), Ok(()));
        node.load.ports = host_ports(&wants);
        assert_eq!(reason(&wants, &node), "node(s) didn't have free ports for the requested pod ports");
    }

    #[test]
    fn the_explanation_reads_as_upstreams() {
        let tainted = Refusal::for_good("node(s) had untolerated taint(s)");
        let full = Refusal::for_now(vec!["Insufficient cpu".into()]);
        assert_eq!(
            explain(&[tainted.clone(), tainted.clone()], false),
            "0/2 nodes are available: 2 node(s) had untolerated taint(s). no new claims to deallocate, \
             preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(
            explain(&[tainted, full.clone(), full], false),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to \
             deallocate, preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, \
             2 No preemption victims found for incoming pod."
        );
    }
}
