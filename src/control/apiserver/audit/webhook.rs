//! The audit webhook: events sent to another server, which a kubeconfig names
//! (`apiserver/plugin/pkg/audit/{webhook,buffered}`).
//!
//! In upstream's default mode `batch` requests wait for nobody: events queue, go out together when there are
//! enough of them or the oldest has waited, and are dropped when the queue is full. In mode `blocking` the
//! request waits until its event is delivered or given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::error;

use super::AuditError;
use super::truncate::WebhookTruncateFlags;
use crate::api::go_duration;
use crate::control::apiserver::remote::{Remote, RemoteError};
use crate::net::{Egress, Roads};

/// client-go sets none; a server that never answers must not hold a batch for ever.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stopping server waits for what is queued.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The flags of the webhook backend.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WebhookFlags {
    /// A kubeconfig that says where events go.
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    #[arg(long, default_value = "batch", value_parser = ["batch", "blocking", "blocking-strict"])]
    pub audit_webhook_mode: String,
    /// How long to wait before a delivery is tried again.
    #[arg(long, default_value = "10s", value_parser = go_duration::parse)]
    pub audit_webhook_initial_backoff: Duration,
    /// Events that may wait.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Events sent together.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long an event waits for others.
    #[arg(long, default_value = "30s", value_parser = go_duration::parse)]
    pub audit_webhook_batch_max_wait: Duration,
    /// Batches a second.
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches that may go out at once after a quiet time.
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,
    #[command(flatten)]
    pub truncate: WebhookTruncateFlags,
}

impl WebhookFlags {
    /// Starts the backend; nothing when none is wanted. Needs the async runtime.
    pub(super) fn build(&self, roads: &Roads) -> Result<Option<Webhook>, AuditError> {
        let Some(path) = &self.audit_webhook_config_file else { return Ok(None) };
        let remote = Remote::from_kubeconfig(path, TIMEOUT, roads.to(Egress::ControlPlane))
            .map_err(|source| AuditError::Webhook { path: path.clone(), source })?
            .with_first_delay(self.audit_webhook_initial_backoff);
        let remote = Arc::new(remote);
        if self.audit_webhook_mode != "batch" {
            return Ok(Some(Webhook::Blocking(remote)));
        }
        let (queue, waiting) = mpsc::channel(self.audit_webhook_batch_buffer_size.max(1));
        let batches = Batches {
            remote,
            waiting,
            most: self.audit_webhook_batch_max_size.max(1),
            longest: self.truncate.batch(),
            patience: self.audit_webhook_batch_max_wait,
            bucket: Bucket::new(
                self.audit_webhook_batch_throttle_qps,
                self.audit_webhook_batch_throttle_burst,
            ),
        };
        tokio::spawn(batches.run());
        Ok(Some(Webhook::Batch { queue, dropped: AtomicU64::new(0) }))
    }
}

/// Where events go.
pub(super) enum Webhook {
    Batch { queue: mpsc::Sender<Item>, dropped: AtomicU64 },
    Blocking(Arc<Remote>),
}

/// What waits in the queue.
pub(super) enum Item {
    Event(Bytes),
    /// Tells when everything before it has gone out.
    Flush(oneshot::Sender<()>),
}

impl Webhook {
    /// Takes one event; false when it was given up.
    pub(super) fn send(&self, event: Bytes) -> bool {
        match self {
            Self::Batch { queue, dropped } => {
                if queue.try_send(Item::Event(event)).is_err() {
                    let count = dropped.fetch_add(1, Ordering::Relaxed) + 1;
                    error!(dropped = count, "audit backend buffer is full: the event is lost");
                }
                // Whoever is told of it is told in the log alone, as upstream.
                true
            }
            // Trails are also completed where nothing can be awaited: in a body's destructor.
            Self::Blocking(remote) => tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(deliver(remote, &[event]))
            }),
        }
    }

    pub(super) async fn flush(&self) {
        let Self::Batch { queue, .. } = self else { return };
        let (sent, done) = oneshot::channel();
        let all = async {
            if queue.send(Item::Flush(sent)).await.is_ok() {
                let _ = done.await;
            }
        };
        // Whoever does not answer keeps no server from stopping.
        let _ = timeout(LAST_WORDS, all).await;
    }
}

/// The queue's other end.
struct Batches {
    remote: Arc<Remote>,
    waiting: mpsc::Receiver<Item>,
    most: usize,
    /// What a batch may hold in bytes, but for its last event.
    longest: usize,
    patience: Duration,
    bucket: Bucket,
}

impl Batches {
    async fn run(mut self) {
        while let Some((events, flushed)) = self.gather().await {
            if !events.is_empty() {
                self.bucket.take().await;
                let remote = Arc::clone(&self.remote);
                let delivery = tokio::spawn(async move { deliver(&remote, &events).await });
                // Batches go out side by side, as upstream's: one that is tried again holds up nobody.
                if flushed.is_some() {
                    let _ = delivery.await;
                }
            }
            if let Some(flushed) = flushed {
                let _ = flushed.send(());
            }
        }
    }

