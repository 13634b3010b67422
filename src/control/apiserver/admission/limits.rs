//! LimitRanger: what containers get that do not say, and how much anyone may ask for.

use serde_json::{Map, Value, json};

use super::{Attributes, Context, Operation};
use crate::api::quantity::Quantity;
use crate::api::status::Result;
use crate::api::usage::{Usage, pod_amounts};
use crate::control::apiserver::{encode, registry};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// The limits of a write's namespace, if it is one they are about.
fn limits(context: &Context, write: &Attributes) -> Vec<Value> {
    let about = write.is("", "pods") || write.is("", "persistentvolumeclaims");
    let Some(row) = registry::by_name("", "limitranges").filter(|_| about) else { return Vec::new() };
    let prefix = format!("{}/", write.namespace);
    let page = context.store.list(&row.bucket, &prefix, None, None, None);
    let entries = page.map(|page| page.entries).unwrap_or_default();
    let ranges = entries.iter().filter_map(|entry| encode::object(entry).ok());
    ranges
        .flat_map(|mut range| range["spec"]["limits"].take().as_array().cloned().unwrap_or_default())
        .collect()
}

/// Fills in the defaults.
pub(super) fn admit(context: &Context, write: &mut Attributes) {
    if !write.is("", "pods") || write.operation != Operation::Create {
        return;
    }
    let limits = limits(context, write);
    let Some(pod) = &mut write.object else { return };
    let (mut requests, mut bounds) = (Map::new(), Map::new());
    for limit in limits.iter().filter(|limit| limit["type"] == "Container") {
        requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        bounds.extend(limit["default"].as_object().cloned().unwrap_or_default());
    }
    let mut said = Vec::new();
    for list in LISTS {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let word = if list == "containers" { "container" } else { "init container" };
            for (side, defaults) in [("requests", &requests), ("limits", &bounds)] {
                let set = fill(container, side, defaults);
                if !set.is_empty() {
                    said.push(format!("{} {} for {word} {name}", set.join(", "), side.trim_end_matches('s')));
                }
            }
        }
    }
    if !said.is_empty() && pod["metadata"].is_object() {
        pod["metadata"]["annotations"][ANNOTATION] =
            json!(format!("LimitRanger plugin set: {}", said.join("; ")));
    }
}

