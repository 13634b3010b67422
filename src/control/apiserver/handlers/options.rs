//! The options of writes: dry run and field validation (`metav1.CreateOptions` and its siblings).

use crate::api::status::{Result, Status};
use crate::control::apiserver::request::Query;

/// What to do with fields a kind does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options common to create, update and patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub fields: FieldValidation,
}

impl WriteOptions {
    pub fn read(query: &Query) -> Result<Self> {
        let fields = match query.text("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(invalid(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        Ok(Self { dry_run: dry_run(query.all("dryRun"))?, fields })
    }
}

/// Reads `dryRun`, whose only value is `All`.
pub fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(invalid(format!("dryRun: Unsupported value: {value:?}: supported values: \"All\"")));
        }
        dry = true;
    }
    Ok(dry)
}

fn invalid(why: String) -> Status {
    Status::new(422, "Invalid", format!(" \"\" is invalid: {why}"))
}
