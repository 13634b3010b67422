//! A TLS connection with standard input and output at its end, as `openssl s_client -quiet` is one: for what an
//! HTTP client would never send.

use std::io::{Read, Write};
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::net::{Direct, Protocols, TlsDialer, Verify, client_config};

/// So long an answer may take when there is nothing more to say.
const LAST_WORD: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Raw {
    host: String,
    port: u16,
}

impl Raw {
    pub async fn run(self) -> anyhow::Result<()> {
        let config = client_config(&Verify::Unverified, None, Protocols::H1)?;
        let dialer = TlsDialer { road: std::sync::Arc::new(Direct), config };
        let stream = dialer.connect(&self.host, self.port, None).await?;
        let (hears, mut says) = tokio::io::split(stream);
        let mut input = typed();
        let said = async {
            while let Some(bytes) = input.recv().await {
                // The other end may have hung up already: that is an answer too.
                if says.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            shown = show(hears) => shown?,
            () = said => {}
        }
        Ok(())
    }
}

/// Standard input, read by a thread of its own: reading it cannot be interrupted.
fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if send.blocking_send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

async fn show(mut hears: impl AsyncRead + Unpin) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    // However the connection ends, what was heard is shown.
    while let Ok(count @ 1..) = hears.read(&mut buffer).await {
        let mut out = std::io::stdout().lock();
        out.write_all(&buffer[..count]).and_then(|()| out.flush())?;
    }
    Ok(())
}
