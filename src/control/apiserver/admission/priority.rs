//! Priority: a pod's class becomes a number.

use serde_json::{Value, json};

use super::{Attributes, Context, Operation};
use crate::api::status::Result;
use crate::control::apiserver::{lookup, registry};

const GROUP: &str = "scheduling.k8s.io";

/// What a class gives a pod.
struct Class {
    name: String,
    value: i64,
    preemption: String,
}

pub(super) fn admit(context: &Context, write: &mut Attributes) -> Result<()> {
    if !write.is("", "pods") || write.operation != Operation::Create {
        return Ok(());
    }
    let wanted = write.new_text("/spec/priorityClassName").to_owned();
    let class = match wanted.as_str() {
        "" => default_class(context),
        name => match lookup::object(&context.store, GROUP, "priorityclasses", "", name) {
            Some(class) => Class::of(&class),
            None => return Err(write.forbidden(format!("no PriorityClass with name {name} was found"))),
        },
    };
    let Some(spec) = write.object.as_mut().map(|pod| &mut pod["spec"]) else { return Ok(()) };
    let given = spec["priority"].as_i64();
    if given.is_some_and(|given| given != class.value) {
        let text = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            given.unwrap_or_default(),
            class.value
        );
        return Err(write.forbidden(text));
    }
    spec["priority"] = json!(class.value);
    if !class.name.is_empty() {
        spec["priorityClassName"] = json!(class.name);
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = json!(class.preemption);
    }
    Ok(())
}

/// There is one default class at most.
pub(super) fn validate(context: &Context, write: &Attributes) -> Result<()> {
    let marked = write.object.as_ref().is_some_and(|class| class["globalDefault"] == true);
    if !write.is(GROUP, "priorityclasses") || write.operation == Operation::Delete || !marked {
        return Ok(());
    }
    let other = default_class(context).name;
    if other.is_empty() || (write.operation == Operation::Update && other == write.name) {
        return Ok(());
    }
    let text = format!("PriorityClass {other} is already marked as default. Only one default can exist");
    Err(write.forbidden(text))
}

impl Class {
    fn of(class: &Value) -> Self {
        let preemption = match lookup::text(class, "/preemptionPolicy") {
            "" => "PreemptLowerPriority",
            policy => policy,
        };
        Self {
            name: lookup::text(class, "/metadata/name").into(),
            value: class["value"].as_i64().unwrap_or_default(),
            preemption: preemption.into(),
        }
    }
}

/// The class marked as everybody's; without one the priority is 0. Of several the lowest counts.
fn default_class(context: &Context) -> Class {
    let none = Class { name: String::new(), value: 0, preemption: "PreemptLowerPriority".into() };
    let Some(row) = registry::by_name(GROUP, "priorityclasses") else { return none };
    let Ok(page) = context.store.list(&row.bucket, "", None, None, None) else { return none };
    let classes = page.entries.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok());
    let global = classes.filter(|class| class["globalDefault"] == true).map(|class| Class::of(&class));
    global.min_by_key(|class| class.value).unwrap_or(none)
}
