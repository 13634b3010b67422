//! ResourceQuota: nothing is made beyond what a namespace may use.
//!
//! What an object would add is taken off the quota in the store before the object is written, as upstream does:
//! a write that fails afterwards is given back by the quota controller.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Attributes, Context, Operation};
use crate::api::quantity::Quantity;
use crate::api::status::{Result, Status};
use crate::api::usage::{self, Usage};
use crate::control::apiserver::{encode, registry};
use crate::control::store::{Change, Entry, Expect, StoreError};

const ATTEMPTS: usize = 16;
/// A quota that was made a moment ago is waited for, until the controller has counted.
const COUNTING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// What a pod must say if a quota bounds it.
const MUST_SAY: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

pub(super) async fn admit(context: &Context, write: &Attributes) -> Result<()> {
    // Only what is made, or a claim or service that grows, uses more.
    let grows = matches!(write.resource.as_str(), "persistentvolumeclaims" | "services" | "pods");
    let counts = match write.operation {
        Operation::Create => true,
        Operation::Update => grows,
        Operation::Delete => false,
    };
    if !counts || write.namespace.is_empty() || !write.subresource.is_empty() {
        return Ok(());
    }
    let (Some(object), Some(row)) = (&write.object, registry::by_name("", "resourcequotas")) else {
        return Ok(());
    };
    let begun = Instant::now();
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        let prefix = format!("{}/", write.namespace);
        let page = context.store.list(&row.bucket, &prefix, None, None, None).map_err(Status::internal)?;
        let mut changes: Vec<(Entry, Value)> = Vec::new();
        let mut unknown = None;
        for entry in page.entries {
            let quota = encode::object(&entry)?;
            match charge(write, object, quota)? {
                Charge::None => {}
                Charge::Of(changed) => changes.push((entry, changed)),
                Charge::Unknown(why) => unknown = Some(why),
            }
        }
        if let Some(why) = unknown {
            if begun.elapsed() > COUNTING {
                return Err(write.forbidden(why));
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        attempts += 1;
        if write.dry_run || store(context, row, changes).await? {
            return Ok(());
        }
    }
    let why = "status unknown for quota: the quotas of this namespace are being changed by others, try again";
    Err(write.forbidden(why))
}

/// Writes the quotas; false if another writer was faster with one.
async fn store(context: &Context, row: &registry::Resource, changes: Vec<(Entry, Value)>) -> Result<bool> {
    for (entry, quota) in changes {
        let (expect, change) =
            (Some(Expect::Revision(entry.mod_revision)), Change::Put(encode::draft(&quota)));
        match context.store.write(&row.bucket, &entry.key, expect, change).await {
            Ok(_) | Err(StoreError::Missing) => {}
            // What the first quotas were charged is recounted by the controller.
            Err(StoreError::Modified { .. }) => return Ok(false),
            Err(error) => return Err(Status::internal(error)),
        }
    }
    Ok(true)
}

/// What a write means to a quota.
enum Charge {
    /// The quota is not about it, or nothing changes.
    None,
    /// The quota with the write on it.
    Of(Value),
    /// Nobody has counted yet; why that forbids the write.
    Unknown(String),
}

fn charge(write: &Attributes, object: &Value, mut quota: Value) -> Result<Charge> {
    let resource = write.resource.as_str();
    if !usage::is_in_scope(&quota, resource, object) {
        return Ok(Charge::None);
    }
    let name = quota["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    // Spec and status may differ while the controller looks; what was counted is what holds.
    let hard = amounts(&quota["spec"]["hard"]);
    let mut wanted = usage::of(&write.group, resource, object);
    wanted.retain(|name, _| hard.contains_key(name));
    if resource == "pods" && write.operation == Operation::Create {
        must_say(write, object, &name, &hard)?;
    }
    if let Some(old) = &write.old {
        let before = usage::of(&write.group, resource, old);
        for (name, amount) in &mut wanted {
            *amount = before.get(name).map_or(*amount, |before| amount.minus(*before));
        }
        wanted.retain(|_, amount| !amount.is_negative() && !amount.is_zero());
    }
    wanted.retain(|_, amount| !amount.is_zero());
    if wanted.is_empty() {
        return Ok(Charge::None);
    }
    let used = amounts(&quota["status"]["used"]);
    let unknown: Vec<&str> =
        wanted.keys().filter(|name| !used.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let why = format!("status unknown for quota: {name}, resources: {}", unknown.join(","));
        return Ok(Charge::Unknown(why));
    }
    let after = |name: &String, amount: &Quantity| used.get(name).map_or(*amount, |used| used.plus(*amount));
    let over: Usage = wanted
        .iter()
        .filter(|(name, amount)| after(name, amount) > hard[*name])
        .map(|(k, v)| (k.clone(), *v))
        .collect();
    if !over.is_empty() {
        let of = |all: &Usage| say(&over, all);
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            of(&over),
            of(&used),
            of(&hard)
        );
        return Err(write.forbidden(why));
    }
    for (name, amount) in &wanted {
        quota["status"]["used"][name] = json!(after(name, amount).to_string());
    }
    Ok(Charge::Of(quota))
}

fn amounts(map: &Value) -> Usage {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}

fn say(names: &Usage, amounts: &Usage) -> String {
    let one = |name: &String| format!("{name}={}", amounts.get(name).map_or("0".into(), ToString::to_string));
    names.keys().map(one).collect::<Vec<_>>().join(",")
}

/// Where cpu and memory are bounded, every container has to say how much it wants.
fn must_say(write: &Attributes, pod: &Value, quota: &str, hard: &BTreeMap<String, Quantity>) -> Result<()> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let lists = ["containers", "initContainers"];
    let containers = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    for container in containers {
        for name in MUST_SAY.iter().filter(|name| hard.contains_key(**name)) {
            let (side, plain) = name.split_once('.').unwrap_or(("requests", name));
            if container["resources"][side][plain].is_null() {
                missing.entry(name).or_default().push(container["name"].as_str().unwrap_or_default());
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> =
        missing.iter().map(|(name, containers)| format!("{name} for: {}", containers.join(","))).collect();
    Err(write.forbidden(format!("failed quota: {quota}: must specify {}", texts.join("; "))))
}
