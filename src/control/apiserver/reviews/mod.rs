//! Reviews: questions to authentication and authorization that are answered and never stored.
//!
//! `tokenreviews`, the four access reviews and `selfsubjectreviews`: what kubelets and other servers
//! delegate to, and what `kubectl auth can-i` and `whoami` ask.

mod access;
pub mod discovery;
mod rules;
pub mod token;
mod validate;

use serde_json::{Map, Value, json};

use super::authn::Authenticator;
use super::authz::Authorizer;
use super::lookup::text;
use super::user::UserInfo;
use crate::api::status::{Result, Status};

/// Whom a review asks: the two halves of the listener it came in by.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub authenticator: &'a Authenticator,
    pub authorizer: &'a Authorizer,
}

/// Answers a create of a review: the object with its status filled in.
///
/// # Errors
/// 400 and 422 for a question that makes no sense, 405 for what is no review.
pub async fn answer(
    asked: Asked<'_>,
    resource: &str,
    namespace: &str,
    mut review: Value,
    user: &UserInfo,
) -> Result<Value> {
    let status = match resource {
        "tokenreviews" => token_status(asked.authenticator, &review).await?,
        "selfsubjectreviews" => json!({"userInfo": to_json(user)}),
        "selfsubjectrulesreviews" => rules::status(asked.authorizer, &review, user)?,
        "selfsubjectaccessreviews" => {
            validate::check("SelfSubjectAccessReview", &review, "")?;
            access::status(asked.authorizer, &review, user).await
        }
        "subjectaccessreviews" => {
            validate::check("SubjectAccessReview", &review, "")?;
            access::status(asked.authorizer, &review, &access::subject(&review)).await
        }
        "localsubjectaccessreviews" => {
            if !matches!(text(&review, "/metadata/namespace"), own if own.is_empty() || own == namespace) {
                let why =
                    "the namespace of the provided object does not match the namespace sent on the request";
                return Err(Status::bad_request(why));
            }
            validate::check("LocalSubjectAccessReview", &review, namespace)?;
            access::status(asked.authorizer, &review, &access::subject(&review)).await
        }
        _ => return Err(Status::method_not_allowed()),
    };
    review["status"] = status;
    if !review["metadata"].is_object() {
        review["metadata"] = Value::Object(Map::new());
    }
    Ok(review)
}

async fn token_status(authenticator: &Authenticator, review: &Value) -> Result<Value> {
    let token = text(review, "/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = strings(&review["spec"]["audiences"]);
    match authenticator.review(token, &audiences).await {
        Ok(owner) => {
            let (user, audiences) = (to_json(&owner.user), owner.audiences);
            Ok(json!({"authenticated": true, "user": user, "audiences": audiences}))
        }
        Err(error) => Ok(json!({"user": {}, "error": error})),
    }
}

/// `authentication.k8s.io/v1` UserInfo.
fn to_json(user: &UserInfo) -> Value {
    let mut object = json!({"username": user.name});
    if !user.uid.is_empty() {
        object["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        object["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        object["extra"] = json!(user.extra);
    }
    object
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
