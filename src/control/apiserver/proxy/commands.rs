//! exec and attach by SPDY between a client and a kubelet: passed on, and never ended without a word.
//!
//! Go's clients take a connection that ends for a command that succeeded. When the kubelet or this server goes
//! away first, the client is told on its error stream. Upstream leaves it at exit code 0.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::splice::{BUFFER, leave};
use crate::stream::remotecommand::{FromClient, FromKubelet, last_word};

/// The commands under way, and word that the server stops.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Commands {
    /// Ends what is under way with a word, as many as get it said in time.
    pub async fn end(&self, within: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(within, self.tasks.wait()).await;
    }

    /// Counts what `work` does as a command under way.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Joins client and kubelet until either goes.
    pub async fn carry<C, K>(&self, client: C, kubelet: K, protocol: &str)
    where
        C: AsyncRead + AsyncWrite + Send,
        K: AsyncRead + AsyncWrite + Send,
    {
        let ((mut client_in, mut client_out), (mut kubelet_in, mut kubelet_out)) =
            (split(client), split(kubelet));
        let (send, streams) = watch::channel(None);
        let mut from_kubelet = FromKubelet::default();
        let client_left = tokio::select! {
            outcome = up(&mut client_in, &mut kubelet_out, &send) => {
                tracing::debug!(?outcome, "the client of a command left");
                true
            }
            () = down(&mut kubelet_in, &mut client_out, &mut from_kubelet, &self.stop) => false,
        };
        if client_left {
            return leave(&mut kubelet_in, &mut kubelet_out).await;
        }
        let known = streams.borrow().clone();
        if let Some((error, all)) = known.filter(|(error, _)| !from_kubelet.has_said(*error)) {
            let why = match self.stop.is_cancelled() {
                true => "the API server is shutting down; how the command ends is not known",
                false => "lost connection to the kubelet; how the command ended is not known",
            };
            // A client that is gone as well needs no word.
            let _ = client_out.write_all(&last_word(error, &all, protocol, why)).await;
            let _ = client_out.flush().await;
            // It closes by itself, once it has read all; before that it would drop what it has not.
            let gone = async { while matches!(client_in.read(&mut [0; 4096]).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(GOODBYE, gone).await;
        }
        leave(&mut client_in, &mut client_out).await;
    }
}

/// How long a client may take to close once it was told.
const GOODBYE: Duration = Duration::from_secs(2);

/// From the client to the kubelet, as it is.
async fn up<C: AsyncRead, K: AsyncWrite>(
    from: &mut ReadHalf<C>,
    to: &mut WriteHalf<K>,
    streams: &watch::Sender<Option<(u32, Vec<u32>)>>,
) -> io::Result<()> {
    let (mut follower, mut buffer) = (FromClient::new(), vec![0; BUFFER]);
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        follower.follow(&buffer[..size]);
        let now = follower.streams();
        streams.send_if_modified(|known| {
            let news = *known != now;
            *known = now;
            news
        });
        to.write_all(&buffer[..size]).await?;
        to.flush().await?;
    }
}

/// From the kubelet to the client, in whole frames, until the kubelet goes or this server does.
async fn down<K: AsyncRead, C: AsyncWrite>(
    from: &mut ReadHalf<K>,
    to: &mut WriteHalf<C>,
    follower: &mut FromKubelet,
    stop: &CancellationToken,
) {
    let (mut buffer, mut out) = (vec![0; BUFFER], BytesMut::new());
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = stop.cancelled() => return,
        };
        let Ok(size @ 1..) = read else { return };
        follower.pass(&buffer[..size], &mut out);
        if to.write_all(&out).await.is_err() || to.flush().await.is_err() {
            return;
        }
        out.clear();
    }
}
