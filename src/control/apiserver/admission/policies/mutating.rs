//! MutatingAdmissionPolicy: what is changed in what others write (`plugin/policy/mutating`).
//!
//! Policies change an object one after the other; one that asks for it is heard again when others changed the object
//! after it. A policy's changes are nobody's among the object's field managers, as upstream's are.

use serde_json::{Value, json};

use super::{Attributes, Context, Scene, concerning, list, parameters, patching};
use crate::api::status::{Result, Status};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::lookup;
use crate::control::apiserver::registry::{self, Resource};

const KINDS: (&str, &str) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");

/// Whether a mutation's expression can be compiled.
///
/// # Errors
/// What is wrong with it.
pub fn compiles(source: &str) -> std::result::Result<(), String> {
    patching::compile(source).map(drop)
}

/// What the first round left behind: policies that want to be heard again, each with the object as it left it.
#[derive(Default)]
pub struct Round(Vec<(Value, Value, Option<Value>)>);

/// Lets every policy that is bound here change the object.
///
/// # Errors
/// A policy that could not and whose failure counts.
pub(in crate::control::apiserver::admission) fn first(
    context: &Context,
    write: &mut Attributes,
) -> Result<Round> {
    let mut round = Round::default();
    if write.operation == Operation::Delete || write.object.is_none() {
        return Ok(round);
    }
    for (policy, binding) in concerning(context, KINDS.0, KINDS.1, write) {
        bound(context, &policy, &binding, write)?;
        if policy["spec"]["reinvocationPolicy"] == "IfNeeded" {
            round.0.push((policy, binding, write.object.clone()));
        }
    }
    Ok(round)
}

impl Round {
    /// The second round, for what changed since.
    ///
    /// # Errors
    /// As the first.
    pub(in crate::control::apiserver::admission) fn again(
        self,
        context: &Context,
        write: &mut Attributes,
    ) -> Result<()> {
        for (policy, binding, then) in self.0 {
            if then != write.object {
                bound(context, &policy, &binding, write)?;
            }
        }
        Ok(())
    }
}

/// One policy by one binding, for each of its parameters.
fn bound(context: &Context, policy: &Value, binding: &Value, write: &mut Attributes) -> Result<()> {
    let failing = policy["spec"]["failurePolicy"] != "Ignore";
    let refused = |write: &Attributes, why: &str| match failing {
        true => Err(denied(policy, binding, write, why)),
        false => Ok(()),
    };
    let parameters = match parameters(context, policy, binding, write) {
        Ok(parameters) => parameters,
        Err(why) => return refused(write, &why),
    };
    for parameter in parameters {
        match Scene::new(context, write, &parameter).holds(&policy["spec"]) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(wrong) => {
                refused(write, &wrong.join(", "))?;
                continue;
            }
        }
        for mutation in list(&policy["spec"]["mutations"]) {
            let scene = Scene::new(context, write, &parameter).with_variables(&policy["spec"]);
            match mutated(&scene, mutation, write) {
                Ok(object) => write.object = Some(object),
                Err(why) => refused(write, &why)?,
            }
        }
    }
    Ok(())
}

/// The object with one mutation, in the form its kind has.
fn mutated(scene: &Scene, mutation: &Value, write: &Attributes) -> std::result::Result<Value, String> {
    let row = registry::find(&write.group, &write.version, &write.resource).ok_or_else(|| {
        format!("Resource kind {}/{}, Kind={} not found", write.group, write.version, write.kind)
    })?;
    let object = write.object.clone().unwrap_or_default();
    let changed = match mutation["patchType"].as_str() {
        Some("JSONPatch") => {
            patching::by_operations(scene, lookup::text(mutation, "/jsonPatch/expression"), object)?
        }
        _ => patching::by_configuration(
            scene,
            lookup::text(mutation, "/applyConfiguration/expression"),
            object,
            row,
        )?,
    };
    settled(row, changed, write)
}

/// What a change may have left out has its default again; what the kind does not know is gone.
fn settled(row: &Resource, object: Value, write: &Attributes) -> std::result::Result<Value, String> {
    if !write.subresource.is_empty() {
        return Ok(object);
    }
    let mut object = row.read(&object)?;
    row.fill_defaults(&mut object);
    Ok(object)
}

fn denied(policy: &Value, binding: &Value, write: &Attributes, why: &str) -> Status {
    let (own, by) = (lookup::text(policy, "/metadata/name"), lookup::text(binding, "/metadata/name"));
    let message = format!("policy '{own}' with binding '{by}' denied request: {why}");
    let mut status = write.forbidden(&message);
    (status.reason, status.code) = ("Invalid", 422);
    let details = status.details.get_or_insert_with(|| json!({}));
    details["causes"] = json!([{"message": message}]);
    status
}
