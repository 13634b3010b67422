//! `pods/ephemeralcontainers`: containers added to a running pod (`kubectl debug`), and nothing else of it
//! (`podEphemeralContainersStrategy`).

use axum::response::Response;
use serde_json::Value;

use super::status::{checked_write, put};
use crate::api::status::Result;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::registry::strategies::edit;
use crate::control::apiserver::validation::ephemeral;

pub async fn answer(call: &Call, pods: &'static Resource) -> Result<Response> {
    checked_write(call, pods, keep_all_but_ephemeral, |_, pod, old| ephemeral::update(pod, old)).await
}

/// The pod as it was, with the containers the client sent.
fn keep_all_but_ephemeral(_: &Resource, pod: &mut Value, old: &Value) {
    let containers = pod["spec"]["ephemeralContainers"].take();
    *pod = old.clone();
    put(&mut pod["spec"], "ephemeralContainers", containers);
    let changed = pod["spec"] != old["spec"];
    edit::count_changes(pod, old, changed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::registry;
    use serde_json::json;

    #[test]
    fn only_the_ephemeral_containers_change_and_the_generation_counts() {
        let row = registry::by_name("", "pods").unwrap();
        let old =
            json!({"metadata": {"name": "web", "generation": 1}, "spec": {"containers": [{"name": "a"}]}});
        let mut new = json!({"metadata": {"name": "web", "labels": {"x": "y"}},
            "spec": {"containers": [], "ephemeralContainers": [{"name": "d"}]}});
        keep_all_but_ephemeral(row, &mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"name": "web", "generation": 2},
                "spec": {"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d"}]}})
        );
    }
}
