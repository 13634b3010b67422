//! ValidatingAdmissionPolicy: what must hold, and whether a write that breaks it is refused, warned of or noted down
//! (`plugin/policy/validating`).

use serde_json::{Value, json};

use super::{Attributes, Context, Scene, concerning, list, parameters};
use crate::api::status::{Result, Status};
use crate::control::apiserver::lookup;

pub(in crate::control::apiserver::admission) fn validate(
    context: &Context,
    write: &mut Attributes,
) -> Result<()> {
    let kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
    for (policy, binding) in concerning(context, kinds.0, kinds.1, write) {
        bound(context, &policy, &binding, write)?;
    }
    Ok(())
}

/// One policy by one binding, for each of its parameters.
fn bound(context: &Context, policy: &Value, binding: &Value, write: &mut Attributes) -> Result<()> {
    let failing = policy["spec"]["failurePolicy"] != "Ignore";
    let parameters = match parameters(context, policy, binding, write) {
        Ok(parameters) => parameters,
        Err(why) if failing => return refuse(policy, binding, write, &[(why, "Invalid")]),
        Err(_) => return Ok(()),
    };
    for parameter in parameters {
        let broken = judge(context, policy, &parameter, write, failing);
        if !broken.is_empty() {
            refuse(policy, binding, write, &broken)?;
        }
    }
    Ok(())
}

/// What of a policy a write breaks: texts and reasons.
fn judge(
    context: &Context,
    policy: &Value,
    parameter: &Value,
    write: &Attributes,
    failing: bool,
) -> Vec<(String, &'static str)> {
    let spec = &policy["spec"];
    let scene = Scene::new(context, write, parameter);
    match scene.holds(spec) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(wrong) => return wrong.into_iter().filter(|_| failing).map(|why| (why, "Invalid")).collect(),
    }
    let scene = scene.with_variables(spec);
    let mut broken = Vec::new();
    for validation in list(&spec["validations"]) {
        match scene.evaluate(lookup::text(validation, "/expression")) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => broken.push((said(&scene, validation), reason(&validation["reason"]))),
            Err(why) => broken.extend(failing.then_some((why, "Invalid"))),
        }
    }
    broken
}

/// What a validation that does not hold says.
fn said(scene: &Scene, validation: &Value) -> String {
    let computed = validation["messageExpression"].as_str().and_then(|source| {
        let value = scene.evaluate(source).ok()?;
        value.as_str().map(str::to_owned).filter(|text| !text.trim().is_empty())
    });
    let own = validation["message"].as_str().map(str::to_owned);
    let text = computed.or(own);
    let text =
        text.unwrap_or_else(|| format!("failed expression: {}", lookup::text(validation, "/expression")));
    text.trim().to_owned()
}

fn reason(value: &Value) -> &'static str {
    match value.as_str() {
        Some("Unauthorized") => "Unauthorized",
        Some("Forbidden") => "Forbidden",
        Some("RequestEntityTooLarge") => "RequestEntityTooLarge",
        _ => "Invalid",
    }
}

/// What a binding does about what is broken.
fn refuse(
    policy: &Value,
    binding: &Value,
    write: &mut Attributes,
    broken: &[(String, &'static str)],
) -> Result<()> {
    let (own, by) = (lookup::text(policy, "/metadata/name"), lookup::text(binding, "/metadata/name"));
    let does = |action: &str| list(&binding["spec"]["validationActions"]).iter().any(|one| *one == action);
    if does("Warn") {
        let texts = broken.iter().map(|(text, _)| {
            format!("Validation failed for ValidatingAdmissionPolicy '{own}' with binding '{by}': {text}")
        });
        write.warnings.extend(texts);
    }
    if does("Audit") {
        let failures: Vec<Value> = broken
            .iter()
            .enumerate()
            .map(|(index, (text, _))| {
                json!({"message": text, "policy": own, "binding": by, "expressionIndex": index,
                    "validationActions": binding["spec"]["validationActions"]})
            })
            .collect();
        write.annotate(
            "validation.policy.admission.k8s.io/validation_failure",
            &Value::from(failures).to_string(),
        );
    }
    let (Some((text, reason)), true) = (broken.first(), does("Deny")) else { return Ok(()) };
    let message = format!("ValidatingAdmissionPolicy '{own}' with binding '{by}' denied request: {text}");
    let mut status = write.forbidden(&message);
    status.reason = reason;
    status.code = match *reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let details = status.details.get_or_insert_with(|| json!({}));
    details["causes"] = json!([{"message": message}]);
    Err::<(), Status>(status)
}
