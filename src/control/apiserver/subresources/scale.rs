//! `/scale`: the one number that matters to `kubectl scale` and autoscalers, as `autoscaling/v1` Scale.

use axum::response::Response;
use http::StatusCode;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use crate::api::selector::LabelSelector;
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::custom::Scale as Scaled;
use crate::control::apiserver::handlers::options::WriteOptions;
use crate::control::apiserver::handlers::patch::Patch;
use crate::control::apiserver::handlers::update::{self, Edit, Outcome};
use crate::control::apiserver::handlers::{body, get, meta};
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{encode, respond};

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    if call.info.verb == "get" {
        let object = encode::object(&get::find(call, row).await?)?;
        return Ok(respond::value(StatusCode::OK, &scale_of(row, &object)));
    }
    let options = WriteOptions::read(&call.query)?;
    let source = match call.info.verb.as_str() {
        "patch" => Source::Patch(Patch::read(call)?),
        _ => Source::Scale(body::read_kind::<Scale>(call, options.fields)?.object),
    };
    let object = match update::try_change(call, row, &Rescale { row, source }, options).await? {
        Outcome::Stored(entry) => encode::object(&entry)?,
        Outcome::Dry(object) => object,
    };
    Ok(respond::value(StatusCode::OK, &scale_of(row, &object)))
}

enum Source {
    Scale(Value),
    Patch(Patch),
}

/// Sets the number of replicas and nothing else.
struct Rescale {
    row: &'static Resource,
    source: Source,
}

impl Edit for Rescale {
    fn apply(&self, old: &Value) -> Result<Value> {
        let scale = match &self.source {
            Source::Scale(scale) => scale.clone(),
            Source::Patch(patch) => patch.apply("autoscaling", "Scale", &scale_of(self.row, old))?,
        };
        let name = meta::text(old, "name");
        let sent = meta::text(&scale, "name");
        if !sent.is_empty() && sent != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({sent}) does not match the name on the URL ({name})"
            )));
        }
        let replicas = match &scale["spec"]["replicas"] {
            Value::Null => 0,
            value => value.as_i64().filter(|count| i32::try_from(*count).is_ok()).ok_or_else(|| {
                Status::bad_request(format!(
                    "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {value} into Go struct field ScaleSpec.spec.replicas of type int32"
                ))
            })?,
        };
        if replicas < 0 {
            let cause =
                Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", name, &[cause]));
        }
        let mut object = old.clone();
        put(&mut object, &places(self.row).spec, json!(replicas));
        let version = scale["metadata"]["resourceVersion"].clone();
        let insists = match &self.source {
            Source::Scale(_) => true,
            Source::Patch(_) => version != old["metadata"]["resourceVersion"],
        };
        meta::set(&mut object, "resourceVersion", if insists { version } else { Value::Null });
        Ok(object)
    }
}

/// Where a kind has its replicas.
fn places(row: &Resource) -> Scaled {
    row.custom().and_then(|custom| custom.scale.clone()).unwrap_or_else(|| Scaled {
        spec: "/spec/replicas".into(),
        status: "/status/replicas".into(),
        selector: None,
    })
}

/// Sets the value at a pointer whose last maps may be missing.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let parts = pointer.split('/').skip(1);
    let place = parts.fold(object, |place, part| {
        if !place.is_object() {
            *place = json!({});
        }
        &mut place[part]
    });
    *place = value;
}

/// The Scale of a workload.
fn scale_of(row: &Resource, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let places = places(row);
    let selector = match &places.selector {
        Some(own) => object.pointer(own).and_then(Value::as_str).unwrap_or_default().to_owned(),
        None if row.custom.is_some() => String::new(),
        None => LabelSelector::from_object(object["spec"].get("selector"))
            .map(|selector| selector.to_string())
            .unwrap_or_default(),
    };
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    let unset = i64::from(row.custom.is_none());
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": count(&places.spec).unwrap_or(unset)},
        "status": {"replicas": count(&places.status).unwrap_or(0), "selector": selector},
    })
}
