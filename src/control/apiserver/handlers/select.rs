//! Which objects of a bucket a list or watch is about: namespace, labels, fields.

use serde_json::Value;

use crate::api::selector::{FieldSelector, LabelSelector};
use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::store::Entry;

/// A parsed selection.
pub struct Selection {
    row: &'static Resource,
    /// Keys of the selection begin with this.
    pub prefix: String,
    /// The one key, when `metadata.name` is pinned.
    key: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// # Errors
    /// 400 for selectors that do not parse and fields the kind cannot be selected by.
    pub fn read(call: &Call, row: &'static Resource) -> Result<Self> {
        let asked = call.asked();
        let unable = |error| Status::bad_request(format!("unable to parse requirement: {error}"));
        let labels = LabelSelector::parse(&asked.label_selector).map_err(|error| {
            let text = error.to_string();
            if text.starts_with("unable to parse requirement") {
                Status::bad_request(text)
            } else {
                unable(text)
            }
        })?;
        let mut fields = FieldSelector::parse(&asked.field_selector)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        for term in &fields.terms {
            if row.selected(&Value::Null, &term.field).is_none() {
                return Err(Status::bad_request(format!("field label not supported: {}", term.field)));
            }
        }
        let prefix = match row.namespaced && !asked.namespace.is_empty() {
            true => format!("{}/", asked.namespace),
            false => String::new(),
        };
        let one_place = !row.namespaced || !prefix.is_empty();
        let key = fields.exact("metadata.name").filter(|_| one_place).map(|name| format!("{prefix}{name}"));
        if key.is_some() {
            // The key says it all; then nothing need be decoded for it.
            fields.terms.retain(|term| term.field != "metadata.name" || term.negated);
        }
        Ok(Self { row, prefix, key, labels, fields })
    }

    /// Everything of the namespace, or of the resource.
    pub fn is_plain(&self) -> bool {
        self.key.is_none() && self.labels.is_everything() && self.fields.is_everything()
    }

    /// The prefix to list: the key itself when there is only one.
    pub fn start(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.prefix)
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        self.matches_key(&entry.key) && self.matches_value(entry)
    }

    fn matches_key(&self, key: &str) -> bool {
        match &self.key {
            Some(own) => own == key,
            None => key.starts_with(&self.prefix),
        }
    }

    fn matches_value(&self, entry: &Entry) -> bool {
        if self.labels.is_everything() && self.fields.is_everything() {
            return true;
        }
        let Ok(object) = serde_json::from_slice::<Value>(&entry.value) else { return false };
        self.labels.matches(&object["metadata"]["labels"])
            && self.fields.matches(|field| self.row.selected(&object, field))
    }
}
