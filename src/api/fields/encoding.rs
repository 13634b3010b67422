//! `FieldsV1`: a set of paths as `metadata.managedFields` carries it.

use serde_json::{Map, Value};

use super::{Element, Set};

/// Nothing anybody owns lies deeper.
const DEEPEST: usize = 100;

impl Set {
    pub fn encode(&self) -> Value {
        let mut out = Map::new();
        if self.member && !self.children.is_empty() {
            out.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, set) in &self.children {
            out.insert(element.encode(), set.encode());
        }
        Value::Object(out)
    }

    /// Reads a set back; none if it is not one.
    pub fn decode(fields: &Value) -> Option<Self> {
        let mut set = read(fields, 0)?;
        // A set's root is no path of its own.
        set.member = fields.get(".").is_some();
        Some(set)
    }
}

fn read(fields: &Value, depth: usize) -> Option<Set> {
    let fields = fields.as_object().filter(|_| depth <= DEEPEST)?;
    let mut set = Set { member: fields.is_empty() || fields.contains_key("."), ..Set::default() };
    for (name, inner) in fields.iter().filter(|(name, _)| *name != ".") {
        set.children.insert(Element::decode(name)?, read(inner, depth + 1)?);
    }
    Some(set)
}

impl Element {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "i" => rest.parse().ok().map(Self::Index),
            // Written again, so that two spellings of one key are one.
            "v" => serde_json::from_str::<Value>(rest).ok().map(|value| Self::Value(value.to_string())),
            "k" => {
                let keys: std::collections::BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::key(&keys))
            }
            _ => None,
        }
    }

    /// The element of an item with these keys.
    pub(super) fn key(keys: &std::collections::BTreeMap<String, Value>) -> Self {
        let pairs: Vec<String> =
            keys.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
        Self::Key(format!("{{{}}}", pairs.join(",")))
    }
}
