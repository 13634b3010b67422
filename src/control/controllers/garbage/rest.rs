//! The kinds nobody else in this role watches, followed by their metadata alone as they come and go:
//! definitions and other API servers bring new ones at any time.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kube::Api;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Collector;
use crate::client::Backoff;
use crate::client::informer::Informer;
use crate::control::controllers::discovered::{Discovered, found};
use crate::control::controllers::world::{Actor, World};

/// How often kinds are looked for when nothing says that there are new ones, as upstream does.
const PERIOD: Duration = Duration::from_secs(30);
/// A definition is served a moment after it was written.
const SETTLE: Duration = Duration::from_millis(500);
/// A kind whose server does not answer holds the others back no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kinds that own nothing and are owned by nothing that matters.
const IGNORED: &[&str] = &["events.", "events.events.k8s.io"];

pub struct Rest {
    world: Rc<World>,
    actor: Actor,
    collector: Collector,
    /// Kinds that are watched elsewhere.
    shared: Vec<String>,
    followed: HashMap<String, AbortHandle>,
}

impl Rest {
    pub fn new(world: &Rc<World>, actor: &Actor, collector: &Collector, shared: Vec<String>) -> Self {
        Self {
            world: world.clone(),
            actor: actor.clone(),
            collector: collector.clone(),
            shared,
            followed: HashMap::new(),
        }
    }

    /// The first look; ends when what there is was seen.
    pub async fn begin(&mut self) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.look().await {
            debug!(%error, "ask the API server for its kinds");
            backoff.wait().await;
        }
    }

    /// Looks again for ever.
    pub async fn go_on(&mut self) {
        loop {
            if timeout(PERIOD, self.collector.definitions.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
            if let Err(error) = self.look().await {
                debug!(%error, "ask the API server for its kinds");
            }
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let (all, unanswered) = found(&self.actor.client).await?;
        let wanted: HashMap<String, Discovered> = all
            .into_iter()
            .map(|kind| (format!("{}.{}", kind.resource.plural, kind.resource.group), kind))
            .filter(|(name, kind)| {
                ["list", "watch", "delete"].iter().all(|verb| kind.can(verb))
                    && !self.shared.contains(name)
                    && !IGNORED.contains(&name.as_str())
            })
            .collect();
        self.followed.retain(|name, task| {
            let group = name.split_once('.').map_or("", |(_, group)| group);
            let stays = wanted.contains_key(name) || unanswered.iter().any(|(silent, _)| silent == group);
            if !stays {
                task.abort();
            }
            stays
        });
        let mut informers = Vec::new();
        for (name, kind) in wanted {
            if !self.followed.contains_key(&name) {
                informers.push(self.follow(name, kind));
            }
        }
        for informer in informers {
            let _ = timeout(PATIENCE, informer.synced()).await;
        }
        Ok(())
    }

    fn follow(&mut self, name: String, kind: Discovered) -> Informer<PartialObjectMeta<DynamicObject>> {
        let informer: Informer<PartialObjectMeta<DynamicObject>> = Informer::default();
        let api = Api::all_with(self.world.identities.own(), &kind.resource);
        let resource = kind.resource.clone();
        self.collector.follow(&informer, kind.resource);
        let run = informer.clone().run(api, watcher::Config::default(), Backoff::default);
        self.followed.insert(name, tokio::task::spawn_local(run).abort_handle());
        // Owners of this kind could not be asked for until now.
        self.collector.judge_again(&resource);
        informer
    }
}
