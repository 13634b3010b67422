//! `GET /containerLogs/NAMESPACE/POD/CONTAINER`: what `kubectl logs` reads.
//!
//! `getContainerLogs` and `validateContainerLogStatus`: with upstream's parameters, errors and texts. A
//! followed log ends when its container does.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::watch;

use super::Kubelet;
use super::call::{Call, text};
use super::changes::Change;
use super::checkpoint::has_container;
use super::tail::{Wanted, render, tail_start};

/// What lets one output be asked for alone.
const SPLIT: &str = "PodLogsQuerySplitStreams";
/// How much is read and sent at once.
const CHUNK: usize = 128 * 1024;
/// How often a followed log is looked at though nothing was heard of it, and where nothing can be.
const LOOK: Duration = Duration::from_secs(1);
const ASK: Duration = Duration::from_millis(100);

/// The request's parameters.
#[derive(Debug, Default, PartialEq)]
struct Options {
    follow: bool,
    previous: bool,
    tail: Option<u64>,
    limit: Option<u64>,
    wanted: Wanted,
}

pub async fn container_logs(me: &Kubelet, call: &Call, below: &[String]) -> Response {
    let [namespace, pod, container] = below else {
        return text(StatusCode::NOT_FOUND, "404: Page Not Found");
    };
    let query: HashMap<String, String> = call.query.iter().rev().cloned().collect();
    let options = match Options::read(&query, Timestamp::now()) {
        Ok(options) => options,
        Err((status, body)) => return text(status, body),
    };
    if let Some(only) = query
        .get("stream")
        .filter(|only| options.wanted.stream.is_some() && !me.config.gates.on(SPLIT) && !only.is_empty())
    {
        let why = format!(
            "unable to return the given log stream: {only:?}. Please enable {SPLIT} feature gate in kubelet"
        );
        return text(StatusCode::BAD_REQUEST, why);
    }
    let Some(found) = me.pods.find_with_status(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{pod}\" does not exist"));
    };
    if !has_container(&found, container) {
        let body = format!("container \"{container}\" not found in pod \"{pod}\"");
        return text(StatusCode::NOT_FOUND, body);
    }
    let id = match which(&found, container, options.previous) {
        Ok(id) => id,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let uid = found.metadata.uid.unwrap_or_default();
    match Follower::open(me, &uid, &id, options) {
        Ok(follower) => {
            let chunks = stream::unfold(follower, |mut follower| async move {
                let chunk = follower.next().await?;
                Some((chunk, follower))
            });
            ([(CONTENT_TYPE, "text/plain")], Body::from_stream(chunks)).into_response()
        }
        Err(error) => {
            let body = format!("failed to try resolving symlinks in path: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, body)
        }
    }
}

impl Options {
    fn read(query: &HashMap<String, String>, now: Timestamp) -> Result<Self, (StatusCode, &'static str)> {
        let bad = (StatusCode::BAD_REQUEST, "{\"message\": \"Unable to decode query.\"}");
        let invalid = (StatusCode::UNPROCESSABLE_ENTITY, "{\"message\": \"Invalid request.\"}");
        let get = |name: &str| query.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let flag = |name: &str| match get(name) {
            None | Some("false" | "0" | "f" | "F" | "False") => Ok(false),
            Some("true" | "1" | "t" | "T" | "True") => Ok(true),
            // Go's conversion takes any other text for true.
            Some(_) => Ok(true),
        };
        let number = |name: &str| match get(name).map(str::parse::<i64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(bad),
        };
        let positive = |number: Option<i64>, least: i64| match number {
            None => Ok(None),
            Some(number) if number >= least => Ok(u64::try_from(number).ok()),
            Some(_) => Err(invalid),
        };
        let tail = match get("tail") {
            Some("all") | None => number("tailLines")?,
            Some(_) => number("tail")?,
        };
        let seconds = number("sinceSeconds")?;
        let time = get("sinceTime").map(|text| text.parse::<Timestamp>().map_err(|_| bad)).transpose()?;
        let since = match (seconds, time) {
            (Some(_), Some(_)) => return Err(invalid),
            (Some(seconds), None) if seconds < 1 => return Err(invalid),
            (Some(seconds), None) => now.checked_sub(SignedDuration::from_secs(seconds)).ok(),
            (None, time) => time,
        };
        let stream = match get("stream") {
            None | Some("All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(_) => return Err(invalid),
        };
        Ok(Self {
            follow: flag("follow")?,
            previous: flag("previous")?,
            tail: positive(tail, 0)?,
            limit: positive(number("limitBytes")?, 1)?,
            wanted: Wanted { timestamps: flag("timestamps")?, since, stream },
        })
    }
}

/// The id of the instance whose log is meant, or why there is none.
fn which(pod: &Pod, name: &str, previous: bool) -> Result<String, String> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.iter();
    let all = status.flat_map(|status| {
        let plain = status.container_statuses.iter().chain(&status.init_container_statuses);
        plain.chain(&status.ephemeral_container_statuses).flatten()
    });
    let Some(status) = all.into_iter().find(|status| status.name == name) else {
        return Err(format!("container \"{name}\" in pod \"{pod_name}\" is not available"));
    };
    let id = instance(status, previous);
    let short = |id: String| id.rsplit('/').next().unwrap_or_default().to_owned();
    id.map(short).map_err(|why| match why {
        Missing::Previous => {
            format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found")
        }
        Missing::Waiting(reason) => {
            format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {reason}")
        }
    })
}

enum Missing {
    Previous,
    Waiting(String),
}

fn instance(status: &ContainerStatus, previous: bool) -> Result<String, Missing> {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last = last.and_then(|terminated| terminated.container_id.clone());
    if previous {
        return last.ok_or(Missing::Previous);
    }
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return status.container_id.clone().ok_or(Missing::Waiting("ContainerCreating".into()));
    }
    if let Some(id) = state.terminated.and_then(|terminated| terminated.container_id) {
        return Ok(id);
    }
    let reason = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
    last.ok_or_else(|| {
        Missing::Waiting(match reason.as_str() {
            "ErrImagePull" => "image can't be pulled".into(),
            "ImagePullBackOff" => "trying and failing to pull image".into(),
            _ => reason,
        })
    })
}

