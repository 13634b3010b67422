//! What makes pods, and what decides how many: apps, batch, autoscaling, policy.

use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v1 as first, autoscaling::v2 as autoscaling, batch::v1 as batch,
    policy::v1 as policy,
};

use super::{Resource, SCALABLE, STATUS_ONLY, row, versions};

pub fn rows() -> Vec<Resource> {
    vec![
        row::<apps::ControllerRevision>(
            "controllerrevisions",
            "controllerrevision",
            "ControllerRevisionList",
        ),
        row::<apps::DaemonSet>("daemonsets", "daemonset", "DaemonSetList")
            .short(&["ds"])
            .in_all()
            .with(STATUS_ONLY),
        row::<apps::Deployment>("deployments", "deployment", "DeploymentList")
            .short(&["deploy"])
            .in_all()
            .with(SCALABLE),
        row::<apps::ReplicaSet>("replicasets", "replicaset", "ReplicaSetList")
            .short(&["rs"])
            .in_all()
            .with(SCALABLE),
        row::<apps::StatefulSet>("statefulsets", "statefulset", "StatefulSetList")
            .short(&["sts"])
            .in_all()
            .with(SCALABLE),
        row::<autoscaling::HorizontalPodAutoscaler>(
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            "HorizontalPodAutoscalerList",
        )
        .short(&["hpa"])
        .in_all()
        .with(STATUS_ONLY),
        row::<first::HorizontalPodAutoscaler>(
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            "HorizontalPodAutoscalerList",
        )
        .short(&["hpa"])
        .in_all()
        .kept_as(&versions::autoscaler::V1)
        .with(STATUS_ONLY),
        row::<batch::CronJob>("cronjobs", "cronjob", "CronJobList").short(&["cj"]).in_all().with(STATUS_ONLY),
        row::<batch::Job>("jobs", "job", "JobList").in_all().with(STATUS_ONLY),
        row::<policy::PodDisruptionBudget>(
            "poddisruptionbudgets",
            "poddisruptionbudget",
            "PodDisruptionBudgetList",
        )
        .short(&["pdb"])
        .with(STATUS_ONLY),
    ]
}
