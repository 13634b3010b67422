//! What a mutation's expression is worth: an apply configuration (`Object{…}`) or a list of patch operations
//! (`JSONPatch{…}`), and what becomes of an object by it (`plugin/policy/mutating/patch`).

use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, MapEntryExpr, MapExpr};
use serde_json::Value;

use super::Scene;
use crate::api::fields::merge;
use crate::api::fields::shape::{At, Inside};
use crate::api::fields::walk;
use crate::control::apiserver::apply;
use crate::control::apiserver::cel as library;
use crate::control::apiserver::registry::Resource;

/// Compiles a mutation's expression.
///
/// # Errors
/// What is wrong with it, as a field's error says it.
pub fn compile(source: &str) -> Result<IdedExpr, String> {
    let mut expression = library::parsed(source)?;
    plain(&mut expression, None)?;
    Ok(expression)
}

impl Scene {
    fn constructed(&self, source: &str) -> Result<Value, String> {
        let outcome =
            compile(source).and_then(|expression| library::value_of_parsed(&expression, &self.values));
        outcome.map_err(|why| format!("expression '{source}' resulted in error: {why}"))
    }
}

/// Operations on an object; a test that fails leaves it as it was.
pub fn by_operations(scene: &Scene, source: &str, object: Value) -> Result<Value, String> {
    let Value::Array(mut operations) = scene.constructed(source)? else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    for operation in operations.iter_mut().filter_map(Value::as_object_mut) {
        let sets = matches!(operation.get("op").and_then(Value::as_str), Some("add" | "replace" | "test"));
        if sets {
            operation.entry("value").or_insert(Value::Null);
        }
    }
    let operations: json_patch::Patch = serde_json::from_value(Value::Array(operations))
        .map_err(|error| format!("failed to create JSON patch: {error}"))?;
    let mut changed = object.clone();
    match json_patch::patch(&mut changed, &operations) {
        Ok(()) => Ok(changed),
        Err(error) if matches!(error.kind, json_patch::PatchErrorKind::TestFailed) => Ok(object),
        Err(error) => Err(format!("JSONPath: {error}")),
    }
}

/// A configuration merged into an object, as an apply merges it.
pub fn by_configuration(scene: &Scene, source: &str, object: Value, row: &Resource) -> Result<Value, String> {
    let mut configuration = scene.constructed(source)?;
    if !configuration.is_object() {
        return Err("unsupported return type from ApplyConfiguration expression".to_owned());
    }
    configuration["apiVersion"] = object["apiVersion"].clone();
    configuration["kind"] = object["kind"].clone();
    let shape = apply::shape(row);
    let wrong = |why: String| format!("error applying patch: {why}");
    let mistakes = walk::mistakes(shape.root(), &configuration);
    if !mistakes.is_empty() {
        return Err(wrong(format!(
            "failed to convert patch object to typed object: {}",
            mistakes.join(", ")
        )));
    }
    let mut whole = Vec::new();
    atomics(shape.root(), &configuration, "", &mut whole);
    if !whole.is_empty() {
        let why = format!("may not mutate atomic arrays, maps or structs: {}", whole.join(", "));
        return Err(wrong(format!("invalid ApplyConfiguration: {why}")));
    }
    Ok(merge::merge(shape.root(), &object, &configuration))
}

/// Where a configuration sets a list, map or struct that is one value: what it leaves out would be lost.
fn atomics(at: At<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match (at.inside(value), value) {
        (Inside::Map(fields), _) => {
            for (name, inner) in fields {
                if let Some(at) = at.field(name) {
                    atomics(at, inner, &format!("{path}.{name}"), found);
                }
            }
        }
        (Inside::List(items), _) => {
            for (index, item) in items.iter().enumerate() {
                atomics(at.item(), item, &format!("{path}[{index}]"), found);
            }
        }
        (Inside::Whole, Value::Array(_) | Value::Object(_)) => found.push(path.to_owned()),
        _ => {}
    }
}

