//! Attacks on `apiserver-proxy`: what the API server fetches for whoever may ask it to.

use super::components_to_apiserver::words;
use super::question::Question;
use super::scene::{Account, Scene};
use super::{AttackError, Finding, Verdict, Wishes, answered};
use crate::lab::plan::endpoint;

/// Somebody with the role `edit` reads a page of a pod through the API server's own network.
pub fn grants(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let namespace = scene.namespace()?;
    let page = words(&["attacker", "page", "--port", "8080", &scene.marker.clone()]);
    let pod = scene.pod(None, Account::Nobody, &page)?;
    let name = pod.metadata.name.unwrap_or_default();
    scene.grant_edit(&namespace)?;
    let token = scene.token(&namespace, "default", None)?;
    let url = format!("{}/api/v1/namespaces/{namespace}/pods", endpoint());
    // That the role works at all is part of the proof.
    let listed = scene.ask_from_host("wire", Some(&token), &Question::get(&url))?;
    let asked = format!("{url}/{name}:8080/proxy/");
    let question = Question::get(&asked).find(&scene.marker.clone());
    let answer = scene.ask_until_served("wire", &token, &question)?;
    let gained = "whoever may edit a namespace reads its pods' ports from the control plane's network";
    let mut finding = Finding::by_answer(
        &answer,
        &format!("GET {asked} with the role edit"),
        gained,
        &["cannot get resource \\\"pods/proxy\\\""],
    );
    finding.evidence.push(answered("GET the namespace's pods with the same token", &listed));
    if finding.verdict == Verdict::Defeated && listed.status != Some(200) {
        return Ok(Finding::inconclusive("the role edit does not work at all", finding.evidence));
    }
    Ok(finding)
}
