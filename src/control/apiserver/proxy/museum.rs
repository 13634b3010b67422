//! Two bugs of old API servers, given back on purpose for an exercise (`--minilab-museum`).
//!
//! Off in every profile, never on the machine's listener. Each is the upstream behaviour before its fix,
//! and nothing else is changed: what makes them dangerous is who the API server is towards a kubelet.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{Request, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::Mutex;

use super::backend::Connection;
use crate::api::status::Status;
use crate::control::apiserver::respond;
use crate::net::Peer;

/// One exhibit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Exhibit {
    /// After a failed upgrade both connections stayed joined, so that a client's next request went to the
    /// kubelet as the API server's own (fixed in 1.10.11, 1.11.5, 1.12.3).
    #[value(name = "CVE-2018-1002105")]
    Pipelining,
    /// A kubelet's redirect was handed to the client, whose library followed it with the client's
    /// credentials (fixed in 1.16.13, 1.17.9, 1.18.6).
    #[value(name = "CVE-2020-8559")]
    Redirects,
}

/// The exhibits' flag.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MuseumFlags {
    /// minilab's own: old bugs to give back, CVE-2018-1002105 or CVE-2020-8559.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub minilab_museum: Vec<Exhibit>,
}

/// Which bugs a listener has.
///
/// # Warning
///
/// With anything in it, whoever may exec into one pod owns the node (Pipelining), and whoever owns one node
/// may send clients elsewhere (Redirects). The default has neither.
#[derive(Debug, Clone, Default)]
pub struct Museum(Vec<Exhibit>);

impl MuseumFlags {
    /// The exhibits a listener shows: none on the machine's own.
    pub fn on(&self, listener: &str) -> Museum {
        if listener == "host" { Museum::default() } else { Museum(self.minilab_museum.clone()) }
    }
}

impl Museum {
    pub fn shows(&self, exhibit: Exhibit) -> bool {
        self.0.contains(&exhibit)
    }
}

/// The connection to a backend that a client's connection was left joined to.
#[derive(Clone)]
struct Joined(Arc<Mutex<Option<Kept>>>);

/// A connection to the backend that stays open.
type Kept = (SendRequest<Body>, Connection);

/// Leaves the client's connection joined to the backend's.
pub fn join(peer: &Peer, sender: SendRequest<Body>, connection: Connection) {
    if let Ok(mut kept) = peer.kept.lock() {
        kept.insert(Joined(Arc::new(Mutex::new(Some((sender, connection))))));
    }
}

/// Answers a request that came on a joined connection: by the backend, asked in the API server's name,
/// without authentication, authorization or a trace. Gives the request back when there is none.
pub async fn pipelined(
    peer: Option<&Peer>,
    request: Request<Incoming>,
) -> Result<Response, Request<Incoming>> {
    let joined = peer.and_then(|peer| peer.kept.lock().ok()?.get::<Joined>().cloned());
    let Some(Joined(backend)) = joined else { return Err(request) };
    tracing::warn!(path = request.uri().path(), "CVE-2018-1002105: passed on as the API server");
    let mut backend = backend.lock().await;
    let Some((sender, _)) = backend.as_mut() else { return Ok(ended()) };
    let request = request.map(Body::new);
    let answer = match sender.ready().await {
        Ok(()) => sender.send_request(request).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => Ok(response.map(Body::new)),
        Err(_) => {
            *backend = None;
            Ok(ended())
        }
    }
}

/// The backend has gone, and with it the client's connection.
fn ended() -> Response {
    respond::header(respond::failure(&Status::new(500, "", "unexpected EOF")), header::CONNECTION, "close")
}
