//! The floor: the same bytes over one plain TLS connection on loopback, both ends in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::forward::{CLIENTS, REPLY, ask, count, drain, rate};
use crate::figures::{median, median_of};

/// Two ends with a handshake behind them.
async fn pair() -> anyhow::Result<(client::TlsStream<TcpStream>, server::TlsStream<TcpStream>)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let cert = CertificateDer::from_pem_slice(made.cert.pem().as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.clone())?;
    let ours = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let theirs = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        anyhow::Ok(TlsConnector::from(Arc::new(ours)).connect(name, stream).await?)
    };
    let accept = async {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        anyhow::Ok(TlsAcceptor::from(Arc::new(theirs)).accept(stream).await?)
    };
    tokio::try_join!(connect, accept)
}

pub async fn transfer(size: usize) -> anyhow::Result<Duration> {
    let (mut ours, mut theirs) = pair().await?;
    let from = Instant::now();
    let sender = tokio::spawn(async move {
        let block = vec![b'x'; 256 * 1024];
        for _ in 0..size / block.len() {
            theirs.write_all(&block).await?;
        }
        theirs.shutdown().await
    });
    drain(&mut ours).await?;
    sender.await??;
    Ok(from.elapsed())
}

/// Answers a second over parallel connections, and the time of one alone.
pub async fn requests(rounds: usize) -> anyhow::Result<(f64, Duration)> {
    let (mut one, mut alone) = (answering().await?, Vec::new());
    for _ in 0..500 {
        let from = Instant::now();
        ask(&mut one).await?;
        alone.push(from.elapsed());
    }
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            connections.push(answering().await?);
        }
        let (from, mut clients) = (Instant::now(), tokio::task::JoinSet::new());
        for mut connection in connections {
            clients.spawn(async move { count(&mut connection, from).await });
        }
        rates.push(rate(clients, from).await?);
    }
    Ok((median_of(&mut rates), median(&mut alone)))
}

async fn answering() -> anyhow::Result<client::TlsStream<TcpStream>> {
    let (ours, mut theirs) = pair().await?;
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while theirs.read(&mut buffer).await? > 0 {
            theirs.write_all(REPLY).await?;
            theirs.flush().await?;
        }
        std::io::Result::Ok(())
    });
    Ok(ours)
}
