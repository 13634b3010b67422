//! FlowSchemas, PriorityLevelConfigurations, RuntimeClasses.

use serde_json::json;

use super::super::Strategy;
use super::PLAIN;
use super::edit::{self, default, existing, map, set};
use crate::control::apiserver::table::flow as table;
use crate::control::apiserver::validation::flow as validation;

pub static FLOW_SCHEMA: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            edit::default_zero(spec, "matchingPrecedence", 1000);
        }
    },
    validate: validation::flow_schema,
    prepare_create: edit::new_with_generation,
    prepare_update: edit::keep_status_count_spec,
    columns: table::FLOW_SCHEMA,
    row: table::flow_schema,
    ..PLAIN
};

pub static PRIORITY_LEVEL: Strategy = Strategy {
    default: |object| {
        let Some(spec) = map(object, "spec") else { return };
        if let Some(exempt) = existing(spec, "exempt") {
            default(exempt, "nominalConcurrencyShares", 0);
            default(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = existing(spec, "limited") {
            default(limited, "nominalConcurrencyShares", 30);
            default(limited, "lendablePercent", 0);
            if let Some(queuing) =
                existing(limited, "limitResponse").and_then(|response| existing(response, "queuing"))
            {
                edit::default_zero(queuing, "queues", 64);
                edit::default_zero(queuing, "handSize", 8);
                edit::default_zero(queuing, "queueLengthLimit", 50);
            }
        }
    },
    validate: validation::priority_level,
    prepare_create: edit::new_with_generation,
    prepare_update: edit::keep_status_count_spec,
    columns: table::PRIORITY_LEVEL,
    row: table::priority_level,
    ..PLAIN
};

pub static RUNTIME_CLASS: Strategy = Strategy {
    default: |object| {
        if let Some(fixed) = existing(object, "overhead").and_then(|overhead| existing(overhead, "podFixed"))
        {
            super::pod_defaults::amounts(fixed);
        }
        // Go's zero value.
        if object["handler"].is_null() {
            set(object, "handler", json!(""));
        }
    },
    validate: validation::runtime_class,
    columns: table::RUNTIME_CLASS,
    row: table::runtime_class,
    ..PLAIN
};
