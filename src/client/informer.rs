//! A role's copy of one kind of objects, kept current by one watch (client-go's shared informer).
//!
//! Every loop of a role that needs a kind shares its informer: handlers run at each change, and
//! [`Informer::learn`] takes in what a write was answered, so a loop never acts on a state older
//! than its own last write. That is what upstream's "expectations" are for; comparing
//! resourceVersions does it here without a second book. Left out: indexes (objects are sorted by
//! namespace and name, a lab's thousands are scanned) and periodic resyncs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::net::go_text;

/// `namespace/name`, or `name` of what has no namespace.
pub fn key_of<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    key(meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default())
}

pub fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// A key's namespace (empty where there is none) and name.
pub fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// One change of an object: `(None, Some)` it appeared, `(Some, Some)` it changed, `(Some, None)` it is gone.
type Handler<K> = Box<dyn Fn(Option<&Rc<K>>, Option<&Rc<K>>)>;

/// The shared copy. Cloning shares it.
pub struct Informer<K>(Rc<Inner<K>>);

struct Inner<K> {
    objects: RefCell<BTreeMap<String, Rc<K>>>,
    handlers: RefCell<Vec<Handler<K>>>,
    /// The newest resourceVersion the watch has shown.
    seen: Cell<u64>,
    synced: Cell<bool>,
    wake: Notify,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self(Rc::new(Inner {
            objects: RefCell::default(),
            handlers: RefCell::default(),
            seen: Cell::new(0),
            synced: Cell::new(false),
            wake: Notify::new(),
        }))
    }
}

fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<K: Resource + 'static> Informer<K> {
    /// Runs `handler` at every change from now on. Register before [`Informer::run`].
    pub fn on_change(&self, handler: impl Fn(Option<&Rc<K>>, Option<&Rc<K>>) + 'static) {
        self.0.handlers.borrow_mut().push(Box::new(handler));
    }

    pub fn get(&self, key: &str) -> Option<Rc<K>> {
        self.0.objects.borrow().get(key).cloned()
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Rc<K>> {
        let first = format!("{namespace}/");
        let after = format!("{namespace}0"); // '0' follows '/' in ASCII
        let bounds = (Bound::Included(first), Bound::Excluded(after));
        self.0.objects.borrow().range(bounds).map(|(_, object)| object.clone()).collect()
    }

    pub fn all(&self) -> Vec<Rc<K>> {
        self.0.objects.borrow().values().cloned().collect()
    }

    /// Returns when the first list is complete.
    pub async fn synced(&self) {
        loop {
            let woken = self.0.wake.notified();
            if self.0.synced.get() {
                return;
            }
            woken.await;
        }
    }

    /// Takes in an object a write was answered with, unless the watch is already past it.
    pub fn learn(&self, object: K) {
        if version(&object) > self.0.seen.get() {
            self.apply(object);
        }
    }

    /// Remembers that an object was asked to go, until the watch says more.
    pub fn leaving(&self, key: &str, uid: Option<&str>)
    where
        K: Clone,
    {
        let Some(known) = self.get(key) else { return };
        if known.meta().uid.as_deref() != uid || known.meta().deletion_timestamp.is_some() {
            return;
        }
        let mut marked = (*known).clone();
        marked.meta_mut().deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()));
        self.apply(marked);
    }

    fn apply(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let key = key_of(&object);
        let old = self.get(&key);
        if old.as_ref().is_some_and(|old| version(&**old) > version(&object)) {
            return;
        }
        let new = Rc::new(object);
        self.0.objects.borrow_mut().insert(key, new.clone());
        self.tell(old.as_ref(), Some(&new));
    }

    fn remove(&self, key: &str, at: u64) {
        let newer = |object: &Rc<K>| at != 0 && version(&**object) > at;
        if self.get(key).as_ref().is_some_and(newer) {
            return;
        }
        let old = self.0.objects.borrow_mut().remove(key);
        if old.is_some() {
            self.tell(old.as_ref(), None);
        }
    }

    fn tell(&self, old: Option<&Rc<K>>, new: Option<&Rc<K>>) {
        for handler in self.0.handlers.borrow().iter() {
            handler(old, new);
        }
    }

    /// Takes one event of the watch. `listed` collects the keys of a list under way.
    fn step(&self, event: Event<K>, listed: &mut HashSet<String>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(key_of(&object));
                self.apply(object);
            }
            Event::InitDone => {
                let gone: Vec<String> =
                    self.0.objects.borrow().keys().filter(|key| !listed.contains(*key)).cloned().collect();
                gone.iter().for_each(|key| self.remove(key, 0));
                listed.clear();
                self.0.synced.set(true);
                self.0.wake.notify_waiters();
            }
            Event::Apply(object) => {
                self.0.seen.set(self.0.seen.get().max(version(&object)));
                self.apply(object);
            }
            Event::Delete(object) => {
                let at = version(&object);
                self.0.seen.set(self.0.seen.get().max(at));
                self.remove(&key_of(&object), at);
            }
        }
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Keeps the copy current for ever: lists, watches, and after an error tries again at the
    /// intervals `backoff` gives (a fresh one a failure series).
    pub async fn run<B: Iterator<Item = Duration>>(
        self,
        api: Api<K>,
        config: watcher::Config,
        backoff: impl Fn() -> B,
    ) {
        let mut events = std::pin::pin!(watcher::watcher(api, config));
        let mut listed = HashSet::new();
        let mut waits = backoff();
        let mut failures = 0_u32;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if failures > 0 && !matches!(event, Event::Init) {
                        failures = 0;
                        waits = backoff();
                    }
                    self.step(event, &mut listed);
                }
                Err(error) => {
                    failures += 1;
                    // At start the API server may not be there yet, and a watch may end at any time.
                    match failures {
                        20 => warn!(
                            error = go_text(&error),
                            kind = std::any::type_name::<K>(),
                            "watch fails again and again"
                        ),
                        _ => debug!(%error, kind = std::any::type_name::<K>(), "watch failed"),
                    }
                    tokio::time::sleep(waits.next().unwrap_or(Duration::from_secs(1))).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(name: &str, version: u32) -> ConfigMap {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": version.to_string()}
        }))
        .unwrap()
    }

    fn names(informer: &Informer<ConfigMap>) -> Vec<String> {
        informer.all().iter().map(|object| key_of(&**object)).collect()
    }

    #[test]
    fn a_list_replaces_what_it_does_not_name() {
        let informer = Informer::default();
        let mut listed = HashSet::new();
        informer.step(Event::Init, &mut listed);
        informer.step(Event::InitApply(object("x", 1)), &mut listed);
        informer.step(Event::InitApply(object("y", 2)), &mut listed);
        informer.step(Event::InitDone, &mut listed);
        assert!(informer.0.synced.get());
        informer.step(Event::Init, &mut listed);
        informer.step(Event::InitApply(object("y", 2)), &mut listed);
        informer.step(Event::InitDone, &mut listed);
        assert_eq!(names(&informer), ["a/y"]);
    }

    #[test]
    fn an_answer_is_learned_only_when_the_watch_is_not_past_it() {
        let informer = Informer::default();
        let mut listed = HashSet::new();
        informer.learn(object("x", 5));
        assert_eq!(names(&informer), ["a/x"]);
        // The watch shows an older state of it, then its deletion; a late answer must not revive it.
        informer.step(Event::Apply(object("x", 4)), &mut listed);
        assert_eq!(informer.get("a/x").unwrap().metadata.resource_version.as_deref(), Some("5"));
        informer.step(Event::Delete(object("x", 7)), &mut listed);
        informer.learn(object("x", 6));
        assert!(names(&informer).is_empty());
    }

    #[test]
    fn handlers_see_appearance_change_and_departure() {
        let informer = Informer::default();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = seen.clone();
        informer.on_change(move |old, new| log.borrow_mut().push((old.is_some(), new.is_some())));
        let mut listed = HashSet::new();
        informer.step(Event::Apply(object("x", 1)), &mut listed);
        informer.step(Event::Apply(object("x", 2)), &mut listed);
        informer.step(Event::Delete(object("x", 3)), &mut listed);
        assert_eq!(*seen.borrow(), [(false, true), (true, true), (true, false)]);
    }

    #[test]
    fn a_namespace_is_scanned_without_its_neighbours() {
        let informer: Informer<ConfigMap> = Informer::default();
        for namespace in ["a", "a-b", "ab"] {
            let mut one = object("x", 1);
            one.metadata.namespace = Some(namespace.into());
            informer.learn(one);
        }
        assert_eq!(informer.in_namespace("a").len(), 1);
    }
}
