//! One page over plain HTTP: what a victim's pod serves, so that no attack depends on what the machine has.

use std::convert::Infallible;

use clap::Args;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

#[derive(Debug, Args)]
pub struct Page {
    #[arg(long)]
    port: u16,
    text: String,
}

impl Page {
    pub async fn run(self) -> anyhow::Result<()> {
        let listener = crate::net::bind(([0, 0, 0, 0], self.port).into()).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let text = Bytes::from(self.text.clone());
            let service = hyper::service::service_fn(move |_: Request<Incoming>| {
                let text = text.clone();
                async move { Ok::<_, Infallible>(Response::new(Full::new(text))) }
            });
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}