/// Reads a log to its end, and on while its container runs.
struct Follower {
    me: Kubelet,
    uid: String,
    id: String,
    options: Options,
    path: PathBuf,
    file: File,
    /// An unfinished line.
    rest: Vec<u8>,
    /// What was sent last ended its line.
    fresh: bool,
    left: Option<u64>,
    /// How many lines are still wanted where the file may grow past the last that was (`limitedNum`).
    lines: Option<u64>,
    /// The file was moved away: it is read to its end once more, then the new one.
    moved: bool,
    /// Nothing where the machine has no inotify instance left: then it is looked at every so often.
    changes: Option<Change>,
    /// Word of a container's end.
    ends: watch::Receiver<()>,
}

impl Follower {
    fn open(me: &Kubelet, uid: &str, id: &str, options: Options) -> io::Result<Self> {
        let path = log_path(me, uid, id).ok_or(io::ErrorKind::NotFound)?;
        let mut file = File::open(&path)?;
        let changes = options.follow.then(|| me.changes.of(&path).ok()).flatten();
        let start = match options.tail {
            Some(lines) => tail_start(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        let (uid, id) = (uid.to_owned(), id.to_owned());
        let (me, left, rest, ends) = (me.clone(), options.limit, Vec::new(), me.runtime.changes());
        let lines = options.tail.filter(|_| !options.follow);
        Ok(Self {
            me,
            uid,
            id,
            left,
            lines,
            moved: false,
            options,
            path,
            file,
            rest,
            fresh: true,
            changes,
            ends,
        })
    }

    /// The next piece of output; nothing at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.left == Some(0) || self.lines == Some(0) {
                return None;
            }
            // Asked before reading: what was written before the end is then surely read.
            let running = self.options.follow && self.running();
            match self.read() {
                Ok(Some(out)) if out.is_empty() => {}
                Ok(Some(out)) => return Some(Ok(out)),
                Ok(None) if running && self.rotated() => {}
                Ok(None) if running => self.wait().await,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads a block and renders its lines; nothing at the end of the file.
    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let before = self.rest.len();
        self.rest.resize(before + CHUNK, 0);
        let size = self.file.read(&mut self.rest[before..])?;
        self.rest.truncate(before + size);
        if size == 0 {
            return Ok(None);
        }
        let Some(last) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Some(Bytes::new()));
        };
        let mut out = Vec::with_capacity(last);
        for line in self.rest[..=last].split_inclusive(|byte| *byte == b'\n') {
            if self.lines == Some(0) {
                break;
            }
            render(line, &self.options.wanted, &mut self.fresh, &mut out);
            self.lines = self.lines.map(|left| left - 1);
        }
        self.rest.drain(..=last);
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= u64::try_from(out.len()).unwrap_or(*left);
        }
        Ok(Some(Bytes::from(out)))
    }

    /// Goes on in the new file once the one being read was moved away and read to its end.
    fn rotated(&mut self) -> bool {
        let number = |meta: io::Result<std::fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
        let now = number(std::fs::metadata(&self.path));
        if now.is_none() || now == number(self.file.metadata()) {
            return false;
        }
        // What was added between the last read and the move is still to come.
        if !std::mem::replace(&mut self.moved, true) {
            return true;
        }
        let Ok(file) = File::open(&self.path) else { return false };
        self.moved = false;
        self.file = file;
        self.changes = self.me.changes.of(&self.path).ok();
        true
    }

    fn running(&self) -> bool {
        self.me.runtime.is_running(&self.uid, &self.id)
    }

    async fn wait(&mut self) {
        let ask = if self.changes.is_some() { LOOK } else { ASK };
        let changed = async {
            match &mut self.changes {
                None => std::future::pending().await,
                Some(changes) => changes.wait().await,
            }
        };
        tokio::select! {
            () = changed => {}
            _ = self.ends.changed() => {}
            () = tokio::time::sleep(ask) => {}
        }
    }
}

