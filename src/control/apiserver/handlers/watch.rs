//! WATCH: the bucket's events after a revision, as lines of JSON, until the client goes.
//!
//! Frames of stored objects are encoded once for all watchers (`Event::frame`); what has to be looked
//! at for a selector or a Table is decoded for this watcher alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::list;
use super::select::Selection;
use crate::api::status::{Result, Status};
use crate::control::apiserver::accept::{self, Shape};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{shape, versions};
use crate::control::store::{Entry, Event, Frame, Revision, StoreError, Watch};

/// How often a quiet watch is told how far the store is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// A watch without `timeoutSeconds` ends after this plus up to as much again, as upstream's.
const SHORTEST: u64 = 1800;

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let selection = Selection::read(call, row)?;
    let start = Start::read(call)?;
    let shape = accept::shape(&call.headers)?;
    let version = call.query.text("resourceVersion").map(list::revision).transpose()?.unwrap_or(0);
    let mut lines = VecDeque::new();
    let mut from = version;
    let mut first = true;
    if start != Start::Events || version == 0 {
        let found = list::now(call, row, &selection).await?;
        from = found.revision;
        if version > from {
            return Err(list::too_large(version, from));
        }
        for entry in found.entries.iter().filter(|_| start != Start::Now) {
            lines.push_back(synthetic(call, row, shape, entry, &mut first)?);
        }
        if start == Start::StateThenMark {
            lines.push_back(bookmark(row, from, true));
        }
    }
    let watch = match call.api.store.watch(&row.bucket, from) {
        Ok(watch) => Some(watch),
        Err(StoreError::Future { asked, current }) => return Err(list::too_large(asked, current)),
        Err(StoreError::Closed) => return Err(super::shutting_down()),
        Err(error) => {
            lines.push_back(ended(error, from));
            None
        }
    };
    let mut bookmarks = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let view = View { call: CallParts::of(call, row), row, selection, shape, first };
    let stream = Stream {
        view,
        watch,
        lines,
        bookmarks: call.query.flag("allowWatchBookmarks").then_some(bookmarks),
        deadline: Instant::now() + timeout(call)?,
    };
    let body = Body::from_stream(futures_util::stream::unfold(stream, Stream::next));
    Ok(super::respond::with_body(StatusCode::OK, HeaderValue::from_static("application/json"), body))
}

/// What a watch sends before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing: events after the version given, or the state when it is 0 or absent.
    Events,
    /// The state, then a bookmark that says so (`sendInitialEvents=true`).
    StateThenMark,
    /// Nothing, from now on (`sendInitialEvents=false` without a version).
    Now,
}

