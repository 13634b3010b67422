//! Attacks on `node-to-apiserver` by whoever is root on node-1 and uses what lies there.

use serde_json::json;

use super::apiserver_access::marker_secret;
use super::components_to_apiserver::words;
use super::question::Question;
use super::scene::{Account, Node, Scene};
use super::{AttackError, Finding, Wishes};
use crate::client::Kubeconfig;
use crate::lab::plan::endpoint;

const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// node-1's file reads the Secret of a pod on node-2.
pub fn credential(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let (node, sibling) = two(scene)?;
    let question = marker_secret(scene)?;
    let sleep = words(&["sleep", "600"]);
    scene.pod(Some(&sibling.name), Account::Nobody, &sleep)?;
    let answer = ask(scene, &node, question)?;
    let gained = "one node's file opens what belongs to another";
    let asked = format!("GET the marker's Secret with the credential of {}'s {KUBECONFIG}", node.name);
    Ok(Finding::by_answer(&answer, &asked, gained, &["no relationship found between node"]))
}

/// node-1's file taints node-2.
pub fn restriction(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let (node, sibling) = two(scene)?;
    let path = format!("/api/v1/nodes/{}", sibling.name);
    // A patch replaces the whole list: what is there stays in it.
    let there = scene.api_json(&path).map(|node| node["spec"]["taints"].clone()).unwrap_or_default();
    let mut taint = there.as_array().cloned().unwrap_or_default();
    taint.push(json!({"key": format!("minilab.dev/{}", scene.marker), "effect": "PreferNoSchedule"}));
    let kind = "application/merge-patch+json";
    let question = Question::get(format!("{}{path}", endpoint()))
        .method("PATCH")
        .json(kind, &json!({"spec": {"taints": taint}}))
        .find(&scene.marker.clone());
    let answer = ask(scene, &node, question);
    let seen = scene.api_get(&path);
    if seen.found {
        scene.api_patch(&path, &json!({"spec": {"taints": there}}))?;
    }
    let mut answer = answer?;
    // A refusal may quote the taint: it counts when it is seen on the node.
    answer.found = seen.found;
    let gained = "one node's file changed another node's object";
    let asked = format!("PATCH {path} with the credential of {}'s {KUBECONFIG}", node.name);
    let texts = ["is not allowed to modify node", "cannot patch resource"];
    Ok(Finding::by_answer(&answer, &asked, gained, &texts))
}

/// Where the attacker stands, and whom it is after.
pub fn two(scene: &Scene) -> Result<(Node, Node), AttackError> {
    match &scene.nodes()[..] {
        [node, sibling, ..] => Ok((node.clone(), sibling.clone())),
        _ => Err(AttackError::Scene("this attack needs two nodes: `minilab node add`".into())),
    }
}

/// Asks with whatever a node's kubeconfig holds: a token, or a certificate and its key.
pub fn ask(scene: &Scene, node: &Node, question: Question) -> Result<super::role::Answer, AttackError> {
    let text = scene.output(&node.name, words(&["cat", KUBECONFIG]), Vec::new())?;
    let file: Kubeconfig = serde_yaml_ng::from_str(&text)
        .map_err(|error| AttackError::Scene(format!("{KUBECONFIG} of {}: {error}", node.name)))?;
    let user = file.users.into_iter().next().map(|user| user.user).unwrap_or_default();
    let question = match &user.client_certificate {
        Some(path) => question.identity(path),
        None => question,
    };
    scene.ask_from_host(&node.name, user.token.as_deref(), &question)
}
