//! Reviews as requests: read, answered, never stored.

use axum::response::Response;
use http::StatusCode;

use crate::api::status::Result;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::body;
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{respond, reviews};

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    let options = WriteOptions::read(&call.query)?;
    let decoded = body::decode(row, body::parse(&call.headers, &call.body)?, options.fields)?;
    let door = call.api.door(call.listener);
    let asked = reviews::Asked { authenticator: &door.authenticator, authorizer: &door.authorizer };
    let review =
        reviews::answer(asked, row.plural, &call.asked().namespace, decoded.object, &call.user).await?;
    Ok(respond::warn(respond::value(StatusCode::CREATED, &review), &decoded.warnings))
}
