//! Kinds that nothing else waits for: their watches start when the first have synced, so that a lab is up
//! before anybody has asked for a Job.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, ReplicationController, ResourceQuota,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::watcher::Config;
use kube::{Api, Client};

use super::follow;
use crate::client::informer::Informer;

#[derive(Default)]
pub struct Late {
    pub stateful_sets: Informer<StatefulSet>,
    pub revisions: Informer<ControllerRevision>,
    pub jobs: Informer<Job>,
    pub cron_jobs: Informer<CronJob>,
    pub replication_controllers: Informer<ReplicationController>,
    pub claims: Informer<PersistentVolumeClaim>,
    pub volumes: Informer<PersistentVolume>,
    pub classes: Informer<StorageClass>,
    pub budgets: Informer<PodDisruptionBudget>,
    pub quotas: Informer<ResourceQuota>,
    pub autoscalers: Informer<HorizontalPodAutoscaler>,
}

impl Late {
    pub fn watch(&self, client: &Client) {
        let all = Config::default;
        follow(&self.stateful_sets, Api::all(client.clone()), all());
        follow(&self.revisions, Api::all(client.clone()), all());
        follow(&self.jobs, Api::all(client.clone()), all());
        follow(&self.cron_jobs, Api::all(client.clone()), all());
        follow(&self.replication_controllers, Api::all(client.clone()), all());
        follow(&self.claims, Api::all(client.clone()), all());
        follow(&self.volumes, Api::all(client.clone()), all());
        follow(&self.classes, Api::all(client.clone()), all());
        follow(&self.budgets, Api::all(client.clone()), all());
        follow(&self.quotas, Api::all(client.clone()), all());
        follow(&self.autoscalers, Api::all(client.clone()), all());
    }
}
