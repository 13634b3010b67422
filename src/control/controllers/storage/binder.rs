//! The binder: finds each claim a volume or has one made (`pkg/controller/volume/persistentvolume`).
//!
//! ```text
//!   claim: Pending ──bound to a volume──► Bound ──its volume is gone──► Lost
//!   volume: Available ──► Bound ──its claim is gone──► Released ──policy Delete──► (deleted)
//! ```

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::PostParams;
use kube::core::{Selector, SelectorExt};

use super::{BY_CONTROLLER, COMPLETED, SELECTED, provision};
use crate::api::quantity::Quantity;
use crate::client::informer::{key, key_of};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let (claims, volumes) = (Queue::default(), Queue::default());
    let (to_claims, to_volumes) = (claims.clone(), volumes.clone());
    world.late.claims.on_change(move |old, new| {
        new.into_iter().for_each(|claim| to_claims.add(key_of(&**claim)));
        let named = old.or(new).and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
        named.into_iter().for_each(|volume| to_volumes.add(volume));
    });
    let (to_claims, to_volumes, seen) = (claims.clone(), volumes.clone(), world.clone());
    world.late.volumes.on_change(move |_, new| {
        new.into_iter().for_each(|volume| to_volumes.add(key_of(&**volume)));
        // A volume that came or changed may be what somebody waits for.
        seen.late
            .claims
            .all()
            .iter()
            .filter(|claim| !is_bound(claim))
            .for_each(|claim| to_claims.add(key_of(&**claim)));
    });
    let (to_claims, seen) = (claims.clone(), world.clone());
    world.late.classes.on_change(move |_, _| {
        seen.late
            .claims
            .all()
            .iter()
            .filter(|claim| !is_bound(claim))
            .for_each(|claim| to_claims.add(key_of(&**claim)));
    });
    let actor = world.actor("persistent-volume-binder", "persistentvolume-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.claims.synced().await;
        world.late.volumes.synced().await;
        world.late.classes.synced().await;
        // One at a time: two claims never take the same volume.
        let bind = claims.work("persistentvolume-binder", 1, |key| sync_claim(&world, &actor, key));
        tokio::join!(bind, volumes.work("persistentvolume", 2, |key| sync_volume(&world, &actor, key)));
    })
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

async fn sync_claim(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(claim) = world.late.claims.get(&key) else { return Ok(Next::Done) };
    if claim.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        match world.late.volumes.get(name) {
            None if annotation(&claim, COMPLETED).is_some() => {
                set_phase(world, actor, &claim, "Lost").await?
            }
            None => {}
            Some(volume) if is_for(&volume, &claim) => bind(world, actor, &claim, &volume).await?,
            Some(_) => {}
        }
        return Ok(Next::Done);
    }
    let name = spec.storage_class_name.clone().unwrap_or_default();
    let class = world.late.classes.get(&name);
    let waits = class
        .as_ref()
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let node = annotation(&claim, SELECTED).map(str::to_owned);
    let reserved = world.late.volumes.all().into_iter().find(|volume| {
        volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) && is_for(volume, &claim)
    });
    if let Some(volume) = reserved {
        bind(world, actor, &claim, &volume).await?;
        return Ok(Next::Done);
    }
    if waits && node.is_none() {
        actor.normal(
            &*claim,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        );
        return Ok(Next::Done);
    }
    match best(world, &claim, node.as_deref()) {
        Some(volume) => bind(world, actor, &claim, &volume).await?,
        None => have_made(world, actor, &claim, (&name, class.as_deref()), node).await?,
    }
    Ok(Next::Done)
}

/// No volume fits: one is made, or the claim is told why not.
async fn have_made(
    world: &Rc<World>,
    actor: &Actor,
    claim: &PersistentVolumeClaim,
    (name, class): (&str, Option<&StorageClass>),
    node: Option<String>,
) -> Result<(), kube::Error> {
    match class {
        _ if name.is_empty() => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            actor.normal(claim, "FailedBinding", why);
        }
        None => {
            let why = format!("storageclass.storage.k8s.io {name:?} not found");
            actor.warning(claim, "ProvisioningFailed", &why);
        }
        Some(class) if class.provisioner == provision::NAME => {
            provision::make(world, actor, claim, class, node).await?;
        }
        Some(class) if class.provisioner == "kubernetes.io/no-provisioner" => {}
        Some(class) => {
            let why = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
                 administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
                 registered.",
                class.provisioner
            );
            actor.normal(claim, "ExternalProvisioning", &why);
        }
    }
    Ok(())
}

/// Whether a volume is kept for nobody else.
fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return true };
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

/// The smallest volume that has what a claim asks for.
fn best(world: &World, claim: &PersistentVolumeClaim, node: Option<&str>) -> Option<Rc<PersistentVolume>> {
    let node = node.and_then(|name| world.nodes.get(name));
    let all = world.late.volumes.all().into_iter();
    let reachable = |volume: &Rc<PersistentVolume>| {
        node.as_ref().is_none_or(|node| crate::control::scheduler::claims::reaches(volume, node))
    };
    all.filter(|volume| fits(volume, claim) && reachable(volume)).min_by_key(|volume| size(volume))
}

fn size(volume: &PersistentVolume) -> Option<Quantity> {
    Quantity::parse(&volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?.0).ok()
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let asked = wants.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage"));
    let asked = asked.and_then(|asked| Quantity::parse(&asked.0).ok());
    let modes = has.access_modes.clone().unwrap_or_default();
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let selected = wants.selector.as_ref().is_none_or(|wanted| {
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        Selector::try_from(wanted.clone()).is_ok_and(|selector| selector.matches(&labels))
    });
    has.claim_ref.is_none()
        && volume.metadata.deletion_timestamp.is_none()
        && class(&has.storage_class_name) == class(&wants.storage_class_name)
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|one| modes.contains(one))
        && size(volume).is_some_and(|size| asked.is_none_or(|asked| size >= asked))
        && selected
}

