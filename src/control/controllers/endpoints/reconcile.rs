//! Bringing one Service's EndpointSlices to what they should be, with as few writes as it takes.

use std::rc::Rc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::trigger;
use crate::client::informer::key_of;
use crate::control::controllers::queue::Next;
use crate::control::controllers::world::World;

/// `known` are the slices there are. One with the same ports is brought up to date before a new one is made.
/// `trigger` says since when those that change are due.
pub async fn reconcile(
    world: &World,
    api: &Api<EndpointSlice>,
    mut known: Vec<Rc<EndpointSlice>>,
    wanted: Vec<EndpointSlice>,
    trigger: Option<&str>,
) -> Result<Next, kube::Error> {
    for mut wanted in wanted {
        let fits = |slice: &Rc<EndpointSlice>| {
            slice.ports == wanted.ports && slice.address_type == wanted.address_type
        };
        match known.iter().position(fits).map(|at| known.remove(at)) {
            None => {
                trigger::annotate(&mut wanted.metadata.annotations, trigger);
                world.slices.learn(api.create(&PostParams::default(), &wanted).await?);
            }
            Some(old) if same(&old, &wanted) => {}
            Some(old) => {
                let kept = old.metadata.clone();
                wanted.metadata = ObjectMeta {
                    labels: wanted.metadata.labels,
                    annotations: wanted.metadata.annotations.or(kept.annotations),
                    ..old.metadata.clone()
                };
                trigger::annotate(&mut wanted.metadata.annotations, trigger);
                let name = old.metadata.name.as_deref().unwrap_or_default();
                world.slices.learn(api.replace(name, &PostParams::default(), &wanted).await?);
            }
        }
    }
    for surplus in known {
        match api.delete(surplus.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => other.map(drop)?,
        }
        world.slices.leaving(&key_of(&*surplus), surplus.metadata.uid.as_deref());
    }
    Ok(Next::Done)
}

fn same(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.endpoints.as_deref().unwrap_or_default() == b.endpoints.as_deref().unwrap_or_default()
        && a.metadata.labels == b.metadata.labels
        // A slice whose wish names none keeps what others wrote there.
        && b.metadata.annotations.as_ref().is_none_or(|wanted| {
            a.metadata.annotations.as_ref().map_or(wanted.is_empty(), |known| known == wanted)
        })
}
