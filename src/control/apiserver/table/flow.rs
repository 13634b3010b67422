//! Tables of FlowSchemas, PriorityLevelConfigurations and RuntimeClasses.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, integer, items, none_if_empty, number, string, text};
use crate::control::apiserver::registry::Column;

pub const FLOW_SCHEMA: &[Column] = &[
    NAME,
    text(
        "PriorityLevel",
        "`priorityLevelConfiguration` should reference a PriorityLevelConfiguration in the cluster.",
    ),
    integer(
        "MatchingPrecedence",
        "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request.",
    ),
    text(
        "DistinguisherMethod",
        "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema.",
    ),
    AGE,
    text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
];

pub fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = items(object, "/status/conditions").iter().find(|one| one["type"] == "Dangling");
    vec![
        cells::name(object),
        string(object, "/spec/priorityLevelConfiguration/name").into(),
        number(object, "/spec/matchingPrecedence").into(),
        none_if_empty(string(object, "/spec/distinguisherMethod/type")),
        cells::age(object, now),
        dangling.map_or("?", |one| one["status"].as_str().unwrap_or("?")).into(),
    ]
}

pub const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    text(
        "Type",
        "`type` indicates whether this priority level is subject to limitation on request execution.",
    ),
    text(
        "NominalConcurrencyShares",
        "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level.",
    ),
    text("Queues", "`queues` is the number of queues for this priority level."),
    text(
        "HandSize",
        "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.",
    ),
    text(
        "QueueLengthLimit",
        "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time.",
    ),
    AGE,
];

pub fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let limited = if spec["limited"].is_object() { &spec["limited"] } else { &spec["exempt"] };
    let queuing = &limited["limitResponse"]["queuing"];
    let number = |value: &Value| value.as_i64().map_or("<none>".into(), |number| number.to_string().into());
    vec![
        cells::name(object),
        string(object, "/spec/type").into(),
        number(&limited["nominalConcurrencyShares"]),
        number(&queuing["queues"]),
        number(&queuing["handSize"]),
        number(&queuing["queueLengthLimit"]),
        cells::age(object, now),
    ]
}

pub const RUNTIME_CLASS: &[Column] = &[
    NAME,
    text(
        "Handler",
        "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class.",
    ),
    AGE,
];

pub fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), string(object, "/handler").into(), cells::age(object, now)]
}
