//! `serviceaccounts/token`: asks for a token of one account.

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenRequest;

use crate::api::status::{Result, Status};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::admit::Write;
use crate::control::apiserver::handlers::body;
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::respond;
use crate::control::apiserver::reviews::token::TokenFor;

pub async fn answer(call: &Call, accounts: &'static Resource) -> Result<Response> {
    let asked = call.asked();
    let ring = call.api.door(call.listener).authenticator.accounts().ok_or_else(Status::no_such_path)?;
    let wanted =
        TokenFor { store: &call.api.store, accounts: ring, namespace: &asked.namespace, name: &asked.name };
    let options = WriteOptions::read(&call.query)?;
    let decoded = body::read_kind::<TokenRequest>(call, options.fields)?;
    let mut request = decoded.object;
    wanted.prepare(&mut request)?;
    let write =
        Write { call, row: accounts, operation: Operation::Create, old: None, dry_run: options.dry_run };
    let admitted = write.admit(Some(request)).await?;
    let mut answer = wanted.issue(admitted.unwrap_or_default())?;
    if options.dry_run {
        // What would be made is shown, the token itself is not.
        answer["status"]["token"] = "".into();
    }
    Ok(respond::warn(respond::value(StatusCode::CREATED, &answer), &decoded.warnings))
}
