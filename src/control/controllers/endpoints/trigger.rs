//! Since when a Service's endpoints are due (`endpoints.kubernetes.io/last-change-trigger-time`), from which
//! kube-proxy tells how long the network took to follow (`staging/src/k8s.io/endpointslice/trigger_time_tracker.go`).
//!
//! As upstream, only a pod's turning ready or unready and the making of the Service are known as beginnings.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

pub const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What was seen of each Service when its endpoints were last made, by its key.
#[derive(Default)]
pub struct Triggers(RefCell<BTreeMap<String, Seen>>);

#[derive(Default)]
struct Seen {
    service: Option<Timestamp>,
    pods: BTreeMap<String, Timestamp>,
}

impl Triggers {
    /// The first of the changes that were not seen before, as annotations write it.
    pub fn first_change(&self, key: &str, service: &Service, pods: &[Rc<Pod>]) -> Option<String> {
        let mut all = self.0.borrow_mut();
        let seen = all.entry(key.to_owned()).or_default();
        let mut now = BTreeMap::new();
        let mut changes = Vec::new();
        for pod in pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let Some(at) = turned(pod) else { continue };
            if seen.pods.get(&name).is_none_or(|before| at > *before) {
                changes.push(at);
            }
            now.insert(name, at);
        }
        let made = service.metadata.creation_timestamp.as_ref().map(|at| at.0);
        if made > seen.service {
            changes.extend(made);
        }
        *seen = Seen { service: made, pods: now };
        changes.into_iter().min().map(|at| at.to_string())
    }

    pub fn forget(&self, key: &str) {
        self.0.borrow_mut().remove(key);
    }
}

/// When a pod last became ready or ceased to be.
fn turned(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|one| one.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|at| at.0)
}

/// Writes or removes the annotation.
pub fn annotate(notes: &mut Option<BTreeMap<String, String>>, trigger: Option<&str>) {
    match trigger {
        Some(at) => drop(notes.get_or_insert_default().insert(ANNOTATION.into(), at.into())),
        None => {
            if let Some(notes) = notes {
                notes.remove(ANNOTATION);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::super::tests::{member, service};
    use super::*;
    use serde_json::json;

    fn turned_at(name: &str, time: &str) -> Rc<Pod> {
        let mut pod = (*member(name, "10.244.1.2", true)).clone();
        let time = serde_json::from_value(json!(time)).unwrap();
        pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_transition_time = Some(time);
        Rc::new(pod)
    }

    #[test]
    fn the_first_change_not_seen_before_is_what_endpoints_are_due_since() {
        let triggers = Triggers::default();
        let mut web = service(json!([{"port": 80}]));
        web.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:05Z")).unwrap();
        let (early, late) = (turned_at("a", "2026-01-01T00:00:07Z"), turned_at("b", "2026-01-01T00:00:09Z"));
        let first = |pods: &[Rc<Pod>]| triggers.first_change("default/web", &web, pods);
        assert_eq!(first(slice::from_ref(&early)).as_deref(), Some("2026-01-01T00:00:05Z"));
        assert_eq!(first(slice::from_ref(&early)), None);
        assert_eq!(first(&[early.clone(), late.clone()]).as_deref(), Some("2026-01-01T00:00:09Z"));
        assert_eq!(first(slice::from_ref(&late)), None, "a pod that left says nothing");
        triggers.forget("default/web");
        assert_eq!(first(&[late]).as_deref(), Some("2026-01-01T00:00:05Z"));
    }
}
