//! `podFailurePolicy`: what a failed pod means for its Job. The first rule that fits decides.

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;

use crate::control::controllers::workloads::pods;

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Towards the backoff limit.
    Count,
    Ignore,
    FailIndex,
    /// The message of the Job's condition.
    FailJob(String),
}

pub fn judge(job: &Job, pod: &Pod) -> Action {
    let rules = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    for (index, rule) in rules.iter().flat_map(|policy| &policy.rules).enumerate() {
        let Some(why) = fits(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => Action::FailJob(format!("{why} matching FailJob rule at index {index}")),
            _ => Action::Count,
        };
    }
    Action::Count
}

/// Why a rule fits, in upstream's words.
fn fits(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) = pods::place(pod);
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        return all
            .filter(|one| codes.container_name.as_ref().is_none_or(|wanted| *wanted == one.name))
            .find_map(|one| {
                let code = one.state.as_ref()?.terminated.as_ref()?.exit_code;
                let listed = codes.values.contains(&code);
                let fits = code != 0 && listed == (codes.operator == "In");
                fits.then(|| {
                    format!("Container {} for pod {namespace}/{name} failed with exit code {code}", one.name)
                })
            });
    }
    rule.on_pod_conditions.iter().flatten().find_map(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        let mut has = status.conditions.iter().flatten();
        has.any(|one| one.type_ == pattern.type_ && one.status == wanted)
            .then(|| format!("Pod {namespace}/{name} has condition {}", pattern.type_))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let job: Job = serde_json::from_value(
            json!({"metadata": {}, "spec": {"template": {}, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}}),
        )
        .unwrap();
        let pod = |code: i32, conditions: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"conditions": conditions,
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}]}}))
            .unwrap()
        };
        let text = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &pod(42, json!([]))), Action::FailJob(text.into()));
        assert_eq!(judge(&job, &pod(1, json!([]))), Action::Count);
        let evicted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert_eq!(judge(&job, &pod(42, evicted)), Action::Ignore);
    }
}
