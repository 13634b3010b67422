//! `pods/eviction`: a deletion that asks the pod's disruption budget first (`kubectl drain`).

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::{Value, json};

use crate::api::selector::LabelSelector;
use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::delete::{self, DeleteOptions};
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::handlers::{body, get, meta};
use crate::control::apiserver::registry::{self, Resource};
use crate::control::apiserver::{encode, respond};
use crate::control::store::{Change, Entry, Expect, StoreError};

/// How often a budget that another eviction was faster with is asked again.
const ATTEMPTS: usize = 16;
/// More pods than that on their way mean that the disruption controller is gone.
const MOST_DISRUPTED: usize = 2000;

pub async fn answer(call: &Call, pods: &'static Resource) -> Result<Response> {
    let write = WriteOptions::read(&call.query)?;
    let sent = body::read_kind::<Eviction>(call, write.fields)?.object;
    let name = call.asked().name.as_str();
    let own = meta::text(&sent, "name");
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {name} != {own}"
        )));
    }
    let mut options = DeleteOptions::of(&sent["deleteOptions"])?;
    options.dry_run |= write.dry_run;
    let pod = encode::object(&get::find(call, pods).await?)?;
    if !is_free(&pod) {
        ask(call, &pod, options.dry_run).await?;
    }
    if !options.dry_run {
        mark(call, pods).await?;
    }
    delete::remove(call, pods, name, &options).await?;
    Ok(respond::success(StatusCode::CREATED, None))
}

/// Pods that do not run yet or any more, and those that leave anyway, are nobody's loss.
fn is_free(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending")) || meta::deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// The budgets whose selector matches a pod.
fn budgets(call: &Call, row: &Resource, pod: &Value) -> Result<Vec<Entry>> {
    let prefix = format!("{}/", call.asked().namespace);
    let page = call.api.store.list(&row.bucket, &prefix, None, None, None).map_err(Status::internal)?;
    let selects = |entry: &Entry| {
        let Ok(budget) = encode::object(entry) else { return false };
        let selector = &budget["spec"]["selector"];
        let matches = LabelSelector::from_object(Some(selector))
            .is_ok_and(|selector| selector.matches(&pod["metadata"]["labels"]));
        !selector.is_null() && matches
    };
    Ok(page.entries.into_iter().filter(selects).collect())
}

/// Takes one disruption off the pod's budget, or says why there is none left.
async fn ask(call: &Call, pod: &Value, dry_run: bool) -> Result<()> {
    let Some(row) = registry::by_name("policy", "poddisruptionbudgets") else { return Ok(()) };
    for _ in 0..ATTEMPTS {
        let found = budgets(call, row, pod)?;
        let entry = match found.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::new(500, "InternalError", why));
            }
        };
        let mut budget = encode::object(entry)?;
        if unhealthy_may_go(pod, &budget) {
            return Ok(());
        }
        take_one(&mut budget, meta::text(pod, "name"))?;
        if dry_run {
            return Ok(());
        }
        let (expect, change) =
            (Some(Expect::Revision(entry.mod_revision)), Change::Put(encode::draft(&budget)));
        match call.api.store.write(&row.bucket, &entry.key, expect, change).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Modified { .. } | StoreError::Missing) => {}
            Err(error) => return Err(Status::internal(error)),
        }
    }
    Err(too_many("the budget is being changed by others, try again", Value::Null))
}

/// A pod that does not serve is no loss where its budget says so, or has what it wants.
fn unhealthy_may_go(pod: &Value, budget: &Value) -> bool {
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let healthy = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    !is_ready(pod) && (always || healthy)
}

fn too_many(why: &str, causes: Value) -> Status {
    Status::new(429, "TooManyRequests", why).with_details(json!({"causes": causes}))
}

fn take_one(budget: &mut Value, pod: &str) -> Result<()> {
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let name = meta::text(budget, "name").to_owned();
    let refuse = |message: String| {
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        Err(too_many(why, json!([{"reason": "DisruptionBudget", "message": message}])))
    };
    let generation = budget["metadata"]["generation"].as_i64().unwrap_or(0);
    if count("observedGeneration") < generation {
        return refuse(format!("The disruption budget {name} is still being processed by the server."));
    }
    if count("disruptionsAllowed") < 0 {
        return Err(Status::new(403, "Forbidden", "pdb disruptions allowed is negative"));
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|all| all.len() > MOST_DISRUPTED) {
        return Err(Status::new(
            403,
            "Forbidden",
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if count("disruptionsAllowed") == 0 {
        let (needs, has) = (count("desiredHealthy"), count("currentHealthy"));
        return refuse(format!(
            "The disruption budget {name} needs {needs} healthy pods and has {has} currently"
        ));
    }
    budget["status"]["disruptionsAllowed"] = json!(count("disruptionsAllowed") - 1);
    budget["status"]["disruptedPods"][pod] = json!(meta::now());
    Ok(())
}

/// Says on the pod why it goes, for Jobs that treat that differently.
async fn mark(call: &Call, pods: &'static Resource) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let entry = get::find(call, pods).await?;
        let mut pod = encode::object(&entry)?;
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": meta::now(),
        });
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|one| one["type"] != "DisruptionTarget");
        conditions.push(condition);
        pod["status"]["conditions"] = conditions.into();
        let (expect, change) = (Some(Expect::Revision(entry.mod_revision)), Change::Put(encode::draft(&pod)));
        match call.api.store.write(&pods.bucket, &entry.key, expect, change).await {
            Err(StoreError::Modified { .. }) => {}
            // One that is gone meanwhile is the deletion's to report.
            _ => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_has_and_then_says_what_it_needs() {
        let mut budget = json!({"metadata": {"name": "web", "generation": 1}, "status": {"observedGeneration": 1,
            "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3}});
        assert!(take_one(&mut budget, "a").is_ok());
        assert!(budget["status"]["disruptedPods"]["a"].is_string());
        let refusal = take_one(&mut budget, "b").unwrap_err();
        assert_eq!(refusal.code, 429);
        assert_eq!(refusal.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        let cause = &refusal.to_json()["details"]["causes"][0];
        assert_eq!(cause["message"], "The disruption budget web needs 2 healthy pods and has 3 currently");
        let sick = json!({"metadata": {"name": "c"}, "status": {"phase": "Running"}});
        assert!(unhealthy_may_go(&sick, &budget) && !is_free(&sick));
    }
}
