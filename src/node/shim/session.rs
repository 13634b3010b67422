//! The kubelet's side of being inside a pod: exec, attach, and connections to a pod's ports.
//!
//! The bytes of a session go straight between the kubelet and the process: the shim passes the descriptors
//! over its socket and takes no further part, except that what a container prints goes to its log too. A
//! session's end is the end of its connection to the shim. Errors are in containerd's words.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::caller::Held;
use super::protocol::{Answer, Given, Request};
use super::runtime::{PATIENCE, Runtime, ShimError, new_id};
use super::spec::{AttachSpec, ExecSpec};
use crate::net::io_text;
use crate::sys::ready::Stream;
use crate::sys::terminal;

/// As much of a command's output is kept as containerd keeps.
const MOST_OUTPUT: usize = 16 << 20;

pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The outer end of a terminal, for its size.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Changes the size; the programs on it get SIGWINCH.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        terminal::resize(&self.0, (rows, columns))
    }
}

/// A command that runs in a container.
///
/// Dropping `stdin` is end of file for it. Dropping everything leaves it running, as upstream has it, except
/// on a terminal: that hangs up when all three parts of it are gone.
pub struct Exec {
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    /// With it, `stdin` and `stdout` are its two directions and there is no `stderr`.
    pub terminal: Option<Terminal>,
    sandbox: String,
    held: Held,
}

impl Exec {
    /// Its exit code, 128 and the signal's number for one that was killed. What it printed may still be in
    /// `stdout` and `stderr`: read them to their end.
    pub async fn wait(&mut self) -> Result<i32, ShimError> {
        ended(&mut self.held, &self.sandbox).await
    }
}

/// The streams of a running container.
///
/// Of a container with `stdinOnce`, `stdin` is the only one there will ever be: dropping it is end of file
/// for the program. Otherwise dropping it closes nothing.
pub struct Attach {
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    pub terminal: Option<Terminal>,
    sandbox: String,
    held: Held,
}

impl Attach {
    /// Waits for the container's end; its exit code. The streams end by themselves, earlier for a reader that
    /// holds the container up.
    pub async fn wait(&mut self) -> Result<i32, ShimError> {
        ended(&mut self.held, &self.sandbox).await
    }
}

/// What a command that was waited for has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output, then standard error, as the kubelet shows them of probes, hooks and `/run`.
    pub fn text(&self) -> Vec<u8> {
        [&self.stdout[..], &self.stderr].concat()
    }
}

impl Runtime {
    /// Runs a command in a running container, as the container's user and with its rights.
    pub async fn exec(&self, sandbox: &str, container: &str, spec: &ExecSpec) -> Result<Exec, ShimError> {
        self.run(sandbox, container, spec, false).await
    }

    async fn run(
        &self,
        sandbox: &str,
        container: &str,
        spec: &ExecSpec,
        leash: bool,
    ) -> Result<Exec, ShimError> {
        let (container, exec) = (container.to_owned(), new_id());
        let request = Request::Exec { container, exec, spec: Box::new(spec.clone()), leash };
        let (held, streams) = self.join(sandbox, request).await?;
        let Streams { stdin, stdout, stderr, terminal } = streams;
        Ok(Exec { stdin, stdout, stderr, terminal, sandbox: sandbox.to_owned(), held })
    }

    /// Runs a command to its end, or to the end of the time it has: then it is killed. It is killed as well
    /// when this is dropped.
    pub async fn exec_sync(
        &self,
        sandbox: &str,
        container: &str,
        command: &[String],
        within: Option<Duration>,
    ) -> Result<Output, ShimError> {
        let spec = ExecSpec { command: command.to_vec(), stdout: true, stderr: true, ..ExecSpec::default() };
        let work = async {
            let mut exec = self.run(sandbox, container, &spec, true).await?;
            let (mut out, mut err) = (exec.stdout.take(), exec.stderr.take());
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let gone = |source| ShimError::Gone { id: sandbox.to_owned(), source };
            gather((&mut out, &mut stdout), (&mut err, &mut stderr)).await.map_err(gone)?;
            Ok(Output { exit_code: exec.wait().await?, stdout, stderr })
        };
        match within {
            Some(within) => timeout(within, work)
                .await
                .map_err(|_| ShimError::TimedOut { command: command.join(" "), within })?,
            None => work.await,
        }
    }

    /// Joins the streams of a running container.
    pub async fn attach(
        &self,
        sandbox: &str,
        container: &str,
        spec: AttachSpec,
    ) -> Result<Attach, ShimError> {
        let request = Request::Attach { container: container.to_owned(), spec };
        let (held, streams) = self.join(sandbox, request).await?;
        let Streams { stdin, stdout, stderr, terminal } = streams;
        Ok(Attach { stdin, stdout, stderr, terminal, sandbox: sandbox.to_owned(), held })
    }

