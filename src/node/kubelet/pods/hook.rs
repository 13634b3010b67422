//! Lifecycle hooks: what a container wants done right after it started and before it is stopped
//! (`pkg/kubelet/lifecycle/handlers.go`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use super::probe::{Subject, fetch};
use crate::net::go_text;

/// Runs a hook to its end; why it failed, in upstream's words, which events do not repeat because a server's
/// answer may hold secrets.
pub async fn run(handler: &LifecycleHandler, pod: &Pod, subject: &Subject) -> Result<(), String> {
    let failed = |kind: &str, what: String, error: String| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let pod = format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid));
        let container = &subject.container.name;
        format!(
            "{kind} lifecycle hook ({what}) for Container {container:?} in Pod {pod:?} failed - error: {error}"
        )
    };
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let words = command.join(" ");
        let outcome = subject.runtime.exec_sync(&subject.sandbox, &subject.id, &command, None).await;
        let (error, output) = match outcome {
            Ok(output) if output.exit_code == 0 => return Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.text()).into_owned();
                (format!("command '{words}' exited with {}: {text}", output.exit_code), text)
            }
            Err(error) => (format!("rpc error: code = Unknown desc = {error}"), String::new()),
        };
        return Err(failed("Exec", format!("[{words}]"), format!("{error}, message: {output:?}")));
    }
    if let Some(get) = &handler.http_get {
        let url = subject.url(get);
        // Any answer will do, whatever its status.
        return match fetch(get, &url, "kube-lifecycle/1.36").await {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("Get {url:?}: {}", go_text(&*error));
                Err(failed("HTTP", get.path.clone().unwrap_or_default(), text))
            }
        };
    }
    match &handler.sleep {
        Some(sleep) => {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            Ok(())
        }
        None => Err("invalid handler: no hook is given".into()),
    }
}
