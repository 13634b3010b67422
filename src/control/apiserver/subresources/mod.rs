//! Second views of an object, below its name, and what is answered but never stored.

pub mod approval;
pub mod binding;
pub mod ephemeral;
pub mod eviction;
pub mod finalize;
pub mod review;
pub mod scale;
pub mod status;
pub mod token;

use axum::response::Response;

use super::call::Call;
use super::registry::Resource;
use crate::api::status::{Result, Status};

/// Answers a request below an object's name.
pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let asked = call.asked();
    let Some(subresource) = row.subresource(&asked.subresource) else { return Err(Status::no_such_path()) };
    if subresource.name == "log" && !asked.rest.is_empty() {
        return Err(Status::no_such_path());
    }
    let verb = call.info.verb.as_str();
    if !subresource.verbs.contains(&verb) || (row.namespaced && asked.namespace.is_empty()) {
        return Err(Status::method_not_allowed());
    }
    match (subresource.name, verb) {
        ("status" | "approval" | "ephemeralcontainers", "get") => {
            super::handlers::get::answer(call, row).await
        }
        ("status", _) => status::answer(call, row).await,
        ("approval", _) => approval::answer(call, row).await,
        ("scale", _) => scale::answer(call, row).await,
        ("finalize", _) => finalize::answer(call, row).await,
        ("binding", _) => binding::answer(call, row, &asked.name).await,
        ("ephemeralcontainers", _) => ephemeral::answer(call, row).await,
        ("eviction", _) => eviction::answer(call, row).await,
        ("token", _) => token::answer(call, row).await,
        ("log", _) => call.api.kubelets.log(&asked.namespace, &asked.name, &call.query).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Answers a create of what is never stored.
pub async fn answer_only(call: &Call, row: &'static Resource) -> Result<Response> {
    match row.plural {
        "bindings" => binding::by_name_in_body(call).await,
        _ => review::answer(call, row).await,
    }
}
