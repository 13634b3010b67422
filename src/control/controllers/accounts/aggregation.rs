//! clusterrole-aggregation: a ClusterRole with an `aggregationRule` holds the rules of all that its
//! selectors find (`pkg/controller/clusterroleaggregation`).

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::PostParams;

use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let (fed, roles) = (queue.clone(), world.cluster_roles.clone());
    // Any change may concern any role that gathers; there are few of those.
    world.cluster_roles.on_change(move |_, new| {
        let gathers = |role: &Rc<ClusterRole>| role.aggregation_rule.is_some();
        roles.all().iter().chain(new).filter(|role| gathers(role)).for_each(|role| fed.add(key_of(&**role)));
    });
    let account = "clusterrole-aggregation-controller";
    let actor = world.actor(account, account);
    let world = world.clone();
    Box::pin(async move {
        world.cluster_roles.synced().await;
        queue.work("clusterrole-aggregation", 5, |name| gather(&world, &actor, name)).await;
    })
}

async fn gather(world: &World, actor: &Actor, name: String) -> Result<Next, kube::Error> {
    let Some(role) = world.cluster_roles.get(&name) else { return Ok(Next::Done) };
    let Some(wanted) = gathered(&role, &world.cluster_roles.all()) else { return Ok(Next::Done) };
    if wanted == role.rules.clone().unwrap_or_default() {
        return Ok(Next::Done);
    }
    let mut changed = (*role).clone();
    changed.rules = Some(wanted);
    let api: Api<ClusterRole> = Api::all(actor.client.clone());
    world.cluster_roles.learn(api.replace(&name, &PostParams::default(), &changed).await?);
    Ok(Next::Done)
}

/// The rules of every role that one's selectors find, each once, in the order of names; nothing for a role
/// that gathers nothing.
fn gathered(role: &ClusterRole, all: &[Rc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let others = all.iter().filter(|other| other.metadata.name != role.metadata.name);
        for other in others.filter(|other| selects(selector, other)) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

fn selects(selector: &LabelSelector, role: &ClusterRole) -> bool {
    let label = |key: &str| role.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let fits = selector.match_expressions.iter().flatten().all(|term| {
        let (value, values) = (label(&term.key), term.values.as_deref().unwrap_or_default());
        match term.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => value.is_none_or(|value| !values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(value: serde_json::Value) -> Rc<ClusterRole> {
        Rc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn rules_are_gathered_once_from_all_that_carry_the_label() {
        let secrets = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]});
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let part = |name: &str, rules: serde_json::Value| {
            role(json!({"metadata": {"name": name, "labels": {"to-view": "true"}}, "rules": rules}))
        };
        let selectors = json!([{"matchLabels": {"to-view": "true"}}, {"matchExpressions": [{"key": "to-view", "operator": "Exists"}]}]);
        let view = role(json!({
            "metadata": {"name": "view", "labels": {"to-view": "true"}},
            "aggregationRule": {"clusterRoleSelectors": selectors},
            "rules": [secrets.clone()],
        }));
        let other = role(json!({"metadata": {"name": "z"}, "rules": [{"verbs": ["*"]}]}));
        let all = [
            part("a", json!([pods.clone(), secrets.clone()])),
            part("b", json!([pods.clone()])),
            view.clone(),
            other,
        ];
        let rules = gathered(&view, &all).unwrap();
        assert_eq!(serde_json::to_value(rules).unwrap(), json!([pods, secrets]));
        assert_eq!(gathered(&all[0], &all), None);
    }
}
