//! Hands a write to admission, which may change the object or refuse it.

use serde_json::Value;

use super::meta;
use crate::api::status::Result;
use crate::control::apiserver::admission::{Attributes, Operation};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;

/// What is written over what.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub call: &'a Call,
    pub row: &'a Resource,
    pub operation: Operation,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

impl Write<'_> {
    /// The first half of admission: plugins that may change the object; returns it as they leave it.
    pub async fn mutate(self, object: Value) -> Result<Value> {
        let mut attributes = self.attributes(Some(object));
        let outcome = self.call.api.admission.mutate(&mut attributes).await;
        self.tell(&mut attributes);
        outcome.map(|()| attributes.object.unwrap_or_default())
    }

    /// The second half: plugins that judge the object as it will be stored.
    pub async fn validate(self, object: &Value) -> Result<()> {
        let mut attributes = self.attributes(Some(object.clone()));
        let outcome = self.call.api.admission.validate(&mut attributes).await;
        self.tell(&mut attributes);
        outcome
    }

    /// Both halves at once, for what no strategy comes between; a deletion has no object.
    pub async fn admit(self, object: Option<Value>) -> Result<Option<Value>> {
        let mut attributes = self.attributes(object);
        let outcome = self.call.api.admission.admit(&mut attributes).await;
        self.tell(&mut attributes);
        outcome.map(|()| attributes.object)
    }

    fn attributes(self, object: Option<Value>) -> Attributes {
        let (row, asked) = (self.row, self.call.asked());
        let name = match (&object, asked.name.as_str()) {
            (Some(object), "") => meta::text(object, "name").to_owned(),
            (_, name) => name.to_owned(),
        };
        Attributes {
            user: self.call.user.clone(),
            operation: self.operation,
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            resource: row.plural.to_owned(),
            subresource: asked.subresource.clone(),
            namespace: if row.namespaced { asked.namespace.clone() } else { String::new() },
            name,
            object,
            old: self.old.cloned(),
            dry_run: self.dry_run,
            annotations: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Passes on what plugins had to say.
    fn tell(self, attributes: &mut Attributes) {
        for (key, value) in &attributes.annotations {
            self.call.notes.annotate(key, value);
        }
        attributes.warnings.drain(..).for_each(|warning| self.call.notes.warn(warning));
    }
}
