//! Fields a JSON or YAML body gives twice, which reading it into a tree loses.
//!
//! Stands for the duplicate check of `sigs.k8s.io/json`'s strict decoder.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// More than this many are not listed.
const MOST: usize = 100;

/// `duplicate field "data.a"` for each; nothing for a body that is no JSON.
pub fn find(body: &[u8]) -> Vec<String> {
    look(&mut serde_json::Deserializer::from_slice(body))
}

/// The same in YAML.
pub fn find_in_yaml(body: &[u8]) -> Vec<String> {
    look(serde_yaml_ng::Deserializer::from_slice(body))
}

fn look<'de>(text: impl Deserializer<'de>) -> Vec<String> {
    let mut look = Look { path: String::new(), found: Vec::new() };
    // What is wrong with the text otherwise is said by whoever reads it for its contents.
    let _ = Node(&mut look).deserialize(text);
    look.found
}

struct Look {
    path: String,
    found: Vec<String>,
}

/// The value at the path.
struct Node<'a>(&'a mut Look);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            if seen.contains(&key) {
                if self.0.found.len() < MOST {
                    let path = &self.0.path;
                    self.0.found.push(format!("duplicate field {path:?}"));
                }
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Node(&mut *self.0))?;
                seen.insert(key);
            }
            self.0.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        for index in 0.. {
            self.0.path.push_str(&format!("[{index}]"));
            let more = list.next_element_seed(Node(&mut *self.0))?;
            self.0.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_given_twice_is_named_by_its_path() {
        let body = br#"{"data": {"a": "1", "b": {"c": 1}, "a": "2"}, "list": [{"x": 1}, {"y": 1, "y": 2}]}"#;
        assert_eq!(find(body), [r#"duplicate field "data.a""#, r#"duplicate field "list[1].y""#]);
        assert!(find(br#"{"a": {"b": 1}, "b": {"b": 1}}"#).is_empty());
        assert_eq!(find_in_yaml(b"data:\n  a: 1\n  a: 2\n"), [r#"duplicate field "data.a""#]);
    }
}