impl Start {
    fn read(call: &Call) -> Result<Self> {
        let version = call.query.text("resourceVersion").unwrap_or_default();
        let invalid = |why: &str| {
            Err(Status::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {why}")))
        };
        if call.query.text("sendInitialEvents").is_none() {
            if call.query.text("resourceVersionMatch").is_some() {
                return invalid(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            return Ok(Self::Events);
        }
        if call.query.text("resourceVersionMatch") != Some("NotOlderThan") {
            return invalid(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        match call.query.flag("sendInitialEvents") {
            true if !call.query.flag("allowWatchBookmarks") => {
                invalid("allowWatchBookmarks: Forbidden: sendInitialEvents requires allowWatchBookmarks")
            }
            true => Ok(Self::StateThenMark),
            false if matches!(version, "" | "0") => Ok(Self::Now),
            false => Ok(Self::Events),
        }
    }
}

fn timeout(call: &Call) -> Result<Duration> {
    let seconds = match call.query.text("timeoutSeconds") {
        None => 0,
        Some(text) => text.parse::<u64>().map_err(|_| {
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?,
    };
    // Capped, so that an absurd number is no arithmetic overflow.
    Ok(Duration::from_secs(match seconds {
        0 => SHORTEST + u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * SHORTEST / 256,
        seconds => seconds.min(24 * 3600),
    }))
}

/// What of the call the stream needs after the call is over.
struct CallParts(Option<Box<Call>>);

impl CallParts {
    fn of(call: &Call, row: &Resource) -> Self {
        let needed = row.converts() || !matches!(accept::shape(&call.headers), Ok(Shape::Object));
        Self(needed.then(|| Box::new(call.without_body())))
    }
}

/// How events look to this watcher.
struct View {
    call: CallParts,
    row: &'static Resource,
    selection: Selection,
    shape: Shape,
    first: bool,
}

/// One watch, as a stream of lines.
struct Stream {
    view: View,
    /// `None` once it ended: what is in `lines` is the last.
    watch: Option<Watch>,
    lines: VecDeque<Bytes>,
    bookmarks: Option<Interval>,
    deadline: Instant,
}

impl Stream {
    async fn next(mut self) -> Option<(std::result::Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(line) = self.joined() {
                return Some((Ok(line), self));
            }
            let watch = self.watch.as_mut()?;
            tokio::select! {
                biased;
                events = watch.next() => match events {
                    Ok(events) => {
                        for event in events.iter() {
                            match self.view.line(event).await {
                                Ok(line) => self.lines.extend(line),
                                Err(status) => {
                                    self.lines.push_back(line("ERROR", &status.to_json().to_string()));
                                    self.watch = None;
                                    break;
                                }
                            }
                        }
                    }
                    Err(StoreError::Closed) => self.watch = None,
                    Err(error) => {
                        self.lines.push_back(ended(error, watch.revision()));
                        self.watch = None;
                    }
                },
                () = tick(&mut self.bookmarks) => {
                    let revision = watch.catch_up();
                    self.lines.push_back(bookmark(self.view.row, revision, false));
                }
                () = tokio::time::sleep_until(self.deadline) => {
                    let revision = watch.catch_up();
                    if self.bookmarks.is_some() {
                        self.lines.push_back(bookmark(self.view.row, revision, false));
                    }
                    self.watch = None;
                }
            }
        }
    }

    /// What is ready to be sent: one line as it is, many as one piece.
    fn joined(&mut self) -> Option<Bytes> {
        if self.lines.len() < 2 {
            return self.lines.pop_front();
        }
        const PIECE: usize = 256 * 1024;
        let mut piece = Vec::new();
        while let Some(line) = self.lines.pop_front() {
            piece.extend_from_slice(&line);
            if piece.len() >= PIECE {
                break;
            }
        }
        Some(piece.into())
    }
}

async fn tick(bookmarks: &mut Option<Interval>) {
    match bookmarks {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

impl View {
    /// The line this watcher gets for an event, if any. A change can move an object into the selection
    /// or out of it; then it looks like an addition or a deletion.
    async fn line(&mut self, event: &Event) -> Result<Option<Bytes>> {
        let now = !event.deleted && self.selection.matches(&event.entry);
        let before = event.previous.as_ref().is_some_and(|entry| self.selection.matches(entry));
        let frame = match (before, now) {
            (false, true) => Frame::Added,
            (true, true) => Frame::Modified,
            (true, false) => Frame::Deleted,
            (false, false) => return Ok(None),
        };
        let Some(call) = &self.call.0 else { return Ok(Some(event.frame(frame))) };
        let object: Value = serde_json::from_slice(&event.object(frame)).map_err(Status::internal)?;
        let object = versions::shown(&call.api, self.row, object).await?;
        let object = shape::watched(call, self.row, self.shape, &object, self.first)?;
        self.first = false;
        let name = match frame {
            Frame::Added => "ADDED",
            Frame::Modified => "MODIFIED",
            Frame::Deleted => "DELETED",
        };
        Ok(Some(line(name, &object.to_string())))
    }
}

/// The state at the beginning, as if each object had just been added.
fn synthetic(call: &Call, row: &Resource, shape: Shape, entry: &Entry, first: &mut bool) -> Result<Bytes> {
    if shape == Shape::Object {
        let mut text = Vec::with_capacity(entry.value.len() + 32);
        text.extend_from_slice(b"{\"type\":\"ADDED\",\"object\":");
        text.extend_from_slice(&entry.value);
        text.extend_from_slice(b"}\n");
        return Ok(text.into());
    }
    let object = serde_json::from_slice(&entry.value).map_err(Status::internal)?;
    let object = shape::watched(call, row, shape, &object, std::mem::take(first))?;
    Ok(line("ADDED", &object.to_string()))
}

fn bookmark(row: &Resource, revision: Revision, initial: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({"kind": row.kind, "apiVersion": row.api_version(), "metadata": metadata});
    line("BOOKMARK", &object.to_string())
}

/// The last line of a watch that cannot go on: the client lists anew.
fn ended(error: StoreError, from: Revision) -> Bytes {
    let status = match error {
        StoreError::Compacted { oldest } => {
            Status::expired(format!("too old resource version: {from} ({oldest})"))
        }
        error => Status::internal(error),
    };
    line("ERROR", &status.to_json().to_string())
}

fn line(kind: &str, object: &str) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}
