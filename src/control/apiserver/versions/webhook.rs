//! The question to a conversion webhook and its answer (`apiextensions.k8s.io/v1` ConversionReview).

use serde_json::{Value, json};

use crate::api::status::{Result, Status};
use crate::control::apiserver::callee;
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::server::Api;

/// How long a webhook may take, as upstream's client has it.
const SECONDS: u64 = 30;
/// A list of objects may be long.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
const GROUP: &str = "apiextensions.k8s.io";

/// These objects in the version wanted; those that are in it already stay as they are. `hook` is a definition's
/// `spec.conversion.webhook`.
///
/// # Errors
/// 500 in upstream's words when the webhook did not do it.
pub async fn converted(api: &Api, hook: &Value, mut objects: Vec<Value>, wanted: &str) -> Result<Vec<Value>> {
    let other = |object: &Value| text(object, "/apiVersion") != wanted;
    let asked: Vec<Value> = objects.iter().filter(|object| other(object)).cloned().collect();
    let Some(first) = asked.first() else { return Ok(objects) };
    let what = format!("{}, Kind={}", text(first, "/apiVersion"), text(first, "/kind"));
    let failed = |why: String| Status::internal(format!("conversion webhook for {what} failed: {why}"));
    let answers = ask(api, hook, &asked, wanted).await.map_err(failed)?;
    if answers.len() != asked.len() {
        let (own, wanted) = (answers.len(), asked.len());
        let why = format!("conversion webhook for {what} returned {own} objects, expected {wanted}");
        return Err(Status::internal(why));
    }
    let places = objects.iter_mut().filter(|object| other(object));
    for (index, (object, answer)) in places.zip(answers).enumerate() {
        *object = taken(object, answer, wanted).map_err(|why| {
            let at = format!("returned invalid converted object at index {index}");
            Status::internal(format!("conversion webhook for {what} {at}: {why}"))
        })?;
    }
    Ok(objects)
}

async fn ask(
    api: &Api,
    hook: &Value,
    objects: &[Value],
    wanted: &str,
) -> std::result::Result<Vec<Value>, String> {
    let versions =
        hook["conversionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let version = versions.into_iter().find(|one| matches!(*one, "v1" | "v1beta1"));
    let version = version.ok_or("no supported conversion review versions")?;
    let remote = callee::remote(&api.store, &api.roads, &hook["clientConfig"], SECONDS)?;
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({"kind": "ConversionReview", "apiVersion": format!("{GROUP}/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects}});
    let answer = remote.with_longest_answer(LONGEST_ANSWER).post_once(&review).await;
    read(answer.map_err(|error| error.to_string())?, version, &uid)
}

/// The objects of an answered review.
fn read(mut review: Value, version: &str, uid: &str) -> std::result::Result<Vec<Value>, String> {
    let own = (text(&review, "/apiVersion"), text(&review, "/kind"));
    if version == "v1" && own != ("apiextensions.k8s.io/v1", "ConversionReview") {
        let (own, kind) = own;
        return Err(format!(
            "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {own}, Kind={kind}"
        ));
    }
    if !review["response"].is_object() {
        return Err("no response provided".into());
    }
    let own = text(&review, "/response/uid");
    if version == "v1" && own != uid {
        return Err(format!("expected response.uid={uid:?}, got {own:?}"));
    }
    match (text(&review, "/response/result/status"), text(&review, "/response/result/message")) {
        ("Success", _) => {}
        (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => return Err(message.to_owned()),
    }
    match review["response"]["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// The answer with the metadata the object had; of it a webhook changes labels and annotations alone.
fn taken(object: &Value, mut answer: Value, wanted: &str) -> std::result::Result<Value, String> {
    let own = text(&answer, "/apiVersion");
    if own != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {own})"));
    }
    let (had, has) = (text(object, "/kind"), text(&answer, "/kind"));
    if had != has {
        return Err(format!("invalid kind (expected {had}, received {has})"));
    }
    for (name, pointer) in
        [("name", "/metadata/name"), ("namespace", "/metadata/namespace"), ("UID", "/metadata/uid")]
    {
        let (had, has) = (text(object, pointer), text(&answer, pointer));
        if had != has {
            return Err(format!("must have the same {name}: {had} != {has}"));
        }
    }
    let mut metadata = object["metadata"].clone();
    if let (Some(metadata), Some(sent)) = (metadata.as_object_mut(), answer["metadata"].as_object()) {
        for field in ["labels", "annotations"] {
            match sent.get(field) {
                Some(value) => drop(metadata.insert(field.to_owned(), value.clone())),
                None => drop(metadata.remove(field)),
            }
        }
    }
    answer["metadata"] = metadata;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_the_metadata_and_says_what_is_wrong() {
        let object = json!({"apiVersion": "a.b/v1", "kind": "K",
            "metadata": {"name": "x", "uid": "1", "generation": 3, "labels": {"a": "b"}}});
        let mut answer = json!({"apiVersion": "a.b/v2", "kind": "K", "spec": {"n": 1},
            "metadata": {"name": "x", "uid": "1", "annotations": {"c": "d"}}});
        let taken_ = taken(&object, answer.clone(), "a.b/v2").unwrap();
        assert_eq!(
            taken_["metadata"],
            json!({"name": "x", "uid": "1", "generation": 3, "annotations": {"c": "d"}})
        );
        answer["metadata"]["name"] = json!("y");
        assert_eq!(taken(&object, answer.clone(), "a.b/v2").unwrap_err(), "must have the same name: x != y");
        assert!(
            taken(&object, answer, "a.b/v3")
                .unwrap_err()
                .starts_with("invalid groupVersion (expected a.b/v3")
        );
    }

    #[test]
    fn a_review_that_failed_says_why() {
        let review = |response: Value| json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
        let done = review(json!({"uid": "7", "result": {"status": "Success"}, "convertedObjects": [{}]}));
        assert_eq!(read(done.clone(), "v1", "7").unwrap().len(), 1);
        assert_eq!(read(done, "v1", "8").unwrap_err(), "expected response.uid=\"8\", got \"7\"");
        let failed = review(json!({"uid": "7", "result": {"status": "Failure", "message": "no"}}));
        assert_eq!(read(failed, "v1", "7").unwrap_err(), "no");
    }
}
