//! `serviceaccounts/token`: asks for a token of one account.

use axum::response::Response;
use http::StatusCode;

use crate::api::status::{Result, Status};
use crate::control::apiserver::admission::Operation;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::{admit, body};
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::respond;
use crate::control::apiserver::reviews::token::TokenFor;

pub async fn answer(call: &Call, accounts: &'static Resource) -> Result<Response> {
    let asked = call.asked();
    let ring = call.api.door(call.listener).authenticator.accounts().ok_or_else(Status::no_such_path)?;
    let wanted =
        TokenFor { store: &call.api.store, accounts: ring, namespace: &asked.namespace, name: &asked.name };
    let mut request = body::parse(&call.headers, &call.body)?;
    wanted.prepare(&mut request)?;
    let admitted = admit::admit(call, accounts, Operation::Create, Some(request), None, false).await?;
    let answer = wanted.issue(admitted.unwrap_or_default())?;
    Ok(respond::value(StatusCode::CREATED, &answer))
}
