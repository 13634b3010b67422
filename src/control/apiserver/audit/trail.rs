//! One request's events, from its arrival to the last byte of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde_json::{Value, json};

use super::event::{Event, User, status, written};
use super::policy::{Level, Verdict};
use super::{Arrived, Audit, Stage};
use crate::api::status::Status;
use crate::control::apiserver::user::UserInfo;

/// An answer longer than this is not kept, as a whole object would not be read by anybody.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

pub struct Trail {
    audit: Arc<Audit>,
    verdict: Verdict,
    event: Event,
}

impl Trail {
    pub(super) fn new(audit: Arc<Audit>, verdict: Verdict, request: &Arrived<'_>) -> Self {
        let event = Event::new(verdict.level, request);
        Self { audit, verdict, event }
    }

    /// The request is understood and its sender known; false when it must not go on, because that could not be
    /// written.
    #[must_use]
    pub fn received(&mut self) -> bool {
        self.emit(Stage::RequestReceived)
    }

    /// The request acts as somebody else; `constraint` is empty when the old verb let it.
    pub fn impersonates(&mut self, other: &UserInfo, constraint: &str) {
        self.event.impersonated_user = Some(User::of(other));
        if !constraint.is_empty() {
            self.event.authentication_metadata = Some(json!({"impersonationConstraint": constraint}));
        }
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.event.annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// Whether the answer itself is kept: then it must not be compressed.
    pub fn keeps_answer(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    pub fn keeps_request(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    /// Keeps what was sent, if the policy wants it.
    pub fn request(&mut self, mut object: Value) {
        if self.keeps_request() {
            self.without_managed_fields(&mut object);
            self.event.request_object = Some(object);
        }
    }

    /// Authentication failed: there is one event, and nobody in it.
    pub fn refused(mut self, failure: &Status, attempted: &str) {
        let message = format!("Authentication failed, attempted: {attempted}");
        let shown = match attempted {
            "" => Status::new(failure.code, failure.reason, "Authentication failed, no credentials provided"),
            _ => Status::new(failure.code, failure.reason, message),
        };
        self.event.response_status = Some(status(failure.code, Some(&shown)));
        self.emit(Stage::ResponseStarted);
    }

    /// Follows an answer to its end. `streams` is a watch or anything else that goes on.
    pub async fn answered(mut self, answer: Response, failure: Option<&Status>, streams: bool) -> Response {
        self.event.response_status = Some(status(answer.status().as_u16(), failure));
        if streams {
            self.emit(Stage::ResponseStarted);
            return answer.map(|body| Body::new(Followed { body, trail: Some(self) }));
        }
        let answer = match self.keeps_answer() {
            true => self.keep(answer).await,
            false => answer,
        };
        // The event is on disk before the client reads its answer.
        self.emit(Stage::ResponseComplete);
        answer
    }

    async fn keep(&mut self, answer: Response) -> Response {
        let (head, body) = answer.into_parts();
        let Ok(bytes) = axum::body::to_bytes(body, LONGEST_ANSWER).await else {
            return super::super::respond::failure(&Status::internal("the response could not be read"));
        };
        if let Ok(mut object) = serde_json::from_slice(&bytes) {
            self.without_managed_fields(&mut object);
            self.event.response_object = Some(object);
        }
        Response::from_parts(head, Body::from(bytes))
    }

    fn without_managed_fields(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
            return;
        }
        let strip = |one: &mut Value| {
            if let Some(metadata) = one.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        strip(object);
        object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    }

    fn emit(&mut self, stage: Stage) -> bool {
        if self.verdict.omit.contains(&stage) {
            return true;
        }
        self.event.stage = stage;
        if stage != Stage::RequestReceived {
            self.event.stage_timestamp = written(jiff::Timestamp::now());
        }
        self.audit.write(&self.event)
    }
}

/// A body whose end, or whose reader's end, completes the trail.
struct Followed {
    body: Body,
    trail: Option<Trail>,
}

impl Followed {
    fn complete(&mut self) {
        if let Some(mut trail) = self.trail.take() {
            trail.emit(Stage::ResponseComplete);
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.complete();
    }
}

impl hyper::body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            self.complete();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
