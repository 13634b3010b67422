//! Events too long for a backend: they lose what was sent and answered, and say so
//! (`apiserver/plugin/pkg/audit/truncate`).

use bytes::Bytes;

use super::event::Event;
use super::line;
use super::policy::Level;

/// What upstream allows an event, in bytes.
const LONGEST: usize = 100 << 10;
/// And the events sent together.
const LONGEST_BATCH: usize = 10 << 20;
const NOTE: &str = "audit.k8s.io/truncated";

/// `--audit-log-truncate-*`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogTruncateFlags {
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, action = clap::ArgAction::Set)]
    pub audit_log_truncate_enabled: bool,
    #[arg(long, default_value_t = LONGEST)]
    pub audit_log_truncate_max_event_size: usize,
    /// The log takes one event at a time, so this says no more than the other.
    #[arg(long, default_value_t = LONGEST_BATCH)]
    pub audit_log_truncate_max_batch_size: usize,
}

impl LogTruncateFlags {
    pub(super) fn limit(&self) -> Option<usize> {
        let least = self.audit_log_truncate_max_event_size.min(self.audit_log_truncate_max_batch_size);
        self.audit_log_truncate_enabled.then_some(least)
    }
}

/// `--audit-webhook-truncate-*`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WebhookTruncateFlags {
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, action = clap::ArgAction::Set)]
    pub audit_webhook_truncate_enabled: bool,
    #[arg(long, default_value_t = LONGEST)]
    pub audit_webhook_truncate_max_event_size: usize,
    #[arg(long, default_value_t = LONGEST_BATCH)]
    pub audit_webhook_truncate_max_batch_size: usize,
}

impl WebhookTruncateFlags {
    pub(super) fn limit(&self) -> Option<usize> {
        let least =
            self.audit_webhook_truncate_max_event_size.min(self.audit_webhook_truncate_max_batch_size);
        self.audit_webhook_truncate_enabled.then_some(least)
    }

    /// How long a batch may grow.
    pub(super) fn batch(&self) -> usize {
        match self.audit_webhook_truncate_enabled {
            true => self.audit_webhook_truncate_max_batch_size,
            false => usize::MAX,
        }
    }
}

/// The event's line if it fits, else that of what can be kept of it, else nothing.
pub(super) fn within(limit: Option<usize>, event: &Event, whole: &Bytes) -> Option<Bytes> {
    let Some(limit) = limit.filter(|limit| whole.len() > *limit) else { return Some(whole.clone()) };
    let mut short = event.clone();
    if short.level >= Level::Request {
        (short.request_object, short.response_object) = (None, None);
        short.annotations.insert(NOTE.into(), "true".into());
    }
    let kept = line(&short).filter(|line| line.len() <= limit);
    if kept.is_none() {
        tracing::error!(limit, "Audit event is too large even after truncating: the event is lost");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::audit::Arrived;
    use crate::control::apiserver::request::{Query, RequestInfo};
    use crate::control::apiserver::user::UserInfo;
    use serde_json::{Value, json};

    #[test]
    fn what_is_too_long_loses_its_objects_and_says_so_or_is_lost() {
        let info =
            RequestInfo::parse(&http::Method::POST, "/api/v1/namespaces/a/secrets", &Query::parse(None));
        let mut event = Event::new(
            Level::Request,
            &Arrived {
                id: "x",
                uri: "/",
                info: &info,
                user: &UserInfo::default(),
                headers: &http::HeaderMap::new(),
                from: None,
                at: jiff::Timestamp::UNIX_EPOCH,
            },
        );
        event.request_object = Some(json!({"data": "z".repeat(2000)}));
        let whole = line(&event).unwrap();
        assert_eq!(within(None, &event, &whole), Some(whole.clone()));
        assert_eq!(within(Some(5000), &event, &whole), Some(whole.clone()));
        let short: Value = serde_json::from_slice(&within(Some(1000), &event, &whole).unwrap()).unwrap();
        assert_eq!((&short["requestObject"], &short["annotations"][NOTE]), (&Value::Null, &json!("true")));
        assert_eq!(within(Some(50), &event, &whole), None);
    }
}