    /// Connects to a port of a pod from inside its network namespace, so also to what listens on 127.0.0.1
    /// or ::1 only.
    pub async fn connect(&self, sandbox: &str, port: u16) -> Result<TcpStream, ShimError> {
        let (v4, network) = self.dial(sandbox, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let v4 = match v4 {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let (v6, _) = self.dial(sandbox, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await?;
        v6.map_err(|v6| ShimError::Connect {
            network,
            port,
            sandbox: sandbox.to_owned(),
            v4: io_text(&v4),
            v6: io_text(&v6),
        })
    }

    /// The outcome of one attempt, and where it was made.
    async fn dial(
        &self,
        sandbox: &str,
        at: SocketAddr,
    ) -> Result<(io::Result<TcpStream>, String), ShimError> {
        let gone = |source| ShimError::Gone { id: sandbox.to_owned(), source };
        let (mut held, answer, mut fds) = self.hold_on(sandbox, Request::Socket { v6: at.is_ipv6() }).await?;
        let network = answer.network.unwrap_or_default();
        let Some(fd) = fds.pop() else { return Err(gone(io::ErrorKind::InvalidData.into())) };
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
        let outcome = tokio::select! {
            outcome = socket.connect(at) => outcome,
            // The shim says no more on this connection; its end is the pod's.
            over = held.answer() => Err(over.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
        };
        Ok((outcome, network))
    }

    /// Asks for something whose answer comes with descriptors.
    async fn hold_on(
        &self,
        sandbox: &str,
        request: Request,
    ) -> Result<(Held, Answer, Vec<OwnedFd>), ShimError> {
        if !self.is_live(sandbox) {
            return Err(ShimError::NoSandbox(sandbox.to_owned()));
        }
        let work = async {
            let mut held = Held::ask(self.paths(sandbox), request).await?;
            let (answer, fds) = held.answer().await?;
            Ok((held, answer, fds))
        };
        let (held, answer, fds) = timeout(PATIENCE, work)
            .await
            .map_err(|_| ShimError::Silent { id: sandbox.to_owned(), within: PATIENCE })?
            .map_err(|source| ShimError::Gone { id: sandbox.to_owned(), source })?;
        match answer.refusal {
            Some(refusal) => Err(refusal.into()),
            None => Ok((held, answer, fds)),
        }
    }

    async fn join(&self, sandbox: &str, request: Request) -> Result<(Held, Streams), ShimError> {
        let (held, answer, fds) = self.hold_on(sandbox, request).await?;
        let mut streams = Streams::default();
        for (what, fd) in answer.given.into_iter().zip(fds) {
            streams.add(what, fd).map_err(|source| ShimError::Gone { id: sandbox.to_owned(), source })?;
        }
        Ok((held, streams))
    }
}

#[derive(Default)]
struct Streams {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    terminal: Option<Terminal>,
}

impl Streams {
    fn add(&mut self, what: Given, fd: OwnedFd) -> io::Result<()> {
        match what {
            Given::Stdin => self.stdin = Some(Box::new(Stream::new(fd, Interest::WRITABLE)?)),
            Given::Stdout => self.stdout = Some(Box::new(Stream::new(fd, Interest::READABLE)?)),
            Given::Stderr => self.stderr = Some(Box::new(Stream::new(fd, Interest::READABLE)?)),
            Given::Terminal => self.terminal = Some(Terminal(fd)),
            Given::Socket => {}
        }
        Ok(())
    }
}

async fn ended(held: &mut Held, sandbox: &str) -> Result<i32, ShimError> {
    loop {
        let gone = |source| ShimError::Gone { id: sandbox.to_owned(), source };
        if let (Answer { exit_code: Some(code), .. }, _) = held.answer().await.map_err(gone)? {
            return Ok(code);
        }
    }
}

/// Reads both to their ends; what is too much is read and forgotten, so that the command can end.
async fn gather(
    (out, stdout): (&mut Option<Reader>, &mut Vec<u8>),
    (err, stderr): (&mut Option<Reader>, &mut Vec<u8>),
) -> io::Result<()> {
    let (mut one, mut other) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    while out.is_some() || err.is_some() {
        let (from, text, bytes, length) = tokio::select! {
            length = read(out, &mut one), if out.is_some() => (&mut *out, &mut *stdout, &one, length?),
            length = read(err, &mut other), if err.is_some() => (&mut *err, &mut *stderr, &other, length?),
        };
        if length == 0 {
            *from = None;
        }
        let room = MOST_OUTPUT - text.len();
        text.extend_from_slice(&bytes[..length.min(room)]);
    }
    Ok(())
}

async fn read(from: &mut Option<Reader>, buffer: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(reader) => reader.read(buffer).await,
        None => Ok(0),
    }
}