fn log_path(me: &Kubelet, uid: &str, id: &str) -> Option<PathBuf> {
    let sandboxes = me.runtime.of_pod(uid);
    let mut all = sandboxes.into_iter().flat_map(|sandbox| sandbox.containers);
    all.find(|one| one.id == id).map(|one| one.log_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, u16> {
        let query = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options::read(&query, Timestamp::from_second(100).unwrap()).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn parameters_are_read_and_refused_as_upstream_does() {
        let options = read(&[("follow", "true"), ("tailLines", "0"), ("sinceSeconds", "10")]).unwrap();
        assert!(options.follow && !options.previous);
        assert_eq!((options.tail, options.wanted.since.unwrap().as_second()), (Some(0), 90));
        assert_eq!(read(&[("tailLines", "x")]), Err(400));
        assert_eq!(read(&[("tailLines", "-1")]), Err(422));
        assert_eq!(read(&[("limitBytes", "0")]), Err(422));
        assert_eq!(read(&[("sinceSeconds", "1"), ("sinceTime", "2026-11-22T07:06:37Z")]), Err(422));
    }

    #[test]
    fn a_container_that_waits_says_what_for() {
        let pod = |state: serde_json::Value, last: serde_json::Value| -> Pod {
            let status = json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                                "state": state, "lastState": last});
            serde_json::from_value(
                json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}}),
            )
            .unwrap()
        };
        let waiting = pod(json!({"waiting": {"reason": "ImagePullBackOff"}}), json!({}));
        assert_eq!(
            which(&waiting, "web", false).unwrap_err(),
            "container \"web\" in pod \"p\" is waiting to start: trying and failing to pull image"
        );
        assert_eq!(
            which(&waiting, "web", true).unwrap_err(),
            "previous terminated container \"web\" in pod \"p\" not found"
        );
        let crashed = json!({"terminated": {"exitCode": 1, "containerID": "minilab://abc"}});
        let looping = pod(json!({"waiting": {"reason": "CrashLoopBackOff"}}), crashed);
        assert_eq!(which(&looping, "web", false).unwrap(), "abc");
    }
}
