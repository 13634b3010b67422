//! Attacks on `apiserver-access`: who may come in at the API server's door, and what for.

use super::question::Question;
use super::scene::{Account, Scene};
use super::{AttackError, Finding, Wishes};
use crate::lab::plan::endpoint;

/// Any pod's token reads a Secret.
pub fn authorization(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let question = marker_secret(scene)?;
    let answer = scene.ask_from_pod(Account::Default, &question)?;
    let gained = "a token that was given no rights read a Secret";
    Ok(Finding::by_answer(&answer, "GET the marker's Secret with a pod's own token", gained, &["403"]))
}

/// Nobody at all, on the wire, reads a Secret.
pub fn anonymous(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let question = marker_secret(scene)?;
    let answer = scene.ask_from_host("wire", None, &question)?;
    let gained = "whoever reaches the port read a Secret without any credential";
    Ok(Finding::by_answer(
        &answer,
        "GET the marker's Secret from wire, no credential",
        gained,
        &["401", "403"],
    ))
}

/// The question for the Secret that only this attack knows of.
pub fn marker_secret(scene: &mut Scene) -> Result<Question, AttackError> {
    let url = format!("{}{}", endpoint(), scene.secret_path()?);
    Ok(Question::get(url).find(&scene.marker_in_secret()))
}
