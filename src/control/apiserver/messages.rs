//! Watches and logs for WebSocket clients: the answer they would have got, in messages instead of chunks
//! (`ServeWatch`, `StreamObject`). Browsers ask this way, with their token as a subprotocol.

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::call::Call;
use crate::stream::is_websocket;
use crate::stream::upgrade::negotiate_websocket;
use crate::stream::websocket::{Framing, tell};

const BASE64: &str = "base64.binary.k8s.io";
/// What a client may offer; nothing is fine too.
const PROTOCOLS: &[&str] = &["", "binary.k8s.io", BASE64];

/// Whether a WebSocket is to be made of the answer.
pub fn wanted(call: &Call) -> bool {
    is_websocket(&call.headers) && (call.info.verb == "watch" || is_log(call))
}

fn is_log(call: &Call) -> bool {
    call.info.resource.as_ref().is_some_and(|asked| asked.resource == "pods" && asked.subresource == "log")
}

/// Switches protocols and tells the answer's body; a refusal stays what it is.
pub fn switch(call: &Call, upgrade: Option<OnUpgrade>, answer: Response) -> Response {
    let (StatusCode::OK, Some(upgrade)) = (answer.status(), upgrade) else { return answer };
    let mut request = Request::new(());
    *request.method_mut() = call.method.clone();
    *request.headers_mut() = call.headers.clone();
    let (protocol, switching) = match negotiate_websocket(&request.into_parts().0, PROTOCOLS) {
        Ok(agreed) => agreed,
        Err(refusal) => return refusal.response(),
    };
    let framing = match (is_log(call), protocol) {
        (false, _) => Framing::Lines,
        (true, BASE64) => Framing::Base64,
        (true, _) => Framing::Binary,
    };
    let body = answer.into_body().into_data_stream();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => tell(TokioIo::new(upgraded), body, framing).await,
            Err(error) => tracing::debug!(%error, "A client left before its WebSocket stood"),
        }
    });
    switching.map(|()| Body::empty())
}
