//! A kind's shape as far as merging goes: which places are one value, which lists have keys.
//!
//! Read from an OpenAPI or CRD schema with its `x-kubernetes-list-type` and `x-kubernetes-map-type`.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::Element;

/// All places of a kind; places that are alike share a node, so a schema may refer to itself.
#[derive(Debug)]
pub struct Shape {
    nodes: Vec<Node>,
    root: usize,
}

#[derive(Debug)]
enum Node {
    /// One value, whatever is in it.
    Leaf,
    /// A map: fields with a shape each, and the shape of all others, if there may be others.
    Fields { fields: HashMap<String, usize>, rest: Option<usize> },
    /// A list whose items are told apart by keys; a key that is left out has its default.
    Keyed { keys: Vec<(String, Option<Value>)>, of: usize },
    /// A list of scalars without an order.
    Set,
    /// Nothing is known: maps are merged, lists are one value.
    Deduced,
}

/// One place of a kind.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    shape: &'a Shape,
    node: usize,
}

/// What a value's inside is to be looked at as.
pub enum Inside<'a> {
    /// Nothing inside belongs to anybody by itself.
    Whole,
    Map(&'a Map<String, Value>),
    List(&'a [Value]),
}

impl Shape {
    /// Reads a schema; `definitions` are what its references name.
    pub fn read(schema: &Value, definitions: &Map<String, Value>) -> Self {
        let mut shape = Self { nodes: vec![Node::Leaf, Node::Deduced], root: 0 };
        let mut named = HashMap::new();
        shape.root = shape.node(schema, definitions, &mut named);
        shape
    }

    pub fn root(&self) -> At<'_> {
        At { shape: self, node: self.root }
    }

    fn node(
        &mut self,
        schema: &Value,
        definitions: &Map<String, Value>,
        named: &mut HashMap<String, usize>,
    ) -> usize {
        if schema["x-kubernetes-map-type"] == "atomic" {
            return LEAF;
        }
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        if let Some(name) = reference.map(|place| place.rsplit('/').next().unwrap_or_default()) {
            if let Some(node) = named.get(name) {
                return *node;
            }
            let place = self.nodes.len();
            self.nodes.push(Node::Leaf);
            named.insert(name.to_owned(), place);
            let made = self.make(definitions.get(name).unwrap_or(&Value::Null), definitions, named);
            self.nodes[place] = made;
            return place;
        }
        match self.make(schema, definitions, named) {
            Node::Leaf => LEAF,
            Node::Deduced => DEDUCED,
            made => {
                self.nodes.push(made);
                self.nodes.len() - 1
            }
        }
    }

    fn make(
        &mut self,
        schema: &Value,
        definitions: &Map<String, Value>,
        named: &mut HashMap<String, usize>,
    ) -> Node {
        if schema["x-kubernetes-map-type"] == "atomic" {
            return Node::Leaf;
        }
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        match schema["type"].as_str() {
            Some("array") => self.list(schema, definitions, named),
            Some("object") => {
                let mut fields = HashMap::new();
                for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                    fields.insert(name.clone(), self.node(inner, definitions, named));
                }
                let rest = match &schema["additionalProperties"] {
                    of @ Value::Object(_) => Some(self.node(of, definitions, named)),
                    _ if open => Some(DEDUCED),
                    _ => None,
                };
                match fields.is_empty() && rest.is_none() {
                    true => Node::Deduced,
                    false => Node::Fields { fields, rest },
                }
            }
            None if open => Node::Deduced,
            None if schema
                .as_object()
                .is_some_and(|fields| fields.keys().all(|key| key == "description")) =>
            {
                Node::Deduced
            }
            _ => Node::Leaf,
        }
    }

    fn list(
        &mut self,
        schema: &Value,
        definitions: &Map<String, Value>,
        named: &mut HashMap<String, usize>,
    ) -> Node {
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Node::Set,
            Some("map") => {
                let items = &schema["items"];
                let reference = items["$ref"].as_str().or_else(|| items["allOf"][0]["$ref"].as_str());
                let item = match reference {
                    Some(place) => definitions.get(place.rsplit('/').next().unwrap_or_default()),
                    None => Some(items),
                };
                let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                let keys = names.filter_map(Value::as_str).map(|name| {
                    let default = item.and_then(|item| item["properties"][name].get("default")).cloned();
                    (name.to_owned(), default)
                });
                Node::Keyed { keys: keys.collect(), of: self.node(items, definitions, named) }
            }
            _ => Node::Leaf,
        }
    }
}

const LEAF: usize = 0;
const DEDUCED: usize = 1;

impl<'a> At<'a> {
    fn node(self) -> &'a Node {
        &self.shape.nodes[self.node]
    }

    fn of(self, node: usize) -> Self {
        Self { node, ..self }
    }

    /// How a value at this place is looked at.
    pub fn inside(self, value: &Value) -> Inside<'_> {
        match (self.node(), value) {
            (Node::Fields { .. } | Node::Deduced, Value::Object(map)) => Inside::Map(map),
            (Node::Keyed { .. } | Node::Set, Value::Array(list)) => Inside::List(list),
            _ => Inside::Whole,
        }
    }

    /// The place of a field; none if the kind has no such field.
    pub fn field(self, name: &str) -> Option<Self> {
        match self.node() {
            Node::Fields { fields, rest } => fields.get(name).or(rest.as_ref()).map(|node| self.of(*node)),
            Node::Deduced => Some(self),
            _ => None,
        }
    }

    /// Whether a field's name is the user's and not the kind's.
    pub fn is_item(self, name: &str) -> bool {
        match self.node() {
            Node::Fields { fields, .. } => !fields.contains_key(name),
            _ => true,
        }
    }

    /// Whether this is a map of the user's own names (labels), and no struct.
    pub fn is_map(self) -> bool {
        match self.node() {
            Node::Fields { fields, .. } => fields.is_empty(),
            Node::Deduced => true,
            _ => false,
        }
    }

    /// The place of a list's items.
    pub fn item(self) -> Self {
        match self.node() {
            Node::Keyed { of, .. } => self.of(*of),
            _ => self.of(LEAF),
        }
    }

    /// What tells an item of this list from the others.
    ///
    /// # Errors
    /// The name of a key that is missing and has no default.
    pub fn element(self, item: &Value) -> Result<Element, String> {
        let Node::Keyed { keys, .. } = self.node() else { return Ok(Element::Value(item.to_string())) };
        let mut own = BTreeMap::new();
        for (name, default) in keys {
            match item.get(name).filter(|value| !value.is_null()).or(default.as_ref()) {
                Some(value) => drop(own.insert(name.clone(), value.clone())),
                // One of several keys may be left out (`hostIP`); a lone one may not.
                None if keys.len() > 1 => {}
                None => return Err(name.clone()),
            }
        }
        match own.is_empty() {
            true => Err(keys.first().map(|(name, _)| name.clone()).unwrap_or_default()),
            false => Ok(Element::key(&own)),
        }
    }

    /// The items of a list with what tells them apart; those that cannot be told apart go by their place.
    pub fn elements(self, list: &[Value]) -> Vec<(Element, &Value)> {
        let place = |(index, item)| (self.element(item).unwrap_or(Element::Index(index as i64)), item);
        list.iter().enumerate().map(place).collect()
    }
}
