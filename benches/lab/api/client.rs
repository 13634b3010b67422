//! A lean HTTP/2 client with the lab's admin certificate, so that what is measured is the server.

use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::lab::Lab;

/// What is asked for in the handshake.
#[derive(Clone, Copy)]
pub enum Transport {
    Http1,
    Http2,
}

/// A TLS connection to the API server, as the lab's admin.
pub async fn connect(lab: &Lab, transport: Transport) -> anyhow::Result<TlsStream<TcpStream>> {
    let config = lab.kubeconfig()?;
    let field = |section: &str, part: &str, name: &str| -> anyhow::Result<String> {
        let text = config[section][0][part][name].as_str();
        text.map(str::to_owned).with_context(|| format!("{name} in the kubeconfig"))
    };
    let pem = |section: &str, part: &str, name: &str| -> anyhow::Result<Vec<u8>> {
        Ok(base64::engine::general_purpose::STANDARD.decode(field(section, part, name)?)?)
    };
    let mut roots = rustls::RootCertStore::empty();
    let authority = pem("clusters", "cluster", "certificate-authority-data")?;
    roots.add(CertificateDer::from_pem_slice(&authority)?)?;
    let chain = vec![CertificateDer::from_pem_slice(&pem("users", "user", "client-certificate-data")?)?];
    let key = PrivateKeyDer::from_pem_slice(&pem("users", "user", "client-key-data")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = match transport {
        Transport::Http1 => vec![b"http/1.1".to_vec()],
        Transport::Http2 => vec![b"h2".to_vec()],
    };
    let server = field("clusters", "cluster", "server")?;
    let stream = TcpStream::connect(server.trim_start_matches("https://")).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("127.0.0.1")?;
    Ok(tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await?)
}

/// One connection; requests on it are streams.
#[derive(Clone)]
pub struct Client {
    connection: SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(lab: &Lab) -> anyhow::Result<Self> {
        let stream = connect(lab, Transport::Http2).await?;
        let (connection, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(driver);
        Ok(Self { connection })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        gzip: bool,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("accept", "application/json")
            .header("accept-encoding", if gzip { "gzip" } else { "identity" })
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let mut connection = self.connection.clone();
        connection.ready().await?;
        Ok(connection.send_request(request).await?)
    }

    /// The size of an answer that is read to its end.
    pub async fn fetch(&self, path: &str, gzip: bool) -> anyhow::Result<usize> {
        let response = self.request(Method::GET, path, Bytes::new(), gzip).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        let mut body = response.into_body();
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(size)
    }

    pub async fn send(&self, method: Method, path: &str, object: Option<&Value>) -> anyhow::Result<Value> {
        let body = object.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let response = self.request(method, path, body.into(), false).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    /// An answer that is not JSON.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.request(Method::GET, path, Bytes::new(), false).await?;
        Ok(String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()).into_owned())
    }

    pub async fn watch(&self, path: &str) -> anyhow::Result<Watch> {
        let response = self.request(Method::GET, path, Bytes::new(), false).await?;
        if !response.status().is_success() {
            bail!("{path}: {}", response.status());
        }
        Ok(Watch { body: response.into_body(), buffer: BytesMut::new() })
    }
}

/// A watch's events, one JSON value a line.
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Watch {
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(serde_json::from_slice(&self.buffer.split_to(end + 1))?);
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
