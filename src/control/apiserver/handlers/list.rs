//! LIST: from the cache of encoded lists when it is all of a namespace or resource, else item by item.

use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::select::Selection;
use crate::api::status::{Result, Status};
use crate::control::apiserver::accept::{self, Shape};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::lists::{self, Encoded};
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::request::Query;
use crate::control::apiserver::{encode, shape, versions};
use crate::control::store::{Entry, Page, Revision, StoreError};

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where and how much to list.
struct Span {
    at: Option<Revision>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The objects of one answer, and where the next begins.
pub struct Found {
    pub entries: Vec<Entry>,
    pub revision: Revision,
    pub next: Option<String>,
    pub remaining: Option<usize>,
}

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let selection = Selection::read(call, row)?;
    let span = Span::read(&call.query, call.api.store.revision())?;
    let shape = accept::shape(&call.headers)?;
    if selection.is_plain()
        && shape == Shape::Object
        && !row.converts()
        && span.at.is_none()
        && span.after.is_none()
    {
        let whole = call.api.lists.whole(&call.api.store, row, &selection.prefix)?;
        if span.limit.is_none_or(|limit| whole.count <= limit) {
            return Ok(lists::send(&whole, row, accept::gzip(&call.headers)));
        }
    }
    let found = find(call, row, &selection, &span).await?;
    shape::list(call, row, shape, &found)
}