/// Makes `Object.spec{a: 1}` and `JSONPatch{…}` maps, each with the name its place must have, and
/// `jsonpatch.escapeKey(x)` what it stands for.
fn plain(expression: &mut IdedExpr, place: Option<&str>) -> Result<(), String> {
    match &mut expression.expr {
        Expr::Struct(own) => {
            let name = own.type_name.trim_start_matches('.').to_owned();
            if name != "JSONPatch" && name != "Object" && !name.starts_with("Object.") {
                return Err(format!(
                    "compilation failed: undeclared reference to '{name}' (in container '')"
                ));
            }
            if let Some(place) = place.filter(|place| *place != name) {
                return Err(format!("type mismatch: unexpected type name {name:?}, expected {place:?}"));
            }
            let mut entries = std::mem::take(&mut own.entries);
            for entry in &mut entries {
                let EntryExpr::StructField(field) = &mut entry.expr else { continue };
                let below = (name != "JSONPatch").then(|| format!("{name}.{}", field.field));
                plain(&mut field.value, below.as_deref())?;
                let key = IdedExpr {
                    id: entry.id,
                    expr: Expr::Literal(LiteralValue::String(field.field.clone().into())),
                };
                let (value, optional) = (std::mem::take(&mut field.value), field.optional);
                entry.expr = EntryExpr::MapEntry(MapEntryExpr { key, value, optional });
            }
            expression.expr = Expr::Map(MapExpr { entries });
        }
        Expr::Call(call) => {
            escaping(call);
            for inner in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
                // A choice between two is at the place of either; what else is called says its type itself.
                plain(inner, place.filter(|_| call.func_name == "_?_:_"))?;
            }
        }
        Expr::List(list) => {
            for inner in &mut list.elements {
                plain(inner, place)?;
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    plain(&mut entry.value, None)?;
                }
            }
        }
        Expr::Select(select) => plain(&mut select.operand, None)?,
        Expr::Comprehension(each) => {
            for inner in [
                &mut each.iter_range,
                &mut each.accu_init,
                &mut each.loop_cond,
                &mut each.loop_step,
                &mut each.result,
            ] {
                plain(inner, None)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `jsonpatch.escapeKey(x)` is `x.replace('~', '~0').replace('/', '~1')`.
fn escaping(call: &mut CallExpr) {
    let named = matches!(call.target.as_deref(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name == "jsonpatch");
    if !named || call.func_name != "escapeKey" || call.args.len() != 1 {
        return;
    }
    let text =
        |text: &str| IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(text.to_owned().into())) };
    let replace = |of: IdedExpr, from: &str, to: &str| CallExpr {
        func_name: "replace".to_owned(),
        target: Some(Box::new(of)),
        args: vec![text(from), text(to)],
    };
    let key = call.args.pop().unwrap_or_default();
    let inner = IdedExpr { id: 0, expr: Expr::Call(replace(key, "~", "~0")) };
    *call = replace(inner, "/", "~1");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::apiserver::registry;

    fn scene(object: &Value) -> Scene {
        Scene { values: vec![("object", library::exactly(object))] }
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}})
    }

    #[test]
    fn a_configuration_is_merged_by_the_keys_of_its_lists() {
        let row = registry::find("", "v1", "pods").unwrap();
        let source = r#"Object{metadata: Object.metadata{labels: {"added": object.metadata.name}},
            spec: Object.spec{initContainers: [Object.spec.initContainers{name: "side", image: "s", restartPolicy: "Always"}]}}"#;
        let changed = by_configuration(&scene(&pod()), source, pod(), row).unwrap();
        assert_eq!(changed["metadata"]["labels"], json!({"x": "y", "added": "a"}));
        assert_eq!(changed["spec"]["initContainers"][0]["name"], "side");
        assert_eq!(changed["spec"]["containers"], pod()["spec"]["containers"]);
        let whole =
            r#"Object{spec: Object.spec{containers: [Object.spec.containers{name: "c", args: ["x"]}]}}"#;
        let why = by_configuration(&scene(&pod()), whole, pod(), row).unwrap_err();
        assert!(
            why.contains("may not mutate atomic arrays, maps or structs: .spec.containers[0].args"),
            "{why}"
        );
        let wrong = compile("Object{spec: Object.wrong{}}").unwrap_err();
        assert_eq!(wrong, "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\"");
        assert!(compile("Thing{}").unwrap_err().contains("undeclared reference to 'Thing'"));
    }

    #[test]
    fn operations_change_an_object_and_a_failed_test_leaves_it() {
        let source = r#"[JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("a.io/b~"), value: "1"},
            JSONPatch{op: "add", path: "/spec/tolerations", value: [{"key": "k"}]}]"#;
        let changed = by_operations(&scene(&pod()), source, pod()).unwrap();
        assert_eq!(changed["metadata"]["labels"]["a.io/b~"], "1");
        assert_eq!(changed["spec"]["tolerations"][0]["key"], "k");
        let test = r#"[JSONPatch{op: "test", path: "/metadata/name", value: "b"}, JSONPatch{op: "remove", path: "/metadata/labels"}]"#;
        assert_eq!(by_operations(&scene(&pod()), test, pod()).unwrap(), pod());
    }
}
