//! What an object uses of a namespace's quota (`pkg/quota/v1/evaluator`).
//!
//! Names are a quota's: `pods`, `requests.cpu`, `limits.memory`, `requests.storage`, `services.nodeports`,
//! `count/jobs.batch`, and the plain counts of core kinds.

use std::collections::BTreeMap;

use serde_json::Value;

use super::quantity::Quantity;

pub type Usage = BTreeMap<String, Quantity>;

/// Kinds of the core group that have a count of their own.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "limitranges",
];

/// What one object of a resource uses.
pub fn of(group: &str, resource: &str, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let counted = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    usage.insert(format!("count/{counted}"), Quantity::whole(1));
    if !group.is_empty() {
        return usage;
    }
    if COUNTED.contains(&resource) {
        usage.insert(resource.to_owned(), Quantity::whole(1));
    }
    match resource {
        "pods" if !is_ended(object) => pod(object, &mut usage),
        "services" => service(object, &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        _ => {}
    }
    usage
}

/// A pod that has ended, or whose node does not answer its deletion, uses nothing but its place.
pub fn is_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn pod(pod: &Value, usage: &mut Usage) {
    usage.insert("pods".to_owned(), Quantity::whole(1));
    for (side, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, amount) in pod_amounts(pod, side) {
            let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if side == "requests" && plain {
                usage.insert(name.clone(), amount);
            }
            if plain || side == "requests" {
                usage.insert(format!("{prefix}{name}"), amount);
            }
        }
    }
}

/// What a pod's containers ask for together, or its hungriest init container.
pub fn pod_amounts(pod: &Value, side: &str) -> Usage {
    let spec = &pod["spec"];
    let each = |list: &str| spec[list].as_array().cloned().unwrap_or_default();
    let amounts = |container: &Value| -> Usage {
        let map = container["resources"][side].as_object();
        let parsed = map.into_iter().flatten().filter_map(|(name, text)| Some((name.clone(), parse(text)?)));
        parsed.collect()
    };
    let mut sum = Usage::new();
    each("containers").iter().for_each(|container| add(&mut sum, &amounts(container)));
    let mut sidecars = Usage::new();
    let mut peak = Usage::new();
    for container in each("initContainers") {
        let mut now = amounts(&container);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &now);
            add(&mut sidecars, &now);
            now = Usage::new();
        }
        add(&mut now, &sidecars);
        raise(&mut peak, now);
    }
    raise(&mut sum, peak);
    let overhead = spec["overhead"].as_object().into_iter().flatten();
    let overhead = overhead.filter_map(|(name, text)| Some((name.clone(), parse(text)?))).collect();
    add(&mut sum, &overhead);
    sum
}

fn parse(text: &Value) -> Option<Quantity> {
    Quantity::parse(text.as_str()?).ok()
}

pub fn add(to: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let known = to.get(name).copied();
        to.insert(name.clone(), known.map_or(*amount, |known| known.plus(*amount)));
    }
}

fn raise(to: &mut Usage, other: Usage) {
    for (name, amount) in other {
        let known = to.get(&name).copied();
        to.insert(name, known.map_or(amount, |known| known.max(amount)));
    }
}

fn service(service: &Value, usage: &mut Usage) {
    let ports = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    let ports = i64::try_from(ports).unwrap_or(i64::MAX);
    let balanced = service["spec"]["type"] == "LoadBalancer";
    let no_ports = service["spec"]["allocateLoadBalancerNodePorts"] == false;
    if balanced {
        usage.insert("services.loadbalancers".to_owned(), Quantity::whole(1));
    }
    if service["spec"]["type"] == "NodePort" || (balanced && !no_ports) {
        usage.insert("services.nodeports".to_owned(), Quantity::whole(ports));
    }
}

fn claim(claim: &Value, usage: &mut Usage) {
    let asked = parse(&claim["spec"]["resources"]["requests"]["storage"]);
    let class = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty());
    if let Some(class) = class {
        let name = format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims");
        usage.insert(name, Quantity::whole(1));
    }
    if let Some(asked) = asked {
        usage.insert("requests.storage".to_owned(), asked);
        if let Some(class) = class {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), asked);
        }
    }
}

/// Whether a quota is about this object; scopes are about pods only.
pub fn is_in_scope(quota: &Value, resource: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let expressions = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let mut plain = plain.peekable();
    let mut expressions = expressions.peekable();
    if plain.peek().is_none() && expressions.peek().is_none() {
        return true;
    }
    resource == "pods"
        && plain.all(|scope| has_scope(scope, object))
        && expressions.all(|one| {
            let scope = one["scopeName"].as_str().unwrap_or_default();
            if scope != "PriorityClass" {
                return has_scope(scope, object);
            }
            let class = object["spec"]["priorityClassName"].as_str().unwrap_or_default();
            let listed =
                one["values"].as_array().is_some_and(|values| values.iter().any(|value| value == class));
            match one["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("DoesNotExist") => class.is_empty(),
                _ => !class.is_empty(),
            }
        })
}

fn has_scope(scope: &str, pod: &Value) -> bool {
    let ends = pod["spec"]["activeDeadlineSeconds"].is_i64();
    let best_effort = || {
        ["requests", "limits"].iter().all(|side| {
            let amounts = pod_amounts(pod, side);
            !["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|amount| !amount.is_zero()))
        })
    };
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => pod["spec"]["priorityClassName"].as_str().is_some_and(|class| !class.is_empty()),
        "CrossNamespacePodAffinity" => {
            let text = pod["spec"]["affinity"].to_string();
            text.contains("\"namespaces\"") || text.contains("\"namespaceSelector\"")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_use_what_quotas_count() {
        let pod = json!({"spec": {"containers": [
            {"resources": {"requests": {"cpu": "100m", "nvidia.com/gpu": "1"}, "limits": {"memory": "1Gi"}}},
            {"resources": {"requests": {"cpu": "200m"}}}]}});
        let usage = of("", "pods", &pod);
        let text = |name: &str| usage.get(name).map(ToString::to_string);
        assert_eq!(text("requests.cpu").as_deref(), Some("300m"));
        assert_eq!(text("cpu").as_deref(), Some("300m"));
        assert_eq!(text("limits.memory").as_deref(), Some("1Gi"));
        assert_eq!(text("requests.nvidia.com/gpu").as_deref(), Some("1"));
        assert_eq!(text("pods").as_deref(), Some("1"));
        assert!(of("batch", "jobs", &json!({})).contains_key("count/jobs.batch"));
        let service = json!({"spec": {"type": "NodePort", "ports": [{}, {}]}});
        assert_eq!(of("", "services", &service)["services.nodeports"].to_string(), "2");
        let ended = json!({"status": {"phase": "Succeeded"}});
        assert!(!of("", "pods", &ended).contains_key("pods"));
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = json!({"spec": {"scopes": ["BestEffort", "NotTerminating"]}});
        assert!(is_in_scope(&quota, "pods", &json!({"spec": {"containers": [{}]}})));
        assert!(!is_in_scope(&quota, "pods", &json!({"spec": {"activeDeadlineSeconds": 5}})));
        assert!(!is_in_scope(&quota, "services", &json!({})));
    }
}
