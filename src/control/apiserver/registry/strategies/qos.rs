//! A pod's quality of service class, from its containers' cpu and memory requests and limits.

use serde_json::Value;

use crate::api::quantity::Quantity;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let pod_level = &spec["resources"];
    if COUNTED
        .iter()
        .any(|name| amount(pod_level, "requests", name).or(amount(pod_level, "limits", name)).is_some())
    {
        return of([pod_level].into_iter());
    }
    let lists = [&spec["initContainers"], &spec["containers"]];
    of(lists.into_iter().filter_map(Value::as_array).flatten().map(|container| &container["resources"]))
}

fn of<'a>(all: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut anything, mut guaranteed) = (false, true);
    for resources in all {
        for name in COUNTED {
            let (request, limit) = (amount(resources, "requests", name), amount(resources, "limits", name));
            anything |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (anything, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A positive amount; zero counts as none.
fn amount(resources: &Value, side: &str, name: &str) -> Option<Quantity> {
    let text = resources[side][name].as_str()?;
    Quantity::parse(text).ok().filter(|quantity| !quantity.is_zero())
}
