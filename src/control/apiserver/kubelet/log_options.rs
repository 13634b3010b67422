//! `PodLogOptions`: what a request for logs asks, refused in Go's words, and said again to the kubelet
//! (`Convert_url_Values_To_v1_PodLogOptions`, `ValidatePodLogOptions`, `LogLocation`).
//!
//! `stream` is looked at and goes no further: its gate, `PodLogsQuerySplitStreams`, is alpha and off.

use std::num::IntErrorKind;

use serde_json::json;

use super::Params;
use crate::api::go_time;
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::request::Query;

const STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

#[derive(Debug, Default)]
pub struct LogOptions {
    follow: bool,
    previous: bool,
    timestamps: bool,
    limit_bytes: Option<i64>,
    since_seconds: Option<i64>,
    /// As RFC 3339 has it, to the second.
    since_time: Option<String>,
    stream: Option<String>,
    tail_lines: Option<i64>,
}

impl LogOptions {
    pub fn read(query: &Query) -> Result<Self> {
        Ok(Self {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            limit_bytes: number(query, "limitBytes")?,
            since_seconds: number(query, "sinceSeconds")?,
            since_time: time(query)?,
            stream: query.text("stream").map(str::to_owned),
            tail_lines: number(query, "tailLines")?,
        })
    }

    pub fn check(&self, pod: &str) -> Result<()> {
        let mut causes = Vec::new();
        let mut least = |field: &str, value: Option<i64>, least: i64, why: &str| {
            if let Some(value) = value.filter(|value| *value < least) {
                causes.push(Cause::invalid(field, &json!(value), why));
            }
        };
        least("tailLines", self.tail_lines, 0, "must be greater than or equal to 0");
        least("limitBytes", self.limit_bytes, 1, "must be greater than 0");
        if self.since_time.is_none() {
            least("sinceSeconds", self.since_seconds, 1, "must be greater than 0");
        }
        if self.since_seconds.is_some() && self.since_time.is_some() {
            causes
                .push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        if let Some(stream) = &self.stream {
            if !STREAMS.contains(&stream.as_str()) {
                causes.push(Cause::unsupported("stream", &json!(stream), &STREAMS));
            }
            if stream != "All" && self.tail_lines.is_some() {
                let why = "`tailLines` and specific `stream` are mutually exclusive for now";
                causes.push(Cause::forbidden("", why));
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", pod, &causes)) }
    }

    /// For the kubelet, in the order Go encodes it.
    pub fn params(&self) -> Params {
        let on = |flag: bool| flag.then(|| "true".to_owned());
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let all = [
            ("follow", on(self.follow)),
            ("limitBytes", number(self.limit_bytes)),
            ("previous", on(self.previous)),
            ("sinceSeconds", number(self.since_seconds)),
            ("sinceTime", self.since_time.clone()),
            ("tailLines", number(self.tail_lines)),
            ("timestamps", on(self.timestamps)),
        ];
        let mut params = Params::default();
        for (name, value) in all {
            if let Some(value) = value {
                params.add(name, &value);
            }
        }
        params
    }
}

fn number(query: &Query, name: &str) -> Result<Option<i64>> {
    let Some(text) = query.text(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

/// `null` is what old clients send for none.
fn time(query: &Query) -> Result<Option<String>> {
    match query.text("sinceTime").filter(|text| *text != "null") {
        None => Ok(None),
        Some(text) => go_time::rfc3339(text).map(Some).map_err(Status::bad_request),
    }
}