impl Span {
    fn read(query: &Query, current: Revision) -> Result<Self> {
        let limit = match query.text("limit") {
            None => None,
            Some(text) => text
                .parse::<i64>()
                .map_err(|_| not_a_number(text))?
                .try_into()
                .ok()
                .filter(|limit| *limit > 0),
        };
        if let Some(token) = query.text("continue") {
            if query.text("resourceVersion").is_some_and(|version| version != "0") {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let (at, after) = read_token(token)?;
            return Ok(Self { at, after: Some(after), limit });
        }
        let version = query.text("resourceVersion").map(revision).transpose()?;
        let at = match (query.text("resourceVersionMatch"), version) {
            (Some(_), None) => {
                return Err(invalid(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            (Some("Exact"), Some(0)) => {
                return Err(invalid(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
            (Some("Exact"), at) => at,
            (Some("NotOlderThan"), _) => None,
            (Some(other), _) => {
                return Err(invalid(&format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
                )));
            }
            (None, Some(version)) if limit.is_some() && version > 0 => Some(version),
            (None, _) => None,
        };
        match version {
            Some(asked) if asked > current => Err(too_large(asked, current)),
            _ => Ok(Self { at, after: None, limit }),
        }
    }
}

/// Collects what the selection matches, up to the limit, as the row has it.
async fn find(call: &Call, row: &'static Resource, selection: &Selection, span: &Span) -> Result<Found> {
    let mut found = find_stored(call, row, selection, span)?;
    found.entries = presented(call, row, found.entries).await?;
    Ok(found)
}

/// Stored objects as the row has them.
pub async fn presented(call: &Call, row: &Resource, mut entries: Vec<Entry>) -> Result<Vec<Entry>> {
    if row.converts() {
        let objects = entries.iter().map(encode::object).collect::<Result<Vec<Value>>>()?;
        let objects = versions::presented(&call.api, row, objects).await?;
        for (entry, object) in entries.iter_mut().zip(objects) {
            entry.value = object.to_string().into();
        }
    }
    Ok(entries)
}

fn find_stored(call: &Call, row: &'static Resource, selection: &Selection, span: &Span) -> Result<Found> {
    let store = &call.api.store;
    let read = |after: Option<&str>, limit: Option<usize>, at: Option<Revision>| {
        let page = store.list(&row.bucket, selection.start(), after, limit, at);
        page.map_err(|error| list_failed(error, span.after.as_deref()))
    };
    if selection.is_plain() {
        let page = read(span.after.as_deref(), span.limit, span.at)?;
        return Ok(one_page(page));
    }
    let page = read(span.after.as_deref(), None, span.at)?;
    let mut entries: Vec<Entry> = page.entries.into_iter().filter(|entry| selection.matches(entry)).collect();
    let more = span.limit.is_some_and(|limit| entries.len() > limit);
    entries.truncate(span.limit.unwrap_or(usize::MAX));
    let next = entries.last().filter(|_| more).map(|last| token(page.revision, &last.key));
    Ok(Found { entries, revision: page.revision, next, remaining: None })
}

fn one_page(page: Page) -> Found {
    let next = page.entries.last().filter(|_| page.remaining > 0).map(|last| token(page.revision, &last.key));
    let remaining = (page.remaining > 0).then_some(page.remaining);
    Found { entries: page.entries, revision: page.revision, next, remaining }
}

/// All objects of a selection as they are now: what a watch starts from and a collection is deleted by.
pub async fn now(call: &Call, row: &'static Resource, selection: &Selection) -> Result<Found> {
    find(call, row, selection, &Span { at: None, after: None, limit: None }).await
}

impl Found {
    /// The list's own metadata.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = json!(next);
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }

    /// The list, encoded from what is stored.
    pub fn encode(&self) -> Encoded {
        Encoded::new(&self.entries, self.revision)
    }
}

/// The token of upstream: where a list goes on, and at which revision.
fn token(revision: Revision, last: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{last}\u{0}")});
    BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
}

/// The token that goes on from there with what is there now, whatever happened since.
fn token_at_now(last: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": -1, "start": format!("{last}\u{0}")});
    BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
}

/// Where a token goes on, and at which revision; none means now.
fn read_token(text: &str) -> Result<(Option<Revision>, String)> {
    let refused = |why: &str| Status::bad_request(format!("continue key is not valid{why}"));
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| refused(""))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| refused(""))?;
    if token["v"] != "meta.k8s.io/v1" {
        let version = token["v"].as_str().unwrap_or_default();
        return Err(refused(&format!(": server does not recognize this encoded version {version:?}")));
    }
    let start = token["start"].as_str().unwrap_or_default().trim_end_matches('\u{0}').to_owned();
    let at = match token["rv"].as_i64() {
        Some(at) if at > 0 => Some(at as Revision),
        Some(at) if at < 0 => None,
        _ => return Err(refused(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
    };
    match start.is_empty() {
        true => Err(refused(": encoded start key empty (version meta.k8s.io/v1)")),
        false => Ok((at, start)),
    }
}

/// Reads a resource version.
pub fn revision(text: &str) -> Result<Revision> {
    text.parse().map_err(|_| {
        invalid(&format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

fn not_a_number(text: &str) -> Status {
    Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

fn invalid(why: &str) -> Status {
    Status::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"))
}

fn list_failed(error: StoreError, continued: Option<&str>) -> Status {
    match (error, continued) {
        (StoreError::Compacted { .. }, Some(after)) => {
            Status { next: Some(token_at_now(after)), ..Status::expired(EXPIRED_TOKEN) }
        }
        (error, _) => start_failed(error),
    }
}

fn start_failed(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { oldest } => Status::expired(format!(
            "The resourceVersion for the provided list is too old (oldest is {oldest})."
        )),
        StoreError::Future { asked, current } => too_large(asked, current),
        StoreError::Closed => super::shutting_down(),
        error => Status::internal(error),
    }
}

/// A revision this store has not reached: a client from before a restore, or with another cluster's.
pub fn too_large(asked: Revision, current: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    Status::new(504, "Timeout", message).with_details(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_garbage_is_refused() {
        assert_eq!(read_token(&token(7, "a/b")).unwrap(), (Some(7), "a/b".to_owned()));
        assert_eq!(read_token(&token_at_now("a/b")).unwrap(), (None, "a/b".to_owned()));
        for bad in ["x", "e30", "%%%", &token(0, "a/b"), &token(7, "")] {
            assert_eq!(read_token(bad).unwrap_err().code, 400);
        }
    }

    #[test]
    fn resource_versions_mean_what_upstream_says() {
        let read = |query: &str| Span::read(&Query::parse(Some(query)), 10);
        assert_eq!(read("resourceVersion=0").ok().unwrap().at, None);
        assert_eq!(read("resourceVersion=5").ok().unwrap().at, None);
        assert_eq!(read("resourceVersion=5&limit=2").ok().unwrap().at, Some(5));
        assert_eq!(read("resourceVersion=5&resourceVersionMatch=Exact").ok().unwrap().at, Some(5));
        assert_eq!(read("resourceVersion=11").err().unwrap().code, 504);
        assert_eq!(read("resourceVersionMatch=Exact").err().unwrap().code, 422);
        assert_eq!(read("resourceVersion=x").err().unwrap().code, 422);
    }
}
