//! Starting one container: image, environment, mounts, the shim, and the events people read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::PodError;
use super::downward::Surroundings;
use super::env::{self, Context};
use super::objects::{Fetched, Objects};
use super::qos;
use super::reporter::Reporter;
use super::spec;
use super::volumes::PodDir;
use crate::client::events::Kind;
use crate::node::image::{self, ImageError};
use crate::node::shim::{ContainerStatus, Mount, RefusalKind, Runtime};

/// Upstream's place for a container's last words.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What a container is started with.
pub struct Launch<'a> {
    pub runtime: &'a Runtime,
    pub pod: &'a Pod,
    pub dir: &'a PodDir,
    pub objects: &'a Objects,
    pub services: &'a BTreeMap<String, String>,
    pub around: &'a Surroundings,
    pub reporter: &'a Reporter,
    pub log_root: &'a Path,
}

/// Why a container did not start, under the reason its state shows.
pub struct NotStarted {
    pub reason: &'static str,
    pub message: String,
}

impl Launch<'_> {
    /// Makes and starts a container, and says so.
    pub async fn start(
        &self,
        container: &Container,
        sandbox: &str,
        attempt: u32,
    ) -> Result<ContainerStatus, NotStarted> {
        let path = field_path(self.pod, &container.name);
        let say =
            |kind, reason: &str, message: String| self.reporter.container_event(&path, kind, reason, message);
        self.image(container, &say)?;
        let failed = |reason: &'static str, message: String| {
            say(Kind::Warning, "Failed", format!("Error: {message}"));
            NotStarted { reason, message }
        };
        let spec = match self.specification(container, attempt).await {
            Ok(spec) => spec,
            Err(error) => return Err(failed("CreateContainerConfigError", error.to_string())),
        };
        match self.runtime.start_container(sandbox, &spec).await {
            Ok(status) => {
                say(Kind::Normal, "Created", format!("Created container: {}", container.name));
                say(Kind::Normal, "Started", format!("Started container {}", container.name));
                self.link_log(&status);
                Ok(status)
            }
            Err(error) => {
                let reason = match error.refusal() {
                    Some(RefusalKind::Config) => "CreateContainerConfigError",
                    Some(RefusalKind::Start) => "RunContainerError",
                    _ => "CreateContainerError",
                };
                Err(failed(reason, error.to_string()))
            }
        }
    }

    /// Finds the image, or says why there is none.
    fn image(&self, container: &Container, say: &impl Fn(Kind, &str, String)) -> Result<(), NotStarted> {
        let name = container.image.as_deref().unwrap_or_default();
        let message = match image::resolve(name) {
            Ok(found) => {
                // Whatever the pull policy: no registry is asked for what is built in, so upstream's text for
                // an image that was found and not pulled is the true one (`imagePullManager.logIt`, 1.35 on).
                let own = found.stands_for.map(|own| format!(" (minilab's own {own}, in its place)"));
                let message = format!(
                    "Container image \"{name}\" already present on machine and can be accessed by the pod{}",
                    own.unwrap_or_default()
                );
                say(Kind::Normal, "Pulled", message);
                return Ok(());
            }
            Err(error @ ImageError::InvalidName { .. }) => {
                let message = error.to_string();
                say(Kind::Warning, "InspectFailed", message.clone());
                say(Kind::Warning, "Failed", "Error: InvalidImageName".into());
                return Err(NotStarted { reason: "InvalidImageName", message });
            }
            Err(error) => error.to_string(),
        };
        if container.image_pull_policy.as_deref() == Some("Never") {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            say(Kind::Warning, "ErrImageNeverPull", message.clone());
            say(Kind::Warning, "Failed", "Error: ErrImageNeverPull".into());
            return Err(NotStarted { reason: "ErrImageNeverPull", message });
        }
        say(Kind::Normal, "Pulling", format!("Pulling image \"{name}\""));
        say(Kind::Warning, "Failed", format!("Failed to pull image \"{name}\": {message}"));
        say(Kind::Warning, "Failed", "Error: ErrImagePull".into());
        Err(NotStarted { reason: "ErrImagePull", message })
    }

    async fn specification(
        &self,
        container: &Container,
        attempt: u32,
    ) -> Result<crate::node::shim::ContainerSpec, PodError> {
        let mut objects = Fetched::default();
        self.objects.fetch(&mut objects, &env::wanted(container)).await?;
        let context = Context {
            pod: self.pod,
            container,
            services: self.services,
            objects: &objects,
            around: self.around,
        };
        let env = env::environment(&context)?;
        let mut mounts = self.dir.mounts(self.pod, container, &env)?;
        self.own_mounts(container, attempt, &mut mounts)?;
        let pod = self.pod.spec.as_ref().ok_or_else(|| PodError::Config("the pod has no spec".into()))?;
        let oom_score = qos::oom_score(pod, container, self.around.memory_bytes);
        let spec = spec::container(pod, container, attempt, env, mounts);
        Ok(crate::node::shim::ContainerSpec { oom_score, ..spec })
    }

    /// The files every container gets, unless it mounts its own there.
    fn own_mounts(
        &self,
        container: &Container,
        attempt: u32,
        mounts: &mut Vec<Mount>,
    ) -> Result<(), PodError> {
        for (file, inside) in [(HOSTS, "/etc/hosts"), (RESOLV_CONF, "/etc/resolv.conf")] {
            add(mounts, self.dir.path().join(file), Path::new(inside));
        }
        let words = termination_file(self.dir, &container.name, attempt);
        let io = |source| PodError::Io { what: "make", path: words.clone(), source };
        fs::create_dir_all(words.parent().unwrap_or(self.dir.path())).map_err(io)?;
        fs::write(&words, "").map_err(io)?;
        // Any user of the container may leave its last words here.
        fs::set_permissions(&words, std::os::unix::fs::PermissionsExt::from_mode(0o666)).map_err(io)?;
        let inside = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        add(mounts, words.clone(), Path::new(inside.unwrap_or(TERMINATION_LOG)));
        Ok(())
    }

    /// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, which log collectors read.
    fn link_log(&self, status: &ContainerStatus) {
        let meta = &self.pod.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let Some(dir) = self.log_root.parent().map(|logs| logs.join("containers")) else { return };
        let name =
            format!("{}_{}_{}-{}.log", text(&meta.name), text(&meta.namespace), status.name, status.id);
        let linked = fs::create_dir_all(&dir)
            .and_then(|()| std::os::unix::fs::symlink(&status.log_path, dir.join(name)));
        if let Err(error) = linked {
            tracing::warn!(%error, "Failed to create legacy symbolic link to a container's log");
        }
    }
}

/// Names of the files in the pod's directory.
pub const HOSTS: &str = "etc-hosts";
pub const RESOLV_CONF: &str = "etc-resolv.conf";

fn add(mounts: &mut Vec<Mount>, host_path: PathBuf, container_path: &Path) {
    if !mounts.iter().any(|mount| mount.container_path == container_path) {
        mounts.push(Mount { host_path, container_path: container_path.to_owned(), read_only: false });
    }
}

/// Where a container's termination message is kept on the node.
pub fn termination_file(dir: &PodDir, container: &str, attempt: u32) -> PathBuf {
    dir.path().join("containers").join(container).join(format!("{attempt:08x}"))
}

/// A container in an event: `spec.containers{web}`.
pub fn field_path(pod: &Pod, name: &str) -> String {
    let spec = pod.spec.iter();
    let init =
        spec.clone().flat_map(|spec| spec.init_containers.iter().flatten()).any(|one| one.name == name);
    let ephemeral =
        spec.flat_map(|spec| spec.ephemeral_containers.iter().flatten()).any(|one| one.name == name);
    let list = match (init, ephemeral) {
        (true, _) => "initContainers",
        (_, true) => "ephemeralContainers",
        _ => "containers",
    };
    format!("spec.{list}{{{name}}}")
}
