//! Deployment: moves from one ReplicaSet to the next within the limits of its strategy.
//!
//! A rollback is nothing special: kubectl puts an old template back, whose set is then the new one
//! again, under a new revision.

mod rolling;
mod sets;
mod status;

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use tracing::info;

use super::{ownership, pods};
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};
pub use rolling::share;
use rolling::{DESIRED, annotation, available, is_rolling, size, spec, wanted};
use sets::{Made, Sets, revision};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.deployments.on_change(move |_, new| {
        if let Some(deployment) = new {
            fed.add(key_of(&**deployment));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.replica_sets.on_change(move |old, new| {
        let owners = old
            .into_iter()
            .chain(new)
            .filter_map(|set| ownership::controller_key(&set.metadata, "Deployment"));
        owners.for_each(|key| fed.add(key));
        if let Some(orphan) = new.filter(|set| ownership::controller_of(&set.metadata).is_none()) {
            let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
            seen.deployments.in_namespace(namespace).iter().for_each(|one| fed.add(key_of(&**one)));
        }
    });
    // Strategy Recreate waits for the last old pod.
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let Some(gone) = old.filter(|_| new.is_none_or(|pod| pods::is_finished(pod))) else { return };
        let set = ownership::controller_key(&gone.metadata, "ReplicaSet")
            .and_then(|key| seen.replica_sets.get(&key));
        if let Some(key) = set.and_then(|set| ownership::controller_key(&set.metadata, "Deployment")) {
            fed.add(key);
        }
    });
    let actor = world.actor("deployment-controller", "deployment-controller");
    let world = world.clone();
    Box::pin(async move {
        world.deployments.synced().await;
        world.replica_sets.synced().await;
        world.pods.synced().await;
        queue.work("deployment", 8, |key| sync(&world, &actor, key)).await;
    })
}

/// One pass over one deployment.
struct Pass<'a> {
    world: &'a World,
    actor: &'a Actor,
    deployment: Deployment,
    sets: Sets,
}

async fn sync(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(deployment) = world.deployments.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &deployment.spec else { return Ok(Next::Done) };
    let mine = ownership::claim(&actor.client, &world.replica_sets, &*deployment, &spec.selector).await?;
    let sets = Sets::sort(&deployment, mine.iter().map(|set| (**set).clone()).collect());
    let mut pass = Pass { world, actor, deployment: (*deployment).clone(), sets };
    if deployment.metadata.deletion_timestamp.is_some() {
        return pass.write_counts().await;
    }
    if let Some(condition) = status::pause(&deployment, Timestamp::now()) {
        let mut changed = deployment.status.clone().unwrap_or_default();
        status::set(&mut changed, condition);
        pass.write_status(changed).await?;
    }
    let resized = |set: &ReplicaSet| {
        size(set) > 0 && annotation(set, DESIRED).is_some_and(|was| was != wanted(&deployment))
    };
    if spec.paused == Some(true) || pass.sets.all().any(resized) {
        return pass.scale().await;
    }
    match is_rolling(&deployment) {
        true => pass.roll().await,
        false => pass.recreate().await,
    }
}

