//! FlowSchemas and PriorityLevelConfigurations as one plan: which request is of which level, and what a level has
//! (`flowcontrol/rule.go`, `apf_controller.go`).

use std::collections::HashMap;

use serde_json::Value;

use crate::control::apiserver::bootstrap::flow::GROUP;
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::registry;
use crate::control::apiserver::request::RequestInfo;
use crate::control::apiserver::user::UserInfo;
use crate::control::store::{Revision, Store};

const FLOWS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
const ACCOUNT: &str = "system:serviceaccount:";

/// Every flow, in the order they are tried.
#[derive(Debug, Default)]
pub struct Plan {
    /// The last changes of the objects it was made of.
    pub made_at: (Revision, Revision),
    flows: Vec<Flow>,
}

/// One FlowSchema and its level.
#[derive(Debug)]
pub struct Flow {
    pub uid: String,
    pub level: String,
    pub level_uid: String,
    /// None for a level that is exempt.
    pub limit: Option<Limit>,
    rules: Vec<Value>,
}

/// How many of a level run at once, and how many wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub seats: usize,
    pub queued: usize,
}

fn objects(store: &Store, plural: &str) -> Vec<Value> {
    let Some(row) = registry::by_name(GROUP, plural) else { return Vec::new() };
    let Ok(page) = store.list(&row.bucket, "", None, None, None) else { return Vec::new() };
    page.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

impl Plan {
    pub fn revision(store: &Store) -> (Revision, Revision) {
        let last = |plural: &str| {
            registry::by_name(GROUP, plural).map_or(0, |row| store.bucket_revision(&row.bucket))
        };
        (last(FLOWS), last(LEVELS))
    }

    /// The plan of what is stored, where so many requests may run at once.
    pub fn read(store: &Store, total: usize, made_at: (Revision, Revision)) -> Self {
        Self { made_at, ..Self::of(&objects(store, FLOWS), &objects(store, LEVELS), total) }
    }

    fn of(flows: &[Value], levels: &[Value], total: usize) -> Self {
        let shares =
            |level: &Value| level["spec"]["limited"]["nominalConcurrencyShares"].as_u64().unwrap_or(30);
        let limited = |level: &&Value| level["spec"]["type"] == "Limited";
        let sum: u64 = levels.iter().filter(limited).map(shares).sum();
        let by_name: HashMap<&str, (&Value, Option<Limit>)> = levels
            .iter()
            .map(|level| {
                let limit = limited(&level).then(|| Limit {
                    seats: usize::try_from((total as u64 * shares(level)).div_ceil(sum.max(1))).unwrap_or(1),
                    queued: queued(&level["spec"]["limited"]["limitResponse"]),
                });
                (text(level, "/metadata/name"), (level, limit))
            })
            .collect();
        let mut ordered: Vec<&Value> = flows.iter().collect();
        ordered.sort_by_key(|flow| {
            (flow["spec"]["matchingPrecedence"].as_i64().unwrap_or(1000), text(flow, "/metadata/name"))
        });
        let flows = ordered.into_iter().filter_map(|flow| {
            let name = text(flow, "/spec/priorityLevelConfiguration/name");
            let (level, limit) = by_name.get(name)?;
            Some(Flow {
                uid: text(flow, "/metadata/uid").to_owned(),
                level: name.to_owned(),
                level_uid: text(level, "/metadata/uid").to_owned(),
                limit: limit.clone(),
                rules: list(&flow["spec"]["rules"]).to_vec(),
            })
        });
        Self { made_at: (0, 0), flows: flows.collect() }
    }

    /// The flow a request is of.
    pub fn flow(&self, user: &UserInfo, info: &RequestInfo) -> Option<&Flow> {
        self.flows.iter().find(|flow| flow.rules.iter().any(|rule| covers(rule, user, info)))
    }
}

/// How many may wait in all the queues of a level; none where they are turned away.
fn queued(response: &Value) -> usize {
    if response["type"] != "Queue" {
        return 0;
    }
    let number = |field: &str, default: u64| response["queuing"][field].as_u64().unwrap_or(default);
    usize::try_from(number("queues", 64).saturating_mul(number("queueLengthLimit", 50))).unwrap_or(usize::MAX)
}

fn covers(rule: &Value, user: &UserInfo, info: &RequestInfo) -> bool {
    if !list(&rule["subjects"]).iter().any(|subject| is(subject, user)) {
        return false;
    }
    match &info.resource {
        None => list(&rule["nonResourceRules"]).iter().any(|rule| {
            has(&rule["verbs"], &info.verb)
                && list(&rule["nonResourceURLs"])
                    .iter()
                    .filter_map(Value::as_str)
                    .any(|own| path(own, &info.path))
        }),
        Some(asked) => list(&rule["resourceRules"]).iter().any(|rule| {
            let what = match asked.subresource.as_str() {
                "" => asked.resource.clone(),
                below => format!("{}/{below}", asked.resource),
            };
            let place = match asked.namespace.as_str() {
                "" => rule["clusterScope"] == true,
                namespace => has(&rule["namespaces"], namespace),
            };
            place
                && has(&rule["verbs"], &info.verb)
                && has(&rule["apiGroups"], &asked.group)
                && has(&rule["resources"], &what)
        }),
    }
}

fn has(words: &Value, word: &str) -> bool {
    list(words).iter().any(|own| own == "*" || *own == word)
}

fn path(own: &str, asked: &str) -> bool {
    match own.strip_suffix('*') {
        Some(start) => asked.starts_with(start),
        None => own == asked,
    }
}

fn is(subject: &Value, user: &UserInfo) -> bool {
    match subject["kind"].as_str() {
        Some("User") => matches!(text(subject, "/user/name"), name if name == "*" || name == user.name),
        Some("Group") => matches!(text(subject, "/group/name"), name if name == "*" || user.in_group(name)),
        Some("ServiceAccount") => {
            let (namespace, name) =
                (text(subject, "/serviceAccount/namespace"), text(subject, "/serviceAccount/name"));
            let own = user.name.strip_prefix(ACCOUNT).and_then(|own| own.split_once(':'));
            own.is_some_and(|(in_it, called)| in_it == namespace && (name == "*" || name == called))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::bootstrap::flow;
    use crate::control::apiserver::request::Query;

    fn level(plan: &Plan, name: &str, groups: &[&str], path: &str) -> String {
        let groups =
            groups.iter().chain(&["system:authenticated"]).map(|group| (*group).to_owned()).collect();
        let user = UserInfo { name: name.into(), groups, ..UserInfo::default() };
        let info = RequestInfo::parse(&http::Method::GET, path, &Query::default());
        plan.flow(&user, &info).unwrap().level.clone()
    }

    #[test]
    fn every_request_has_the_level_that_upstreams_own_objects_give_it() {
        let all = flow::objects();
        let of = |plural: &str| -> Vec<Value> {
            all.iter().filter(|(own, _)| *own == plural).map(|(_, object)| object.clone()).collect()
        };
        let plan = Plan::of(&of(FLOWS), &of(LEVELS), 600);
        let pods = "/api/v1/namespaces/default/pods";
        assert_eq!(level(&plan, "root", &["system:masters"], pods), "exempt");
        assert_eq!(level(&plan, "jane", &[], pods), "global-default");
        assert_eq!(level(&plan, "jane", &[], "/livez"), "exempt");
        assert_eq!(level(&plan, "system:node:a", &["system:nodes"], "/api/v1/nodes/a"), "node-high");
        assert_eq!(level(&plan, "system:node:a", &["system:nodes"], pods), "system");
        assert_eq!(
            level(&plan, "system:serviceaccount:kube-system:x", &["system:serviceaccounts"], pods),
            "workload-high"
        );
        assert_eq!(
            level(&plan, "system:serviceaccount:default:x", &["system:serviceaccounts"], pods),
            "workload-low"
        );
        let default = plan.flows.iter().find(|flow| flow.level == "global-default").unwrap();
        assert_eq!(default.limit, Some(Limit { seats: 49, queued: 6400 }));
    }
}
