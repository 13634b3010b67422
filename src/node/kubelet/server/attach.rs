//! `/attach/NAMESPACE/POD[/UID]/CONTAINER`: the streams of a container's first process.

use axum::response::Response;

use super::Kubelet;
use super::call::Call;
use super::exec::Session;
use super::streaming::{self, Target, Task};
use crate::node::shim::{AttachSpec, Runtime};
use crate::stream::remotecommand::{Options, Outcome, Streams, negotiate};

pub async fn attach(me: &Kubelet, call: Call, below: &[String]) -> Response {
    let options = match streaming::options(&call) {
        Ok(options) => options,
        Err(refused) => return refused,
    };
    let target = match streaming::target(me, below) {
        Ok(target) => target,
        Err(refused) => return refused,
    };
    me.streaming.note("attach", &call.parts);
    let runtime = me.runtime.clone();
    let negotiate = |parts: &_| negotiate(parts).map(|chosen| (chosen.response(), chosen));
    streaming::upgrade(me, call, negotiate, move |io, chosen| {
        Task::new(async move {
            match chosen.serve(io, options).await {
                Ok(streams) => serve(&runtime, &target, options, streams).await,
                Err(error) => tracing::debug!(%error, "attach: the client's streams did not come"),
            }
        })
    })
}

async fn serve(runtime: &Runtime, target: &Target, options: Options, mut streams: Streams) {
    let spec = AttachSpec { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
    let mut attach = match runtime.attach(&target.sandbox, &target.container, spec).await {
        Ok(attach) => attach,
        Err(error) => {
            let outcome = Outcome::Error(format!("error attaching to container: {error}"));
            return streams.finish(outcome).await;
        }
    };
    let session = Session {
        stdin: (streams.stdin.take(), attach.stdin.take()),
        stdout: (attach.stdout.take(), streams.stdout.take()),
        stderr: (attach.stderr.take(), streams.stderr.take()),
        terminal: (streams.resize.take(), attach.terminal.take()),
    };
    let closed = streams.closed.clone();
    // With standard input alone it lasts as long as the container.
    let listening = options.stdout || options.stderr;
    tokio::select! {
        () = session.carry(!listening) => {}
        _ = attach.wait(), if !listening => {}
        () = closed.cancelled() => return tracing::debug!("attach: the client went away"),
    }
    streams.finish(Outcome::Success).await;
}
