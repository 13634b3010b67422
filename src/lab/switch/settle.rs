//! What follows from changed objects before a switch is over: pods of the new template, and the rules that
//! controller-manager gathers into other roles.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::Value;

use super::Step;
use crate::lab::objects;

/// How long it is waited for. Where no node can run a pod it comes to nothing, and the switch is none the worse.
const PATIENCE: Duration = Duration::from_secs(10);
const EVERY_ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const AGGREGATED: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Waits until everything that follows has followed; gives the names of what is still to come.
pub async fn settled(client: &Client, steps: &[Step]) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let changes = steps.iter().flat_map(|step| &step.difference.objects);
    let mut waiting: Vec<_> =
        changes.filter(|change| change.after.as_ref().is_some_and(has_consequences)).collect();
    while !waiting.is_empty() {
        let mut late = Vec::new();
        for change in waiting {
            match &change.after {
                Some(object) if !followed(client, object).await.unwrap_or(false) => late.push(change),
                _ => {}
            }
        }
        waiting = late;
        if Instant::now() >= until {
            break;
        }
        if !waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    waiting.into_iter().map(|change| change.name()).collect()
}

fn has_consequences(object: &Value) -> bool {
    let labels = object["metadata"]["labels"].as_object();
    let gathered = labels.into_iter().flatten().any(|(label, _)| label.starts_with(AGGREGATED));
    object["kind"] == "Deployment" || object["kind"] == "ClusterRole" && gathered
}

async fn followed(client: &Client, object: &Value) -> anyhow::Result<bool> {
    if object["kind"] == "Deployment" {
        return Ok(objects::live(client, object).await?.is_none_or(|live| rolled_out(&live)));
    }
    let request = http::Request::get(EVERY_ROLE).body(Vec::new())?;
    let roles: Value = client.request(request).await?;
    Ok(gathered(roles["items"].as_array().map_or(&[][..], Vec::as_slice)))
}

/// As `kubectl rollout status` judges it.
fn rolled_out(deployment: &Value) -> bool {
    let (status, wanted) = (&deployment["status"], deployment["spec"]["replicas"].as_i64().unwrap_or(1));
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|field| number(field) == wanted)
}

/// Whether every role that is made of others has exactly their rules.
fn gathered(roles: &[Value]) -> bool {
    let rules = |role: &Value| -> BTreeSet<String> {
        role["rules"].as_array().into_iter().flatten().map(Value::to_string).collect()
    };
    let has = |role: &Value, labels: &Value| {
        let wanted = labels.as_object();
        wanted
            .is_some_and(|wanted| wanted.iter().all(|(key, value)| &role["metadata"]["labels"][key] == value))
    };
    roles.iter().all(|role| {
        let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
        let Some([selector]) = selectors.map(Vec::as_slice) else { return true };
        let sources = roles.iter().filter(|other| has(other, &selector["matchLabels"]));
        let wanted: BTreeSet<String> = sources.flat_map(&rules).collect();
        selector["matchLabels"].is_null() || rules(role) == wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_role_made_of_others_is_waited_for_both_ways() {
        let label = "rbac.authorization.k8s.io/aggregate-to-edit";
        let rule = |name: &str| json!({"resources": [name], "verbs": ["get"]});
        let source =
            |rules: Value| json!({"metadata": {"name": "s", "labels": {label: "true"}}, "rules": rules});
        let edit = |rules: Value| {
            let selectors = json!([{"matchLabels": {label: "true"}}]);
            json!({"metadata": {"name": "edit"}, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": rules})
        };
        let (one, both) = (json!([rule("pods")]), json!([rule("pods"), rule("pods/proxy")]));
        assert!(gathered(&[source(one.clone()), edit(one.clone())]));
        assert!(!gathered(&[source(one.clone()), edit(both.clone())]), "the rule is still there");
        assert!(!gathered(&[source(both), edit(one)]), "the rule is not there yet");
    }

    #[test]
    fn a_deployment_has_rolled_out_when_only_pods_of_its_template_run() {
        let deployment = |replicas: u8| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status":
                {"observedGeneration": 2, "updatedReplicas": 1, "replicas": replicas, "availableReplicas": 1}})
        };
        assert!(rolled_out(&deployment(1)) && !rolled_out(&deployment(2)));
    }
}