/// Sets what is missing of one side; answers the names. A limit of its own stands for a request.
fn fill(container: &mut Value, side: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    if !container.is_object() {
        return set;
    }
    for (name, amount) in defaults {
        let by_limit = side == "requests" && !container["resources"]["limits"][name].is_null();
        if container["resources"][side][name].is_null() && !by_limit {
            container["resources"][side][name] = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

/// Refuses what is out of bounds.
pub(super) fn validate(context: &Context, write: &Attributes) -> Result<()> {
    let judged = match (write.operation, write.resource.as_str()) {
        (Operation::Create, _) => true,
        (Operation::Update, resource) => resource == "persistentvolumeclaims",
        (Operation::Delete, _) => false,
    };
    let Some(object) = write.object.as_ref().filter(|_| judged) else { return Ok(()) };
    let mut wrong = Vec::new();
    for limit in limits(context, write) {
        match (limit["type"].as_str(), write.resource.as_str()) {
            (Some("Container"), "pods") => {
                for container in
                    LISTS.iter().flat_map(|list| object["spec"][*list].as_array().into_iter().flatten())
                {
                    let side = |side: &str| read(&container["resources"][side]);
                    bounds(&mut wrong, &limit, "Container", &side("requests"), &side("limits"));
                }
            }
            (Some("Pod"), "pods") => {
                let side = |side: &str| pod_amounts(object, side);
                bounds(&mut wrong, &limit, "Pod", &side("requests"), &side("limits"));
            }
            (Some("PersistentVolumeClaim"), "persistentvolumeclaims") => {
                let asks = read(&object["spec"]["resources"]["requests"]);
                claim(&mut wrong, &limit, &asks);
            }
            _ => {}
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(write.forbidden(one)),
        many => Err(write.forbidden(format!("[{}]", many.join(", ")))),
    }
}

fn read(map: &Value) -> Usage {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}

fn bounds(wrong: &mut Vec<String>, limit: &Value, kind: &str, requests: &Usage, limits: &Usage) {
    for (name, least) in read(&limit["min"]) {
        let (asks, may) = (requests.get(&name), limits.get(&name));
        let text = format!("minimum {name} usage per {kind} is {least}");
        match (asks, may) {
            (None, _) => wrong.push(format!("{text}.  No request is specified")),
            (Some(asks), _) if *asks < least => wrong.push(format!("{text}, but request is {asks}")),
            (_, Some(may)) if *may < least => wrong.push(format!("{text}, but limit is {may}")),
            _ => {}
        }
    }
    for (name, most) in read(&limit["max"]) {
        let (asks, may) = (requests.get(&name), limits.get(&name));
        let text = format!("maximum {name} usage per {kind} is {most}");
        match (asks, may) {
            (_, None) => wrong.push(format!("{text}.  No limit is specified")),
            (_, Some(may)) if *may > most => wrong.push(format!("{text}, but limit is {may}")),
            (Some(asks), _) if *asks > most => wrong.push(format!("{text}, but request is {asks}")),
            _ => {}
        }
    }
    for (name, most) in read(&limit["maxLimitRequestRatio"]) {
        let text = format!("{name} max limit to request ratio per {kind} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (Some(asks), Some(may)) if !asks.is_zero() => {
                let (asks, may, most) = (asks.milli(), may.milli(), most.milli());
                #[expect(clippy::cast_precision_loss, reason = "a ratio is for reading")]
                let ratio = may as f64 / asks as f64;
                if i128::from(may) * 1000 > i128::from(asks) * i128::from(most) {
                    wrong.push(format!("{text}, but provided ratio is {ratio:.6}"));
                }
            }
            _ => wrong.push(format!("{text}, but no request is specified or request is 0")),
        }
    }
}

fn claim(wrong: &mut Vec<String>, limit: &Value, asks: &Usage) {
    let Some(asked) = asks.get("storage") else { return };
    let least = read(&limit["min"]).get("storage").copied();
    let most = read(&limit["max"]).get("storage").copied();
    if let Some(least) = least.filter(|least| asked < least) {
        wrong.push(format!(
            "minimum storage usage per PersistentVolumeClaim is {least}, but request is {asked}"
        ));
    }
    if let Some(most) = most.filter(|most| asked > most) {
        wrong.push(format!(
            "maximum storage usage per PersistentVolumeClaim is {most}, but request is {asked}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_refused_in_upstreams_words() {
        let limit = json!({"min": {"cpu": "100m"}, "max": {"cpu": "1"}});
        let said = |requests: Value, limits: Value| {
            let mut wrong = Vec::new();
            bounds(&mut wrong, &limit, "Container", &read(&requests), &read(&limits));
            wrong
        };
        assert_eq!(said(json!({"cpu": "500m"}), json!({"cpu": "1"})), [""; 0]);
        assert_eq!(
            said(json!({"cpu": "50m"}), json!({"cpu": "2"})),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2",
            ]
        );
        assert_eq!(
            said(json!({"cpu": "500m"}), json!({})),
            ["maximum cpu usage per Container is 1.  No limit is specified"]
        );
    }

    #[test]
    fn a_container_that_says_nothing_gets_the_defaults() {
        let mut container = json!({"name": "c", "resources": {"limits": {"cpu": "2"}}});
        let defaults = json!({"cpu": "1", "memory": "1Gi"}).as_object().unwrap().clone();
        assert_eq!(fill(&mut container, "requests", &defaults), ["memory"]);
        assert_eq!(container["resources"]["requests"], json!({"memory": "1Gi"}));
    }
}
