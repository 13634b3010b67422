//! `/attach/NAMESPACE/POD[/UID]/CONTAINER`: the streams of a container's first process.

use axum::http::StatusCode;
use axum::response::Response;

use super::Kubelet;
use super::call::{Call, text};
use super::exec::Session;
use super::streaming::{self, Target, Task};
use crate::node::shim::{AttachSpec, Runtime};
use crate::stream::remotecommand::{Options, Outcome, Streams, negotiate};

pub async fn attach(me: &Kubelet, call: Call, below: &[String]) -> Response {
    let mut options = match streaming::options(&call) {
        Ok(options) => options,
        Err(refused) => return refused,
    };
    let target = match target(me, below, &mut options) {
        Ok(target) => target,
        Err(refused) => return refused,
    };
    me.streaming.note("attach", &call.parts);
    let (runtime, idle) = (me.runtime.clone(), me.config.stream_idle);
    let negotiate = |parts: &_| negotiate(parts).map(|chosen| (chosen.response(), chosen));
    streaming::upgrade(me, call, negotiate, move |io, chosen| {
        Task::new(async move {
            match chosen.idle(idle).serve(io, options).await {
                Ok(streams) => serve(&runtime, &target, options, streams).await,
                Err(error) => tracing::debug!(%error, "attach: the client's streams did not come"),
            }
        })
    })
}

/// The container, as `GetAttach` finds it: in a pod of this uid, with a terminal if its specification has one,
/// whatever the client says.
fn target(me: &Kubelet, below: &[String], options: &mut Options) -> Result<Target, Response> {
    let refused = |why: String| text(StatusCode::INTERNAL_SERVER_ERROR, why);
    let (namespace, name, uid, container) = match below {
        [namespace, name, container] => (namespace, name, None, container),
        [namespace, name, uid, container] => (namespace, name, Some(uid), container),
        _ => return Err(text(StatusCode::NOT_FOUND, "404: Page Not Found")),
    };
    let pod = streaming::pod(me, namespace, name)?;
    let full_name = format!("{name}_{namespace}");
    if uid.is_some_and(|uid| pod.metadata.uid.as_ref() != Some(uid)) {
        return Err(refused(format!("pod {full_name} not found")));
    }
    let missing = || refused(format!("container {container} not found in pod {full_name}"));
    let found = streaming::running(me, &pod, container).ok_or_else(missing)?;
    let spec = pod.spec.unwrap_or_default();
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let of_plain = plain.filter(|one| one.name == *container).map(|one| one.tty).next();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let of_ephemeral = || ephemeral.filter(|one| one.name == *container).map(|one| one.tty).next();
    options.tty = of_plain.or_else(of_ephemeral).ok_or_else(missing)?.unwrap_or(false);
    options.stderr &= !options.tty;
    Ok(found)
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
