//! PodDisruptionBudgets.

use serde_json::json;

use super::super::Strategy;
use super::PLAIN;
use super::edit;
use crate::control::apiserver::table::autoscaling as table;
use crate::control::apiserver::validation::disruption as validation;

pub static BUDGET: Strategy = Strategy {
    validate: validation::budget,
    prepare_create: |object| {
        let none =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        edit::set(object, "status", none);
        edit::set_generation(object, 1);
    },
    prepare_update: edit::keep_status_count_spec,
    columns: table::BUDGET,
    row: table::budget,
    ..PLAIN
};
