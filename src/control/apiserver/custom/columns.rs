//! `additionalPrinterColumns`: the table of a custom kind, its cells found by JSONPath
//! (`apiextensions-apiserver/pkg/registry/customresource/tableconvertor`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::age;
use crate::control::apiserver::table::{self, cells};

/// One column after the name.
#[derive(Debug, Clone)]
pub struct Printed {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: Vec<Step>,
}

/// One step of a JSONPath.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.type=="Ready")]`: items whose field at this path equals the text.
    Where {
        path: Vec<Step>,
        equal: bool,
        text: String,
    },
}

impl Printed {
    /// The columns of a version: its own, or the age.
    pub fn of(version: &Value) -> Vec<Self> {
        let own = version["additionalPrinterColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
        match own {
            [] => vec![Self::read(&json!({
                "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                "description": cells::AGE.description,
            }))],
            columns => columns.iter().map(Self::read).collect(),
        }
    }

    fn read(column: &Value) -> Self {
        let text = |field: &str| super::text(column, field).to_owned();
        let (path, mut description) = (text("jsonPath"), text("description"));
        if description.is_empty() {
            description = format!("Custom resource definition column (in JSONPath format): {path}");
        }
        let priority = column["priority"].as_i64().unwrap_or(0);
        let steps = parse(&path).unwrap_or_default();
        Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description,
            priority,
            path: steps,
        }
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(found) = find(object, &self.path).first().copied() else { return Value::Null };
        match (self.kind.as_str(), found) {
            ("string", Value::String(_)) => found.clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => {
                json!(number.as_i64().unwrap_or(number.as_f64().unwrap_or_default() as i64))
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("date", Value::String(text)) => age::since(Some(text), now).into(),
            _ => Value::Null,
        }
    }
}

pub fn definitions(columns: &[Printed]) -> Vec<Value> {
    let mut all = vec![table::definition(&cells::NAME)];
    all.extend(columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    }));
    all
}

pub fn cells(columns: &[Printed], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = vec![cells::name(object)];
    all.extend(columns.iter().map(|column| column.cell(object, now)));
    all
}

/// Reads a JSONPath; none for what this table does not take.
fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches(['$', '@']);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = bracket(inner)?;
            steps.push(step);
            rest = after;
            continue;
        }
        let (word, after) = word(rest.strip_prefix('.').unwrap_or(rest));
        if word.is_empty() {
            return None;
        }
        steps.push(if word == "*" { Step::All } else { Step::Field(word) });
        rest = after;
    }
    Some(steps)
}

/// A field's name up to the next step; `\.` is a dot of its own.
fn word(text: &str) -> (String, &str) {
    let (mut word, mut escaped) = (String::new(), false);
    for (at, letter) in text.char_indices() {
        match letter {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (word, &text[at..]),
            other => {
                word.push(other);
                escaped = false;
            }
        }
    }
    (word, "")
}

/// What is between brackets: a place, a name, all, or a filter.
fn bracket(inner: &str) -> Option<(Step, &str)> {
    if let Some(filter) = inner.strip_prefix("?(") {
        let (condition, after) = filter.split_once(")]")?;
        let (equal, (path, text)) = match condition.split_once("==") {
            Some(parts) => (true, parts),
            None => (false, condition.split_once("!=")?),
        };
        let text = text.trim().trim_matches(['"', '\'']).to_owned();
        return Some((Step::Where { path: parse(path.trim())?, equal, text }, after));
    }
    let (name, after) = inner.split_once(']')?;
    let step = match name.trim() {
        "*" => Step::All,
        quoted if quoted.starts_with(['"', '\'']) => Step::Field(quoted.trim_matches(['"', '\'']).to_owned()),
        number => Step::Index(number.parse().ok()?),
    };
    Some((step, after))
}

/// Everything at a path.
fn find<'a>(value: &'a Value, path: &[Step]) -> Vec<&'a Value> {
    let Some((step, rest)) = path.split_first() else {
        return if value.is_null() { Vec::new() } else { vec![value] };
    };
    let items = || value.as_array().map(Vec::as_slice).unwrap_or_default();
    match step {
        Step::Field(name) => value.get(name).map(|inner| find(inner, rest)).unwrap_or_default(),
        Step::Index(index) => {
            let place = if *index < 0 { items().len() as i64 + index } else { *index };
            let item = usize::try_from(place).ok().and_then(|place| items().get(place));
            item.map(|inner| find(inner, rest)).unwrap_or_default()
        }
        Step::All => match value {
            Value::Object(fields) => fields.values().flat_map(|inner| find(inner, rest)).collect(),
            _ => items().iter().flat_map(|inner| find(inner, rest)).collect(),
        },
        Step::Where { path, equal, text } => {
            let is = |item: &&Value| {
                let own = find(item, path)
                    .first()
                    .map(|own| own.as_str().map_or_else(|| own.to_string(), str::to_owned));
                (own.as_deref() == Some(text)) == *equal
            };
            items().iter().filter(is).flat_map(|inner| find(inner, rest)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_by_their_paths() {
        let object = json!({"spec": {"replicas": 3, "a.b": "x", "list": ["p", "q"]},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let at = |path: &str| find(&object, &parse(path).unwrap()).first().map(|value| (*value).clone());
        assert_eq!(at(".spec.replicas"), Some(json!(3)));
        assert_eq!(at(r".spec.a\.b"), Some(json!("x")));
        assert_eq!(at(".spec['a.b']"), Some(json!("x")));
        assert_eq!(at(".spec.list[1]"), Some(json!("q")));
        assert_eq!(at(r#".status.conditions[?(@.type=="Ready")].status"#), Some(json!("True")));
        assert_eq!(at(".spec.nothing"), None);
        assert_eq!(parse(".spec..x"), None);
    }
}
