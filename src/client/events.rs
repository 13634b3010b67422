//! core/v1 Events, counted as client-go's `record.EventRecorder` does: a repeat patches the first one.
//!
//! Left out: the aggregation of similar messages and the spam filter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

use super::Backoff;

/// More waiting than this and new ones are dropped, as upstream does: events never slow a role down.
const QUEUE: usize = 1000;
/// Repeats are recognized among this many (upstream's LRU has 4096).
const REMEMBERED: usize = 4096;
/// After this long a repeat is a new event; the API server's events live an hour.
const FORGET_AFTER_SECONDS: i64 = 600;
/// How long after a role's start a refusal may be the cluster's own beginning.
const NEW: Duration = Duration::from_secs(3);
/// Tries to deliver one.
const TRIES: usize = 12;

/// Whether an event is worth a frown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Normal,
    Warning,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Hands events of one component to the API server, in the background.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happening>,
}

/// What repeats are recognized by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    object: String,
    kind: Kind,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Happening {
    about: ObjectReference,
    key: Key,
}

/// An event already sent.
struct Sent {
    name: String,
    count: i32,
    last: Timestamp,
}

impl Recorder {
    /// `component` as `kubectl describe` shows it under From (`kubelet`, `default-scheduler`, …); `host` is the
    /// node's name, or empty. Call it inside the role's runtime.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let sender = Sender { client, component: component.into(), host: host.into(), sent: HashMap::new() };
        tokio::spawn(sender.run(waiting));
        Self { queue }
    }

    /// Records that something happened to an object. Never waits.
    pub fn event(&self, about: &ObjectReference, kind: Kind, reason: &str, message: impl Into<String>) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let key = Key {
            namespace: text(&about.namespace),
            object: format!(
                "{}/{}/{}/{}",
                text(&about.kind),
                text(&about.name),
                text(&about.uid),
                text(&about.field_path)
            ),
            kind,
            reason: reason.into(),
            message: message.into(),
        };
        if self.queue.try_send(Happening { about: about.clone(), key }).is_err() {
            debug!(reason, "Event queue is full, dropping an event");
        }
    }
}

/// A reference to an object, for [`Recorder::event`].
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The background half.
struct Sender {
    client: Client,
    component: String,
    host: String,
    sent: HashMap<Key, Sent>,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Happening>) {
        let started = Instant::now();
        while let Some(happening) = waiting.recv().await {
            let mut backoff = Backoff::new();
            for _ in 0..TRIES {
                match self.deliver(&happening).await {
                    Ok(()) => break,
                    // A cluster that has only just been made may lack the namespace or the role yet.
                    Err(kube::Error::Api(status))
                        if matches!(status.code, 403 | 404) && started.elapsed() < NEW =>
                    {
                        backoff.wait().await;
                    }
                    // The server said no (a namespace that is going away, for one): saying it again will not help.
                    Err(kube::Error::Api(status)) => {
                        debug!(error = %status.message, "Server rejected event (will not retry!)");
                        break;
                    }
                    Err(_) => backoff.wait().await,
                }
            }
        }
    }

    async fn deliver(&mut self, happening: &Happening) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let namespace = match happening.key.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some(sent) = self.sent.get_mut(&happening.key)
            && now.as_second() - sent.last.as_second() < FORGET_AFTER_SECONDS
        {
            let change = json!({"count": sent.count + 1, "lastTimestamp": second(now)});
            match events.patch(&sent.name, &PatchParams::default(), &Patch::Strategic(change)).await {
                Ok(_) => {
                    (sent.count, sent.last) = (sent.count + 1, now);
                    return Ok(());
                }
                // Gone from the server: start a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.first(happening, namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // An earlier try had arrived after all.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        if self.sent.len() >= REMEMBERED {
            self.sent.clear();
        }
        self.sent.insert(happening.key.clone(), Sent { name, count: 1, last: now });
        Ok(())
    }

    /// The event as it reads the first time.
    fn first(&self, happening: &Happening, namespace: &str, now: Timestamp) -> Event {
        let object = happening.about.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            involved_object: happening.about.clone(),
            reason: Some(happening.key.reason.clone()),
            message: Some(happening.key.message.clone()),
            type_: Some(happening.key.kind.text().into()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: (!self.host.is_empty()).then(|| self.host.clone()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        }
    }
}

/// metav1.Time has whole seconds.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
