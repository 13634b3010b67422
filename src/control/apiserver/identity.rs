//! `/.well-known/openid-configuration` and `/openid/v1/jwks`: how others check our tokens.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode};

use super::call::Call;
use super::respond;
use super::reviews::discovery::{CONFIGURATION, KEYS, KEYS_CONTENT_TYPE, configuration};
use crate::api::status::{Result, Status};

/// Answers one of the two documents; anything else is somebody else's.
pub fn answer(call: &Call) -> Option<Result<Response>> {
    let path = call.info.path.trim_end_matches('/');
    if !matches!(path, CONFIGURATION | KEYS) {
        return None;
    }
    let Some(accounts) = call.api.door(call.listener).authenticator.accounts() else {
        return Some(Err(Status::no_such_path()));
    };
    let cached = |mut response: Response| {
        response
            .headers_mut()
            .insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
        Some(Ok(response))
    };
    if path == KEYS {
        let kind = HeaderValue::from_static(KEYS_CONTENT_TYPE);
        return cached(respond::with_body(StatusCode::OK, kind, Body::from(accounts.jwks().to_string())));
    }
    cached(respond::value(StatusCode::OK, &configuration(accounts, &call.api.advertised)))
}