impl Pass<'_> {
    /// The size of the deployment changed, or it is paused: nothing moves from one set to the other.
    async fn scale(&mut self) -> Result<Next, kube::Error> {
        if self.sets.new.is_some() {
            self.refresh_new().await?;
        }
        let to = wanted(&self.deployment);
        let active = self.sets.all().filter(|set| size(set) > 0).count();
        let saturated = self.sets.new.as_ref().is_some_and(|set| {
            size(set) == to && annotation(set, DESIRED) == Some(to) && available(set) == to
        });
        let mut sizes: Vec<i32> = self.sets.all().map(size).collect();
        match active {
            // The newest set, or the only active one.
            0 => sizes.last_mut().into_iter().for_each(|size| *size = to),
            1 => sizes.iter_mut().filter(|size| **size > 0).for_each(|size| *size = to),
            _ if saturated => {
                let old = self.sets.old.len();
                sizes[..old].fill(0);
            }
            _ if is_rolling(&self.deployment) => {
                let all: Vec<ReplicaSet> = self.sets.all().cloned().collect();
                sizes = rolling::proportional(&self.deployment, &all);
            }
            _ => {}
        }
        self.resize(&sizes, true).await?;
        if spec(&self.deployment).paused == Some(true) {
            self.clean_up().await?;
        }
        self.write_counts().await
    }

    async fn roll(&mut self) -> Result<Next, kube::Error> {
        if let Some(next) = self.ensure_new().await? {
            return Ok(next);
        }
        let Some(new) = &self.sets.new else { return Ok(Next::Soon) };
        let grown = rolling::new_size(&self.deployment, new, &self.sets.old);
        let mut sizes: Vec<i32> = self.sets.old.iter().map(size).collect();
        sizes.push(grown);
        if self.resize(&sizes, false).await? {
            return self.write_rollout().await;
        }
        let Some(new) = &self.sets.new else { return Ok(Next::Soon) };
        let mut sizes = rolling::old_sizes(&self.deployment, new, &self.sets.old);
        sizes.push(grown);
        if !self.resize(&sizes, false).await? {
            self.clean_up_if_complete().await?;
        }
        self.write_rollout().await
    }

    async fn recreate(&mut self) -> Result<Next, kube::Error> {
        if self.sets.new.is_some() {
            self.refresh_new().await?;
        }
        let mut sizes = vec![0; self.sets.old.len()];
        sizes.extend(self.sets.new.as_ref().map(size));
        if self.resize(&sizes, false).await? || self.old_pods_run() {
            return self.write_rollout().await;
        }
        if let Some(next) = self.ensure_new().await? {
            return Ok(next);
        }
        let mut sizes = vec![0; self.sets.old.len()];
        sizes.push(wanted(&self.deployment));
        self.resize(&sizes, false).await?;
        self.clean_up_if_complete().await?;
        self.write_rollout().await
    }

    fn old_pods_run(&self) -> bool {
        let namespace = self.deployment.metadata.namespace.as_deref().unwrap_or_default();
        let old: Vec<&str> = self.sets.old.iter().filter_map(|set| set.metadata.uid.as_deref()).collect();
        self.world.pods.in_namespace(namespace).iter().any(|pod| {
            let owner = ownership::controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
            !pods::is_finished(pod) && owner.is_some_and(|owner| old.contains(&owner))
        })
    }

    /// Finds or makes the new set and records its revision; answers what to do instead when it cannot.
    async fn ensure_new(&mut self) -> Result<Option<Next>, kube::Error> {
        if self.sets.new.is_some() {
            self.refresh_new().await?;
            return Ok(None);
        }
        match sets::create(self.world, self.actor, &self.deployment, &self.sets).await? {
            Made::Set(set) => {
                let message =
                    format!("Created new replica set {:?}", set.metadata.name.as_deref().unwrap_or_default());
                self.sets.new = Some(*set);
                self.note_revision("NewReplicaSetCreated", &message).await?;
                Ok(None)
            }
            Made::Collision => {
                let mut changed = self.deployment.status.clone().unwrap_or_default();
                changed.collision_count = Some(changed.collision_count.unwrap_or(0) + 1);
                self.write_status(changed).await?;
                Ok(Some(Next::Soon))
            }
        }
    }

    async fn refresh_new(&mut self) -> Result<(), kube::Error> {
        let Some(set) = self.sets.new.take() else { return Ok(()) };
        let set = sets::refresh(self.world, self.actor, &self.deployment, &self.sets, set).await?;
        let message = format!("Found new replica set {:?}", set.metadata.name.as_deref().unwrap_or_default());
        self.sets.new = Some(set);
        self.note_revision("FoundNewReplicaSet", &message).await
    }

    /// The deployment carries the revision of its new set; the first sight of the set is progress.
    async fn note_revision(&mut self, reason: &str, message: &str) -> Result<(), kube::Error> {
        let Some(new) = &self.sets.new else { return Ok(()) };
        let text = revision(new).to_string();
        let known = self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(sets::REVISION));
        let (namespace, name) = self.place();
        let api: Api<Deployment> = Api::namespaced(self.actor.client.clone(), &namespace);
        if known != Some(&text) {
            let mut annotated = self.deployment.clone();
            annotated.metadata.annotations.get_or_insert_default().insert(sets::REVISION.into(), text);
            let annotated = api.replace(&name, &PostParams::default(), &annotated).await?;
            self.world.deployments.learn(annotated.clone());
            self.deployment = annotated;
        }
        let mut changed = self.deployment.status.clone().unwrap_or_default();
        let unsaid = status::find(&changed, status::PROGRESSING).is_none();
        if reason == "NewReplicaSetCreated" || unsaid {
            status::set(
                &mut changed,
                status::condition(status::PROGRESSING, "True", reason, message, Timestamp::now()),
            );
            if spec(&self.deployment).progress_deadline_seconds.is_some() {
                self.write_status(changed).await?;
            }
        }
        Ok(())
    }

    fn place(&self) -> (String, String) {
        let meta = &self.deployment.metadata;
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }

    /// Gives the sets (the old ones in order, then the new one) these sizes; `all` also refreshes the
    /// notes of those whose size stays. Says whether any size changed.
    async fn resize(&mut self, sizes: &[i32], all: bool) -> Result<bool, kube::Error> {
        let mut any = false;
        for (set, to) in self.sets.old.iter_mut().chain(&mut self.sets.new).zip(sizes) {
            if size(set) != *to || (all && *to > 0) {
                any |= sets::resize(self.world, self.actor, &self.deployment, set, *to).await?;
            }
        }
        Ok(any)
    }

    async fn clean_up_if_complete(&mut self) -> Result<(), kube::Error> {
        let now = status::count(&self.deployment, self.sets.new.as_ref(), &self.sets.old, Timestamp::now());
        if status::is_complete(&self.deployment, &now) { self.clean_up().await } else { Ok(()) }
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    async fn clean_up(&mut self) -> Result<(), kube::Error> {
        let Some(limit) = spec(&self.deployment).revision_history_limit else { return Ok(()) };
        let mut history: Vec<&ReplicaSet> =
            self.sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        history.sort_by_key(|set| revision(set));
        let surplus = history.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let (namespace, _) = self.place();
        let api: Api<ReplicaSet> = Api::namespaced(self.actor.client.clone(), &namespace);
        for set in history.into_iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            if status.replicas != 0 || size(set) != 0 || set.metadata.generation > status.observed_generation
            {
                continue;
            }
            let name = set.metadata.name.as_deref().unwrap_or_default();
            info!(replica_set = name, "deleting an old replica set beyond the history limit");
            match api.delete(name, &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => other.map(drop)?,
            }
            self.world.replica_sets.leaving(&key_of(set), set.metadata.uid.as_deref());
        }
        Ok(())
    }

    async fn write_counts(&mut self) -> Result<Next, kube::Error> {
        let counted =
            status::count(&self.deployment, self.sets.new.as_ref(), &self.sets.old, Timestamp::now());
        self.write_status(counted).await?;
        Ok(Next::Done)
    }

    async fn write_rollout(&mut self) -> Result<Next, kube::Error> {
        let now = Timestamp::now();
        let wanted = status::rollout(&self.deployment, self.sets.new.as_ref(), &self.sets.old, now);
        let deadline = status::deadline(&self.deployment, &wanted, now).filter(|left| !left.is_zero());
        self.write_status(wanted).await?;
        Ok(deadline.map_or(Next::Done, |left| Next::After(left + std::time::Duration::from_secs(1))))
    }

    async fn write_status(&mut self, mut status: DeploymentStatus) -> Result<(), kube::Error> {
        status.conditions = status.conditions.filter(|all| !all.is_empty());
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = self.deployment.clone();
        changed.status = Some(status);
        let (namespace, name) = self.place();
        let api: Api<Deployment> = Api::namespaced(self.actor.client.clone(), &namespace);
        match api.replace_status(&name, &PostParams::default(), &changed).await {
            Ok(written) => {
                self.world.deployments.learn(written.clone());
                self.deployment = written;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}
