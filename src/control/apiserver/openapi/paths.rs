//! Paths: every operation of every row, with the parameters clients look for.

use serde_json::{Map, Value, json};

use super::schemas::{Names, reference};
use crate::control::apiserver::registry::{Resource, Subresource};

/// The patches we take, in upstream's order.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

pub fn of(rows: &[&Resource], names: &[Names]) -> Value {
    let mut paths = Map::new();
    for (row, names) in rows.iter().zip(names) {
        let api = Api { row, names };
        api.collection(&mut paths);
        api.one(&mut paths);
        row.subresources.iter().for_each(|subresource| api.below(&mut paths, subresource));
    }
    Value::Object(paths)
}

/// One row's part of the document.
struct Api<'a> {
    row: &'a Resource,
    names: &'a Names,
}

impl Api<'_> {
    fn base(&self) -> String {
        let prefix = if self.row.group.is_empty() { "/api/" } else { "/apis/" };
        format!("{prefix}{}", self.row.api_version())
    }

    fn has(&self, verb: &str) -> bool {
        self.row.verbs.contains(&verb)
    }

    fn collection(&self, paths: &mut Map<String, Value>) {
        let base = self.base();
        let mut item = Map::new();
        if self.has("list") {
            item.insert("get".into(), self.operation("list", &self.names.list, LIST));
        }
        if self.has("create") {
            item.insert(
                "post".into(),
                with_body(self.operation("post", &self.names.object, WRITE), &self.names.object),
            );
        }
        if self.has("deletecollection") {
            let operation = self.operation("deletecollection", STATUS, LIST);
            item.insert("delete".into(), with_body(operation, OPTIONS));
        }
        if self.row.namespaced {
            if let (true, Some(list)) = (self.has("list"), item.get("get").cloned()) {
                paths.insert(format!("{base}/{}", self.row.plural), json!({"get": list}));
            }
            item.insert("parameters".into(), json!([in_path("namespace")]));
            paths.insert(format!("{base}/namespaces/{{namespace}}/{}", self.row.plural), Value::Object(item));
        } else {
            paths.insert(format!("{base}/{}", self.row.plural), Value::Object(item));
        }
    }

    fn one_path(&self) -> String {
        let place = if self.row.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{place}/{}/{{name}}", self.base(), self.row.plural)
    }

    fn place(&self) -> Value {
        match self.row.namespaced {
            true => json!([in_path("name"), in_path("namespace")]),
            false => json!([in_path("name")]),
        }
    }

    fn one(&self, paths: &mut Map<String, Value>) {
        if !self.has("get") {
            return;
        }
        let object = self.names.object.as_str();
        let mut item = Map::from_iter([("parameters".to_owned(), self.place())]);
        item.insert("get".into(), self.operation("get", object, &[]));
        for (verb, method, action) in [("update", "put", "put"), ("patch", "patch", "patch")] {
            if self.has(verb) {
                let operation = self.operation(action, object, if verb == "patch" { PATCH } else { WRITE });
                let operation =
                    if verb == "patch" { with_patch(operation) } else { with_body(operation, object) };
                item.insert(method.into(), operation);
            }
        }
        if self.has("delete") {
            let operation = self.operation("delete", STATUS, DELETE);
            item.insert("delete".into(), with_body(operation, OPTIONS));
        }
        paths.insert(self.one_path(), Value::Object(item));
    }

    fn below(&self, paths: &mut Map<String, Value>, subresource: &Subresource) {
        if subresource.kind.ends_with("Options") {
            return self.connect(paths, subresource);
        }
        let (group, version, kind, definition) = self.kind_of(subresource);
        let mut item = Map::from_iter([("parameters".to_owned(), self.place())]);
        for verb in subresource.verbs {
            let (method, action, parameters) = match *verb {
                "get" => ("get", "get", &[][..]),
                "create" => ("post", "post", WRITE),
                "update" => ("put", "put", WRITE),
                "patch" => ("patch", "patch", PATCH),
                _ => continue,
            };
            let mut operation = self.operation(action, &definition, parameters);
            operation["operationId"] =
                json!(format!("{}{}", text(&operation["operationId"]), camel(subresource.name)));
            operation["x-kubernetes-group-version-kind"] =
                json!({"group": group, "kind": kind, "version": version});
            item.insert(
                method.into(),
                match *verb {
                    "get" => operation,
                    "patch" => with_patch(operation),
                    _ => with_body(operation, &definition),
                },
            );
        }
        paths.insert(format!("{}/{}", self.one_path(), subresource.name), Value::Object(item));
    }

    /// What is passed on to a kubelet, pod, service or node: whatever comes back is called a string.
    fn connect(&self, paths: &mut Map<String, Value>, subresource: &Subresource) {
        let row = self.row;
        let methods: &[&str] = match subresource.name {
            "proxy" => &["get", "put", "post", "delete", "options", "head", "patch"],
            _ => &["get", "post"],
        };
        let path = format!("{}/{}", self.one_path(), subresource.name);
        let scope = if row.namespaced { "Namespaced" } else { "" };
        let mut item = Map::from_iter([("parameters".to_owned(), self.place())]);
        for method in methods {
            let operation = json!({
                "operationId": format!("connectCore{}{}{scope}{}{}", camel(row.version), camel(method), row.kind, camel(subresource.name)),
                "description": format!("connect {} requests to {} of {}", method.to_uppercase(), subresource.name, row.kind),
                "tags": [format!("core_{}", row.version)],
                "responses": {"200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}},
                    "401": {"description": "Unauthorized"}},
                "x-kubernetes-action": "connect",
                "x-kubernetes-group-version-kind": {"group": row.group, "kind": subresource.kind, "version": row.version},
            });
            item.insert((*method).to_owned(), operation);
        }
        if subresource.name == "proxy" {
            let mut below = item.clone();
            if let Some(parameters) = below.get_mut("parameters").and_then(Value::as_array_mut) {
                parameters.push(in_path("path"));
            }
            for operation in below.values_mut().filter(|value| value.is_object()) {
                operation["operationId"] = json!(format!("{}WithPath", text(&operation["operationId"])));
            }
            paths.insert(format!("{path}/{{path}}"), Value::Object(below));
        }
        paths.insert(path, Value::Object(item));
    }

    /// Group, version, kind and definition of what a subresource reads and writes.
    fn kind_of<'b>(&'b self, subresource: &'b Subresource) -> (&'b str, &'b str, &'b str, String) {
        let row = self.row;
        match (subresource.kind, subresource.version) {
            ("", _) => (row.group, row.version, row.kind, self.names.object.clone()),
            (kind, "") => (row.group, row.version, kind, format!("io.k8s.api.core.v1.{kind}")),
            (kind, version) => {
                let package = subresource.group.split('.').next().unwrap_or_default();
                (subresource.group, version, kind, format!("io.k8s.api.{package}.{version}.{kind}"))
            }
        }
    }

    fn operation(&self, action: &str, answer: &str, parameters: &[(&str, &str, &str)]) -> Value {
        let row = self.row;
        let verb = match action {
            "post" => "create",
            "put" => "replace",
            "get" => "read",
            "deletecollection" => "deleteCollection",
            other => other,
        };
        let scope = if row.namespaced { "Namespaced" } else { "" };
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|(name, kind, description)| {
                json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
            })
            .collect();
        json!({
            "operationId": format!("{verb}{}{}{scope}{}", camel(row.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core")), camel(row.version), row.kind),
            "description": format!("{verb} {}", row.kind),
            "tags": [format!("{}_{}", row.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core"), row.version)],
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference(answer)}}},
                "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": row.group, "kind": row.kind, "version": row.version},
        })
    }
}

type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
);
const MANAGER: Parameter = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes.",
);
const VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
);
const WRITE: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
    ("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
];
const LIST: &[Parameter] = &[
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];

fn with_body(mut operation: Value, definition: &str) -> Value {
    operation["requestBody"] = json!({"content": {"*/*": {"schema": reference(definition)}}});
    operation
}

fn with_patch(mut operation: Value) -> Value {
    let content = PATCHES.map(|kind| (kind.to_owned(), json!({"schema": {"type": "object"}})));
    operation["requestBody"] = json!({"required": true, "content": Value::Object(Map::from_iter(content))});
    operation
}

fn in_path(name: &str) -> Value {
    let description = match name {
        "namespace" => "object name and auth scope, such as for teams and projects",
        "path" => "path to the resource",
        _ => "name of the object",
    };
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string", "uniqueItems": true}})
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn camel(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
