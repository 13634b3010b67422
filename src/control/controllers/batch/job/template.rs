//! The pods of a Job.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::count::Tally;
use super::{TRACKING, indexes};
use crate::control::controllers::workloads::{ownership, pods};

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// What a host name has room for.
const LONGEST_HOST: usize = 63;

/// The next pods: of an Indexed Job for the lowest indexes that are not done and do not run.
pub fn pods(job: &Job, tally: &Tally, many: usize) -> Vec<Pod> {
    let spec = job.spec.clone().unwrap_or_default();
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(&spec.template, namespace, ownership::reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.into());
    if spec.completion_mode.as_deref() != Some("Indexed") {
        return vec![pod; many];
    }
    let busy: BTreeSet<u32> = tally.active.iter().filter_map(|pod| indexes::of(pod)).collect();
    let all = 0..u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    let open = all.filter(|index| {
        !busy.contains(index) && !tally.done_indexes.contains(index) && !tally.failed_indexes.contains(index)
    });
    let per_index = spec.backoff_limit_per_index.is_some();
    open.take(many)
        .map(|index| {
            let mut pod = indexed(job, pod.clone(), index);
            if per_index {
                let failures = tally.failures.get(&index).copied().unwrap_or(0).to_string();
                pod.metadata.annotations.get_or_insert_default().insert(FAILURES.into(), failures);
            }
            pod
        })
        .collect()
}

/// Says in every way upstream does which index a pod works on.
fn indexed(job: &Job, mut pod: Pod, index: u32) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let text = index.to_string();
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    pod.metadata.annotations.get_or_insert_default().insert(indexes::INDEX.into(), text.clone());
    pod.metadata.labels.get_or_insert_default().insert(indexes::INDEX.into(), text);
    let spec = pod.spec.get_or_insert_default();
    if spec.hostname.as_deref().unwrap_or_default().is_empty() {
        let mut host = format!("{name}-{index}");
        host.truncate(LONGEST_HOST);
        spec.hostname = Some(host);
    }
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{}']", indexes::INDEX),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|one| one.name == variable.name) {
            env.push(variable.clone());
        }
    }
    pod
}
