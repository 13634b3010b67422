//! A connection to the API server that leaves HTTP.

use anyhow::bail;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::api::client::{Transport, connect};
use crate::lab::Lab;

pub type Connection = TokioIo<Upgraded>;

/// Sends the request with `Upgrade: protocol` and more headers; gives what is left of the connection.
pub async fn upgrade(
    lab: &Lab,
    method: Method,
    path: &str,
    protocol: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Connection> {
    let stream = connect(lab, Transport::Http1).await?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver.with_upgrades());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "127.0.0.1")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, protocol);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        bail!("{path}: {status} {}", String::from_utf8_lossy(&body));
    }
    Ok(TokioIo::new(hyper::upgrade::on(response).await?))
}