/// Both sides name each other, the volume first; then both say so.
async fn bind(
    world: &World,
    actor: &Actor,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Result<(), kube::Error> {
    let meta = &claim.metadata;
    let (name, namespace) =
        (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
    let volumes: Api<PersistentVolume> = Api::all(actor.client.clone());
    let own = volume.metadata.name.clone().unwrap_or_default();
    let named =
        volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).is_some_and(|one| one.uid == meta.uid);
    let mut volume = volume.clone();
    if !named {
        volume.spec.get_or_insert_default().claim_ref = Some(reference(claim));
        volume.metadata.annotations.get_or_insert_default().insert(BY_CONTROLLER.into(), "yes".into());
        volume = volumes.replace(&own, &PostParams::default(), &volume).await?;
        world.late.volumes.learn(volume.clone());
    }
    set_volume_phase(world, actor, &volume, "Bound").await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(actor.client.clone(), &namespace);
    let mut changed = claim.clone();
    let unnamed = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).is_none_or(str::is_empty);
    if unnamed || annotation(claim, COMPLETED).is_none() {
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(COMPLETED.into(), "yes".into());
        if unnamed {
            annotations.insert(BY_CONTROLLER.into(), "yes".into());
        }
        changed.spec.get_or_insert_default().volume_name = Some(own);
        changed = claims.replace(&name, &PostParams::default(), &changed).await?;
        world.late.claims.learn(changed.clone());
    }
    let spec = volume.spec.unwrap_or_default();
    let status = changed.status.clone().unwrap_or_default();
    if is_bound(&changed) && status.capacity == spec.capacity && status.access_modes == spec.access_modes {
        return Ok(());
    }
    let status = changed.status.get_or_insert_default();
    status.phase = Some("Bound".into());
    status.access_modes = spec.access_modes;
    status.capacity = spec.capacity;
    world.late.claims.learn(claims.replace_status(&name, &PostParams::default(), &changed).await?);
    Ok(())
}

pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

async fn set_phase(
    world: &World,
    actor: &Actor,
    claim: &PersistentVolumeClaim,
    phase: &str,
) -> Result<(), kube::Error> {
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
        return Ok(());
    }
    let mut changed = claim.clone();
    changed.status.get_or_insert_default().phase = Some(phase.into());
    actor.warning(
        claim,
        "ClaimLost",
        "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
    );
    let api: Api<PersistentVolumeClaim> =
        Api::namespaced(actor.client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    world.late.claims.learn(api.replace_status(name, &PostParams::default(), &changed).await?);
    Ok(())
}

async fn set_volume_phase(
    world: &World,
    actor: &Actor,
    volume: &PersistentVolume,
    phase: &str,
) -> Result<(), kube::Error> {
    if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
        return Ok(());
    }
    let api: Api<PersistentVolume> = Api::all(actor.client.clone());
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let mut changed = volume.clone();
    changed.status.get_or_insert_default().phase = Some(phase.into());
    changed.metadata.resource_version = None;
    match api.replace_status(name, &PostParams::default(), &changed).await {
        Ok(written) => world.late.volumes.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn sync_volume(world: &Rc<World>, actor: &Actor, name: String) -> Result<Next, kube::Error> {
    let Some(volume) = world.late.volumes.get(&name) else { return Ok(Next::Done) };
    if volume.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let spec = volume.spec.clone().unwrap_or_default();
    let Some(reference) = &spec.claim_ref else {
        set_volume_phase(world, actor, &volume, "Available").await?;
        return Ok(Next::Done);
    };
    let Some(uid) = reference.uid.as_ref().filter(|uid| !uid.is_empty()) else {
        // Kept for a claim that is not there yet.
        set_volume_phase(world, actor, &volume, "Available").await?;
        return Ok(Next::Done);
    };
    let place = key(reference.namespace.as_deref(), reference.name.as_deref().unwrap_or_default());
    let lives = world.late.claims.get(&place).is_some_and(|claim| claim.metadata.uid.as_ref() == Some(uid));
    if lives {
        return Ok(Next::Done);
    }
    set_volume_phase(world, actor, &volume, "Released").await?;
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") {
        return provision::take_away(actor, &volume).await;
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_volume_fits_by_size_class_mode_and_labels() {
        let volume = |extra: Value| -> PersistentVolume {
            let mut spec = json!({"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow"});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value(json!({"metadata": {"name": "pv", "labels": {"a": "b"}}, "spec": spec}))
                .unwrap()
        };
        let claim = |size: &str, label: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "selector": {"matchLabels": {"a": label}},
                "resources": {"requests": {"storage": size}}}}))
            .unwrap()
        };
        assert!(fits(&volume(json!({})), &claim("5Gi", "b")));
        assert!(!fits(&volume(json!({})), &claim("6Gi", "b")));
        assert!(!fits(&volume(json!({})), &claim("1Gi", "c")));
        assert!(!fits(&volume(json!({"storageClassName": ""})), &claim("1Gi", "b")));
        let other = json!({"claimRef": {"name": "other", "namespace": "n"}});
        assert!(
            !fits(&volume(other.clone()), &claim("1Gi", "b")) && !is_for(&volume(other), &claim("1Gi", "b"))
        );
        assert!(is_for(&volume(json!({"claimRef": {"name": "c", "namespace": "n"}})), &claim("1Gi", "b")));
    }
}
