//! `metadata.managedFields`: who set which fields of an object, and whose word counts
//! (`k8s.io/apimachinery/pkg/util/managedfields`, `structured-merge-diff/merge`).

use serde_json::{Map, Value, json};

use super::shape::Shape;
use super::{Set, merge, walk};

/// More managers by update than this are counted as one, the oldest first.
const MOST_UPDATERS: usize = 10;
const OLD_ONES: &str = "ancient-changes";
const BEFORE: &str = "before-first-apply";

/// Fields of `metadata` that are nobody's.
const SYSTEM: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// One manager of an object and its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub who: Who,
    pub time: Option<String>,
    pub fields: Set,
}

/// What tells managers apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
}

impl Who {
    /// An applier is the same whatever version it uses.
    fn is(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn printed(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// A field that an applier wants and another has: who, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    pub manager: String,
    pub path: String,
}

/// All managers of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Managers(Vec<Entry>);

/// The object without what is nobody's.
fn stripped(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            SYSTEM.iter().for_each(|name| drop(metadata.remove(*name)));
            if metadata.is_empty() {
                fields.remove("metadata");
            }
        }
    }
    object
}

impl Managers {
    /// Reads an object's managers; none if they are not understood.
    pub fn read(object: &Value) -> Option<Self> {
        let Some(list) = object["metadata"].get("managedFields").and_then(Value::as_array) else {
            return Some(Self::default());
        };
        list.iter().map(Entry::read).collect::<Option<Vec<_>>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As `metadata.managedFields` has them: appliers first, then by time and name.
    pub fn write(mut self) -> Value {
        self.0.sort_by(|a, b| {
            let key = |entry: &Entry| {
                (
                    entry.who.operation,
                    entry.time.clone(),
                    entry.who.manager.clone(),
                    entry.who.api_version.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        match self.0.is_empty() {
            true => Value::Null,
            false => self.0.iter().map(Entry::write).collect(),
        }
    }

    fn position(&self, who: &Who) -> Option<usize> {
        self.0.iter().position(|entry| entry.who.is(who))
    }

    /// Notes down that somebody changed the object from `old` to `new`.
    pub fn update(&mut self, shape: &Shape, old: &Value, new: &Value, who: Who, now: &str) {
        let found = walk::compare(shape.root(), &stripped(old), &stripped(new));
        let mut took = found.modified;
        took.add(&found.added);
        for entry in &mut self.0 {
            entry.fields.subtract(&took);
            entry.fields.subtract(&found.removed);
        }
        if !took.is_empty() {
            match self.position(&who) {
                Some(place) => {
                    self.0[place].fields.add(&took);
                    self.0[place].time = Some(now.to_owned());
                }
                None => self.0.push(Entry { who, time: Some(now.to_owned()), fields: took }),
            }
        }
        self.0.retain(|entry| !entry.fields.is_empty());
        self.cap();
    }

    /// The object after somebody applied to it.
    ///
    /// # Errors
    /// The fields that others have and want otherwise, unless forced.
    pub fn apply(
        &mut self,
        shape: &Shape,
        live: &Value,
        applied: &Value,
        who: Who,
        force: bool,
        now: &str,
    ) -> Result<Value, Vec<Conflict>> {
        let at = shape.root();
        if self.0.is_empty() && live["metadata"]["uid"].is_string() {
            let who = Who { manager: BEFORE.into(), operation: Operation::Update, ..who.clone() };
            let fields = walk::fields(at, &stripped(live));
            self.0.push(Entry { who, time: Some(now.to_owned()), fields });
        }
        let fields = walk::fields(at, &stripped(applied));
        let last = self.position(&who).map(|place| self.0.remove(place));
        let mut object = merge::merge(at, live, applied);
        if let Some(last) = &last {
            let mut wanted = fields.clone();
            self.0.iter().for_each(|entry| wanted.add(&entry.fields));
            merge::prune(at, &mut object, &last.fields, &wanted);
        }
        let found = walk::compare(at, &stripped(live), &stripped(&object));
        let mut took = found.modified;
        took.add(&found.added);
        let conflicts: Vec<Conflict> = self.0.iter().flat_map(|entry| entry.conflicts(&took)).collect();
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        for entry in &mut self.0 {
            entry.fields.subtract(&took);
            entry.fields.subtract(&found.removed);
        }
        let same = last.filter(|last| last.fields == fields && took.is_empty() && found.removed.is_empty());
        let time = same.map_or_else(|| Some(now.to_owned()), |last| last.time);
        self.0.push(Entry { who, time, fields });
        self.0.retain(|entry| !entry.fields.is_empty());
        Ok(object)
    }

    /// Counts the oldest of too many updaters as one.
    fn cap(&mut self) {
        let updater = |entry: &Entry| entry.who.operation == Operation::Update;
        let count = self.0.iter().filter(|entry| updater(entry)).count();
        if count <= MOST_UPDATERS {
            return;
        }
        let mut times: Vec<_> =
            self.0.iter().filter(|entry| updater(entry)).map(|entry| entry.time.clone()).collect();
        times.sort();
        let until = times[count - MOST_UPDATERS].clone();
        let old = |entry: &Entry| updater(entry) && entry.time <= until;
        let (gone, mut kept): (Vec<Entry>, Vec<Entry>) = self.0.drain(..).partition(old);
        let mut all: Vec<Entry> = Vec::new();
        for entry in gone {
            let who = Who { manager: OLD_ONES.into(), subresource: String::new(), ..entry.who };
            match all.iter_mut().find(|own| own.who.is(&who)) {
                Some(own) => {
                    own.fields.add(&entry.fields);
                    own.time = own.time.take().max(entry.time);
                }
                None => all.push(Entry { who, ..entry }),
            }
        }
        kept.append(&mut all);
        self.0 = kept;
    }
}

impl Entry {
    fn read(entry: &Value) -> Option<Self> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let operation = match entry["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if !matches!(entry["fieldsType"].as_str(), None | Some("" | "FieldsV1")) {
            return None;
        }
        let fields = match &entry["fieldsV1"] {
            Value::Null => Set::default(),
            fields => Set::decode(fields)?,
        };
        let who = Who {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
        };
        Some(Self { who, time: entry["time"].as_str().map(str::to_owned), fields })
    }

    fn write(&self) -> Value {
        let mut out = Map::new();
        out.insert("manager".into(), json!(self.who.manager));
        let operation = if self.who.operation == Operation::Apply { "Apply" } else { "Update" };
        out.insert("operation".into(), json!(operation));
        out.insert("apiVersion".into(), json!(self.who.api_version));
        if let Some(time) = &self.time {
            out.insert("time".into(), json!(time));
        }
        out.insert("fieldsType".into(), json!("FieldsV1"));
        out.insert("fieldsV1".into(), self.fields.encode());
        if !self.who.subresource.is_empty() {
            out.insert("subresource".into(), json!(self.who.subresource));
        }
        Value::Object(out)
    }

    fn conflicts(&self, took: &Set) -> Vec<Conflict> {
        let paths = self.fields.common(took).paths();
        paths.into_iter().map(|path| Conflict { manager: self.who.printed(), path }).collect()
    }
}

/// How upstream tells of conflicts.
pub fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|one| one.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let own = conflicts.iter().filter(|one| one.manager == manager);
        lines.extend(own.map(|one| format!("- {}", one.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
