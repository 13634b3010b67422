//! Two upgraded connections become one: bytes go both ways until either side is done.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

/// What is on its way in one direction, at most.
pub const BUFFER: usize = 64 * 1024;
/// How long a side may take to read the last bytes once the other has gone.
const LINGER: Duration = Duration::from_secs(2);

/// Copies both ways until one side ends, then ends the other too, as upstream does: nobody is left behind.
///
/// The side that is still there gets what was under way for it, and a while to read it: closing a socket
/// that has unread input would reset it, and a command's exit code could be lost.
pub async fn splice(
    a: impl AsyncRead + AsyncWrite + Send,
    b: impl AsyncRead + AsyncWrite + Send,
) -> io::Result<()> {
    let ((mut a_in, mut a_out), (mut b_in, mut b_out)) = (split(a), split(b));
    let a_ended = tokio::select! {
        outcome = copy(&mut a_in, &mut b_out) => { outcome?; true }
        outcome = copy(&mut b_in, &mut a_out) => { outcome?; false }
    };
    match a_ended {
        true => leave(&mut b_in, &mut b_out).await,
        false => leave(&mut a_in, &mut a_out).await,
    }
    Ok(())
}

async fn copy<R: AsyncRead, W: AsyncWrite>(from: &mut ReadHalf<R>, to: &mut WriteHalf<W>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..size]).await?;
        // Behind TLS, what a full socket did not take waits for this.
        to.flush().await?;
    }
}

/// Says goodbye and reads until the peer has said it too.
pub async fn leave<S: AsyncRead + AsyncWrite>(input: &mut ReadHalf<S>, output: &mut WriteHalf<S>) {
    let goodbye = async {
        output.shutdown().await?;
        let mut buffer = vec![0; BUFFER];
        while input.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    // A peer that does not answer is cut off by the drop that follows.
    let _ = timeout(LINGER, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    /// Two connections, the inner ends spliced.
    async fn spliced() -> (TcpStream, TcpStream, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = TcpStream::connect(address).await.unwrap();
        let (inner_left, _) = listener.accept().await.unwrap();
        let right = TcpStream::connect(address).await.unwrap();
        let (inner_right, _) = listener.accept().await.unwrap();
        (left, right, tokio::spawn(splice(inner_left, inner_right)))
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_when_one_side_leaves_the_other_is_told() {
        let (mut left, mut right, task) = spliced().await;
        left.write_all(b"ping").await.unwrap();
        let mut four = [0; 4];
        right.read_exact(&mut four).await.unwrap();
        right.write_all(b"pong").await.unwrap();
        left.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"pong");
        drop(left);
        assert_eq!(right.read(&mut four).await.unwrap(), 0);
        drop(right);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_last_words_arrive_though_the_other_side_is_still_talking() {
        let (left, mut right, task) = spliced().await;
        let (mut hears, mut talks) = left.into_split();
        let talking = tokio::spawn(async move { while talks.write_all(&[7; 4096]).await.is_ok() {} });
        tokio::time::sleep(Duration::from_millis(50)).await;
        right.write_all(b"exit code 7").await.unwrap();
        right.shutdown().await.unwrap();
        let mut heard = Vec::new();
        hears.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"exit code 7");
        talking.abort();
        let _ = talking.await;
        drop((hears, right));
        timeout(Duration::from_secs(5), task).await.unwrap().unwrap().ok();
    }
}