    /// The next batch: full, or as much as came in time. Nothing once there will be no more.
    async fn gather(&mut self) -> Option<(Vec<Bytes>, Option<oneshot::Sender<()>>)> {
        let (mut events, mut bytes, mut until) = (Vec::<Bytes>::new(), 0, None);
        while events.len() < self.most && bytes < self.longest {
            let next = match until {
                None => self.waiting.recv().await,
                Some(until) => match timeout_at(until, self.waiting.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Item::Event(event)) => {
                    bytes += event.len();
                    events.push(event);
                }
                Some(Item::Flush(flushed)) => return Some((events, Some(flushed))),
                None if events.is_empty() => return None,
                None => break,
            }
            until = until.or(Some(Instant::now() + self.patience));
        }
        Some((events, None))
    }
}

/// Sends one list of events; what cannot be delivered is told to the server's own log and lost.
async fn deliver(remote: &Remote, events: &[Bytes]) -> bool {
    // Upstream tries again whatever the error was (`webhook.WithExponentialBackoff` with its own test).
    let again = |error: &RemoteError| !matches!(error, RemoteError::Answer { code, .. } if *code < 500 && *code != 429);
    let outcome = remote.deliver(list(events), again).await;
    if let Err(error) = &outcome {
        error!(
            %error,
            events = events.len(),
            "Unable to send audit events to the webhook"
        );
    }
    outcome.is_ok()
}

/// An `EventList`, whose items are encoded already.
fn list(events: &[Bytes]) -> Bytes {
    let length: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut body = BytesMut::with_capacity(length + 128);
    body.put_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            body.put_u8(b',');
        }
        body.put_slice(event.trim_ascii_end());
    }
    body.put_slice(b"]}");
    body.freeze()
}

/// So many at once, so many a second (client-go's `flowcontrol`).
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: f64, burst: u32) -> Self {
        let most = f64::from(burst.max(1));
        Self { rate: rate.max(0.001), most, left: most, filled: Instant::now() }
    }

    async fn take(&mut self) {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.rate;
        self.left = (self.left + gained).min(self.most);
        self.filled = now;
        if self.left < 1.0 {
            let missing = (1.0 - self.left) / self.rate;
            tokio::time::sleep(Duration::from_secs_f64(missing.min(1000.0))).await;
            (self.left, self.filled) = (1.0, Instant::now());
        }
        self.left -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that answers everything with 200 and hands out what it was sent.
    async fn server() -> (String, mpsc::Receiver<Value>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/audit", listener.local_addr().unwrap());
        let (told, heard) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut sent = Vec::new();
                let body = loop {
                    assert!(stream.read_buf(&mut sent).await.unwrap() > 0);
                    let text = String::from_utf8_lossy(&sent);
                    if let Some(value) =
                        text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok())
                    {
                        break value;
                    }
                };
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                told.send(body).await.unwrap();
            }
        });
        (url, heard)
    }

    fn flags(url: &str, folder: &std::path::Path) -> WebhookFlags {
        let path = folder.join("webhook.conf");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a", "users": [{"name": "a", "user": {}}],
            "clusters": [{"name": "a", "cluster": {"server": url}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        WebhookFlags {
            audit_webhook_config_file: Some(path),
            audit_webhook_mode: "batch".into(),
            audit_webhook_batch_buffer_size: 10,
            audit_webhook_batch_max_size: 2,
            audit_webhook_batch_max_wait: Duration::from_secs(60),
            audit_webhook_batch_throttle_qps: 100.0,
            audit_webhook_batch_throttle_burst: 10,
            ..WebhookFlags::default()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn events_go_out_together_and_what_waits_is_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let (url, mut heard) = server().await;
        let webhook = flags(&url, folder.path()).build(&Roads::default()).unwrap().unwrap();
        for at in 0..3 {
            webhook.send(Bytes::from(format!("{{\"auditID\":\"{at}\"}}\n")));
        }
        let first = heard.recv().await.unwrap();
        assert_eq!((&first["kind"], &first["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        assert_eq!(first["items"], json!([{"auditID": "0"}, {"auditID": "1"}]));
        assert!(heard.try_recv().is_err(), "the third waits for a fourth");
        webhook.flush().await;
        assert_eq!(heard.recv().await.unwrap()["items"], json!([{"auditID": "2"}]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn in_mode_blocking_each_event_is_delivered_before_the_request_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (url, mut heard) = server().await;
        let flags = WebhookFlags { audit_webhook_mode: "blocking".into(), ..flags(&url, folder.path()) };
        flags.build(&Roads::default()).unwrap().unwrap().send(Bytes::from_static(b"{}\n"));
        assert_eq!(heard.recv().await.unwrap()["items"], json!([{}]));
    }
}
