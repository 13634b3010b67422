//! The version 2 document as protobuf (`openapi.v2.Document` of gnostic), which kubectl validates with
//! for kinds no version 3 document has.
//!
//! Left out: paths, which only a kubectl older than 1.27 looks at.

use serde_json::Value;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn message(&mut self, field: u64, message: Message) {
        self.bytes(field, &message.0);
    }

    /// A map as gnostic has it: a list of names with values.
    fn named(&mut self, field: u64, map: &Value, of: fn(&Value) -> Message) {
        for (name, value) in map.as_object().into_iter().flatten() {
            let mut pair = Message::default();
            pair.bytes(1, name.as_bytes());
            pair.message(2, of(value));
            self.message(field, pair);
        }
    }
}

pub fn document(document: &Value) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    let mut all = Message::default();
    all.text(1, &document["swagger"]);
    all.message(2, info);
    all.message(8, Message::default());
    let mut definitions = Message::default();
    definitions.named(1, &document["definitions"], schema);
    all.message(9, definitions);
    all.0
}

fn schema(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &schema["$ref"]);
    out.text(2, &schema["format"]);
    out.text(4, &schema["description"]);
    for name in schema["required"].as_array().into_iter().flatten() {
        out.text(19, name);
    }
    let additional = &schema["additionalProperties"];
    if additional.is_object() {
        let mut item = Message::default();
        item.message(1, self::schema(additional));
        out.message(21, item);
    }
    if schema["type"].is_string() {
        let mut kind = Message::default();
        kind.text(1, &schema["type"]);
        out.message(22, kind);
    }
    if schema["items"].is_object() {
        let mut items = Message::default();
        items.message(1, self::schema(&schema["items"]));
        out.message(23, items);
    }
    if schema["properties"].is_object() {
        let mut properties = Message::default();
        properties.named(1, &schema["properties"], self::schema);
        out.message(25, properties);
    }
    let extensions = schema.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    for (name, value) in extensions {
        let (mut pair, mut any) = (Message::default(), Message::default());
        // Any JSON is YAML.
        any.bytes(2, value.to_string().as_bytes());
        pair.bytes(1, name.as_bytes());
        pair.message(2, any);
        out.message(31, pair);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_have_gnostics_numbers() {
        let out =
            schema(&json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}));
        let a = [0xb2, 1, 8, 0x0a, 6, b's', b't', b'r', b'i', b'n', b'g'];
        let pair = [&[0x0a, 1, b'a', 0x12, 11][..], &a].concat();
        let properties = [&[0x0a, 16][..], &pair].concat();
        let want =
            [&[0x9a, 1, 1, b'a', 0xb2, 1, 8, 0x0a, 6][..], b"object", &[0xca, 1, 18], &properties].concat();
        assert_eq!(out.0, want);
    }
}
