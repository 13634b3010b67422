//! `pods/eviction`: a deletion that asks nicely (`kubectl drain`). Disruption budgets are not kept, so
//! none can object.

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::policy::v1::Eviction;

use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::delete::{self, DeleteOptions};
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::handlers::{body, meta};
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::respond;

pub async fn answer(call: &Call, pods: &'static Resource) -> Result<Response> {
    let write = WriteOptions::read(&call.query)?;
    let sent = body::read_kind::<Eviction>(call, write.fields)?.object;
    let name = call.asked().name.as_str();
    let own = meta::text(&sent, "name");
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {name} != {own}"
        )));
    }
    let mut options = DeleteOptions::of(&sent["deleteOptions"])?;
    options.dry_run |= write.dry_run;
    delete::remove(call, pods, name, &options).await?;
    Ok(respond::success(StatusCode::CREATED, None))
}
