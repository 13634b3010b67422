//! `/exec/NAMESPACE/POD[/UID]/CONTAINER`: a command in a running container, its streams over the connection.

use std::time::Duration;

use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::Kubelet;
use super::call::Call;
use super::streaming::{self, Target, Task};
use crate::node::shim::{Exec, ExecSpec, Reader, Runtime, ShimError, Terminal, Writer};
use crate::stream::remotecommand::{Options, Outcome, Resizes, Streams, negotiate};
use crate::stream::{self, pump};

/// More than a terminal holds.
const SCREEN: usize = 64 * 1024;
/// When what a command said last has surely come: nothing came for so long, or so often something did, which
/// is then another's.
const QUIET: Duration = Duration::from_millis(20);
const LATE_READS: usize = 32;

pub async fn exec(me: &Kubelet, call: Call, below: &[String]) -> Response {
    let options = match streaming::options(&call) {
        Ok(options) => options,
        Err(refused) => return refused,
    };
    let target = match streaming::target(me, below) {
        Ok(target) => target,
        Err(refused) => return refused,
    };
    me.streaming.note("exec", &call.parts);
    let command: Vec<String> = call.all("command").map(str::to_owned).collect();
    let (runtime, idle) = (me.runtime.clone(), me.config.stream_idle);
    let negotiate = |parts: &_| negotiate(parts).map(|chosen| (chosen.response(), chosen));
    streaming::upgrade(me, call, negotiate, move |io, chosen| {
        Task::new(async move {
            match chosen.idle(idle).serve(io, options).await {
                Ok(streams) => serve(&runtime, &target, command, options, streams).await,
                Err(error) => tracing::debug!(%error, "exec: the client's streams did not come"),
            }
        })
    })
}

async fn serve(
    runtime: &Runtime,
    target: &Target,
    command: Vec<String>,
    options: Options,
    mut streams: Streams,
) {
    let spec = ExecSpec {
        command: command.clone(),
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
        size: None,
    };
    let outcome = match runtime.exec(&target.sandbox, &target.container, &spec).await {
        Ok(exec) => match joined(exec, &mut streams).await {
            Some(Ok(code)) => Outcome::exited(code, &command),
            Some(Err(error)) => failed(&error),
            None => return tracing::debug!("exec: the client went away"),
        },
        Err(error) => failed(&error),
    };
    streams.finish(outcome).await;
}

fn failed(error: &ShimError) -> Outcome {
    Outcome::Error(format!("error executing command in container: {error}"))
}

/// Carries everything to and fro until the command is over and all it said is sent. Nothing: the client left.
async fn joined(mut exec: Exec, streams: &mut Streams) -> Option<Result<i32, ShimError>> {
    let session = Session {
        stdin: (streams.stdin.take(), exec.stdin.take()),
        stdout: (exec.stdout.take(), streams.stdout.take()),
        stderr: (exec.stderr.take(), streams.stderr.take()),
        terminal: (streams.resize.take(), exec.terminal.take()),
    };
    let closed = streams.closed.clone();
    tokio::select! {
        code = until_over(session, &mut exec) => Some(code),
        () = closed.cancelled() => None,
    }
}

/// Input goes on until the command is over, also when it has closed its outputs. On a terminal it is over once
/// it has exited, whoever else still holds the terminal (containerd's shim shuts the console down then);
/// without one, when its outputs have ended too.
async fn until_over(session: Session, exec: &mut Exec) -> Result<i32, ShimError> {
    let Session { stdin, stdout, stderr, terminal } = session;
    let on_terminal = terminal.1.is_some();
    let inputs = async {
        tokio::join!(input(stdin), sizes(terminal));
        std::future::pending().await
    };
    let over = async {
        if !on_terminal {
            tokio::join!(output(stdout), output(stderr));
            return exec.wait().await;
        }
        let exited = CancellationToken::new();
        let outcome = async {
            let code = exec.wait().await;
            exited.cancel();
            code
        };
        tokio::join!(outcome, screen(stdout, exited.clone())).0
    };
    tokio::select! {
        code = over => code,
        never = inputs => never,
    }
}

/// What a terminal shows: to its end, or once the command is over, as much as had been said by then.
async fn screen((from, to): (Option<Reader>, Option<stream::Writer>), exited: CancellationToken) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let (mut buffer, mut late) = (vec![0; SCREEN], LATE_READS);
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = async {
                exited.cancelled().await;
                tokio::time::sleep(QUIET).await;
            } => break,
        };
        let Ok(size @ 1..) = read else { break };
        if to.write_all(&buffer[..size]).await.is_err() {
            break;
        }
        late -= usize::from(exited.is_cancelled());
        if late == 0 {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// The pairs of a session: from where, to where.
pub struct Session {
    pub stdin: (Option<stream::Reader>, Option<Writer>),
    pub stdout: (Option<Reader>, Option<stream::Writer>),
    pub stderr: (Option<Reader>, Option<stream::Writer>),
    pub terminal: (Option<Resizes>, Option<Terminal>),
}

impl Session {
    /// Returns when both outputs have ended; input and window sizes go on beside them, and stop with them.
    /// `input_counts` where there may be no output: then it returns when the input has ended as well.
    pub async fn carry(self, input_counts: bool) {
        let outputs = async { tokio::join!(output(self.stdout), output(self.stderr)) };
        let inputs = async { tokio::join!(input(self.stdin), sizes(self.terminal)) };
        if input_counts {
            tokio::join!(outputs, inputs);
            return;
        }
        tokio::pin!(outputs);
        tokio::select! {
            _ = &mut outputs => {}
            _ = inputs => { outputs.await; }
        }
    }
}

/// Standard input; its end is the command's.
async fn input((from, to): (Option<stream::Reader>, Option<Writer>)) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if let Err(error) = pump(&mut from, &mut to).await {
        // A command that does not read its input is nothing to complain of.
        tracing::debug!(%error, "standard input ended early");
    }
    let _ = to.shutdown().await;
}

async fn output((from, to): (Option<Reader>, Option<stream::Writer>)) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if let Err(error) = pump(&mut from, &mut to).await {
        tracing::debug!(%error, "output ended early");
    }
    let _ = to.shutdown().await;
}

async fn sizes((from, to): (Option<Resizes>, Option<Terminal>)) {
    let (Some(mut from), Some(terminal)) = (from, to) else { return };
    while let Some((columns, rows)) = from.recv().await {
        if let Err(error) = terminal.resize(columns, rows) {
            tracing::debug!(%error, "the terminal's size cannot be set");
        }
    }
}
