//! API priority and fairness: how many requests run at once, and who waits (`apiserver/pkg/util/flowcontrol`).
//!
//! FlowSchemas say which priority level a request is of; each level has its share of the server's seats, and those
//! who find none wait, or are turned away with 429. Health and whoever is exempt never wait.
//! Left out on purpose: levels lend no seats, a request takes one seat however long its list is, and within a level
//! requests wait in one line, not in a hand of queues a flow.

mod plan;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::response::Response;
use http::{HeaderName, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::request::RequestInfo;
use super::respond;
use super::user::UserInfo;
use crate::control::store::Store;
use plan::{Limit, Plan};

/// How long a request waits for a seat: a quarter of upstream's `--request-timeout`.
const PATIENCE: Duration = Duration::from_secs(15);
const MASTERS: &str = "system:masters";
const FLOW_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// `kube-apiserver`'s flags that bound what runs at once.
#[derive(Debug, Clone, clap::Args)]
pub struct FairnessFlags {
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub enable_priority_and_fairness: bool,
    /// Requests that only read; 0 sets no limit.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Requests that change something; 0 sets no limit. With priority and fairness the two are one sum.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
}

/// Lets requests in.
pub struct Fairness {
    flags: FairnessFlags,
    plan: RwLock<Arc<Plan>>,
    lines: Mutex<HashMap<String, Arc<Line>>>,
    reading: Option<Arc<Semaphore>>,
    changing: Option<Arc<Semaphore>>,
}

/// The seats of one level, and who waits for them.
struct Line {
    limit: Limit,
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A request that was let in; it has its seat until this is dropped.
#[derive(Default)]
pub struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
    /// Whose schema and level it was of.
    named: Option<(String, String)>,
}

impl FairnessFlags {
    pub fn build(&self) -> Fairness {
        let limit = |most: usize| (most > 0).then(|| Arc::new(Semaphore::new(most)));
        Fairness {
            flags: self.clone(),
            plan: RwLock::default(),
            lines: Mutex::default(),
            reading: limit(self.max_requests_inflight),
            changing: limit(self.max_mutating_requests_inflight),
        }
    }
}

impl Fairness {
    /// Waits until a request may run.
    ///
    /// # Errors
    /// The 429 to answer with.
    pub async fn enter(
        &self,
        store: &Store,
        user: &UserInfo,
        info: &RequestInfo,
        long: bool,
    ) -> Result<Seat, Box<Response>> {
        if !self.flags.enable_priority_and_fairness {
            return self.by_number(user, info, long);
        }
        if long && info.verb != "watch" {
            return Ok(Seat::default());
        }
        let plan = self.plan(store);
        let Some(flow) = plan.flow(user, info) else { return Ok(Seat::default()) };
        let mut seat = Seat { _permit: None, named: Some((flow.uid.clone(), flow.level_uid.clone())) };
        let Some(limit) = &flow.limit else { return Ok(seat) };
        let line = self.line(&flow.level, limit);
        match line.wait().await {
            Some(permit) => seat._permit = Some(permit),
            None => return Err(Box::new(seat.tell(turned_away()))),
        }
        Ok(seat)
    }

    /// Without priorities: so many at once and no more, whoever asks (`WithMaxInFlightLimit`).
    fn by_number(&self, user: &UserInfo, info: &RequestInfo, long: bool) -> Result<Seat, Box<Response>> {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let line = if reads { &self.reading } else { &self.changing };
        let Some(line) = line.as_ref().filter(|_| !long && info.verb != "watch") else {
            return Ok(Seat::default());
        };
        match Arc::clone(line).try_acquire_owned() {
            Ok(permit) => Ok(Seat { _permit: Some(permit), named: None }),
            // Never to those who may be needed to mend it.
            Err(_) if user.in_group(MASTERS) => Ok(Seat::default()),
            Err(_) => Err(Box::new(turned_away())),
        }
    }

    /// The plan of the objects as they are.
    fn plan(&self, store: &Store) -> Arc<Plan> {
        let kept = Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner));
        let now = Plan::revision(store);
        if kept.made_at == now {
            return kept;
        }
        let total = self.flags.max_requests_inflight + self.flags.max_mutating_requests_inflight;
        let plan = Arc::new(Plan::read(store, total, now));
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plan);
        plan
    }

    /// A level's line; one whose limits changed begins anew, and those on the old one finish there.
    fn line(&self, level: &str, limit: &Limit) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get(level) {
            Some(line) if line.limit == *limit => Arc::clone(line),
            _ => {
                let line = Arc::new(Line {
                    limit: limit.clone(),
                    seats: Arc::new(Semaphore::new(limit.seats)),
                    waiting: AtomicUsize::new(0),
                });
                lines.insert(level.to_owned(), Arc::clone(&line));
                line
            }
        }
    }
}

impl Line {
    /// A seat, once there is one; none when the line is full or it takes too long.
    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.seats).try_acquire_owned() {
            return Some(permit);
        }
        let _place = Place::take(&self.waiting, self.limit.queued)?;
        tokio::time::timeout(PATIENCE, Arc::clone(&self.seats).acquire_owned()).await.ok()?.ok()
    }
}

/// A place in a line, given up when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::AcqRel) >= most {
            waiting.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seat {
    /// Says in an answer whose flow and level it was.
    pub fn tell(&self, response: Response) -> Response {
        match &self.named {
            None => response,
            Some((flow, level)) => {
                respond::header(respond::header(response, FLOW_UID, flow), LEVEL_UID, level)
            }
        }
    }
}

/// `tooManyRequests`: plain text, and when to come again.
fn turned_away() -> Response {
    let text = "Too many requests, please try again later.\n";
    respond::header(respond::text(StatusCode::TOO_MANY_REQUESTS, text), header::RETRY_AFTER, "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_line_turns_away_and_a_seat_that_is_left_is_taken() {
        let limit = Limit { seats: 1, queued: 1 };
        let line = Line { seats: Arc::new(Semaphore::new(1)), limit, waiting: AtomicUsize::new(0) };
        let first = line.wait().await.unwrap();
        let second = line.wait();
        tokio::pin!(second);
        let still = tokio::time::timeout(Duration::from_millis(20), &mut second).await;
        assert!(still.is_err(), "the seat is taken");
        assert!(line.wait().await.is_none(), "one waits already");
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(line.waiting.load(Ordering::Acquire), 0);
    }

    #[test]
    fn without_priorities_numbers_count_and_masters_pass() {
        let flags = FairnessFlags {
            enable_priority_and_fairness: false,
            max_requests_inflight: 0,
            max_mutating_requests_inflight: 1,
        };
        let fairness = flags.build();
        let jane = UserInfo { name: "jane".into(), ..UserInfo::default() };
        let root = UserInfo { name: "root".into(), groups: vec![MASTERS.into()], ..UserInfo::default() };
        let info = |verb: &str| RequestInfo { verb: verb.into(), ..RequestInfo::default() };
        let first = fairness.by_number(&jane, &info("create"), false);
        assert!(first.is_ok());
        let second = fairness.by_number(&jane, &info("create"), false).err().unwrap();
        assert_eq!(
            (second.status().as_u16(), &second.headers()[header::RETRY_AFTER]),
            (429, &"1".parse::<http::HeaderValue>().unwrap())
        );
        assert!(fairness.by_number(&root, &info("create"), false).is_ok());
        assert!(fairness.by_number(&jane, &info("list"), false).is_ok(), "reading has no limit here");
        drop(first);
        assert!(fairness.by_number(&jane, &info("create"), false).is_ok());
    }
}
