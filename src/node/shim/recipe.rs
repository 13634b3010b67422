//! What a container is made of, from its specification, its image and its pod. Pure.

use std::path::Path;

use super::command;
use super::process::Program;
use super::protocol::{Refusal, RefusalKind};
use super::rights::Rights;
use super::root::{Root, RootMount};
use super::sandbox::Sandbox;
use super::spec::ContainerSpec;
use crate::node::image::Image;
use crate::sys::capabilities::Capabilities;

/// The root of a container.
pub fn root(id: &str, spec: &ContainerSpec, sandbox: &Sandbox, image: &Image) -> Root {
    let paths = &sandbox.paths;
    Root {
        mount_point: paths.mount_point(),
        layers: image.layers.clone(),
        writable: paths.container(id),
        mounts: mounts(spec, sandbox, image),
        shared_memory: match sandbox.spec.host_ipc {
            true => "/dev/shm".into(),
            false => paths.shared_memory(),
        },
        privileged: spec.security.privileged,
        read_only: spec.security.read_only_root_filesystem,
    }
}

/// What a container runs first.
pub fn program(spec: &ContainerSpec, sandbox: &Sandbox, image: &Image) -> Result<Program, Refusal> {
    let working_dir = spec.working_dir.as_deref().filter(|directory| !directory.is_empty());
    let from_image = Some(image.config.working_dir.as_str()).filter(|directory| !directory.is_empty());
    Ok(Program {
        argv: command::argv(spec, &image.config)?,
        env: command::environment(spec, &image.config, &sandbox.spec.hostname),
        working_dir: working_dir.or(from_image).unwrap_or("/").to_owned(),
        rights: Rights { security: spec.security.clone(), capabilities: capabilities(spec)? },
        oom_score: spec.oom_score,
        terminal: spec.tty.then_some(None),
    })
}

/// The image's, the runtime's own, then the pod's; where the pod has one at the same place, only that.
fn mounts(spec: &ContainerSpec, sandbox: &Sandbox, image: &Image) -> Vec<RootMount> {
    let read_only = |from: &Path, to: &Path| RootMount { from: from.into(), to: to.into(), read_only: true };
    // What a volume of the pod's covers of the image is not there: as files of any image under a mount.
    let covered = |to: &Path| spec.mounts.iter().any(|mount| to.starts_with(&mount.container_path));
    let shown = image.binds.iter().filter(|(_, to)| !covered(to));
    let mut mounts: Vec<RootMount> = shown.map(|(from, to)| read_only(from, to)).collect();
    let hostname = sandbox.paths.hostname();
    let own = [(hostname.as_path(), "/etc/hostname"), (Path::new("/etc/resolv.conf"), "/etc/resolv.conf")];
    mounts.extend(
        own.iter().filter(|(from, _)| from.exists()).map(|(from, to)| read_only(from, Path::new(to))),
    );
    for wanted in &spec.mounts {
        mounts.retain(|mount| mount.to != wanted.container_path);
        mounts.push(RootMount {
            from: wanted.host_path.clone(),
            to: wanted.container_path.clone(),
            read_only: wanted.read_only,
        });
    }
    mounts
}

fn capabilities(spec: &ContainerSpec) -> Result<Capabilities, Refusal> {
    let security = &spec.security;
    if security.privileged {
        return Ok(Capabilities::all());
    }
    let unknown = |name: &str| {
        let message = format!("failed to generate container spec: unknown capability \"CAP_{name}\"");
        Refusal::new(RefusalKind::Create, message)
    };
    // As containerd: ALL before the single ones, drops of single ones last.
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL");
    let mut set = match security.add_capabilities.iter().any(|name| is_all(&name)) {
        true => Capabilities::all(),
        false => Capabilities::containerd_default(),
    };
    if security.drop_capabilities.iter().any(|name| is_all(&name)) {
        set = Capabilities::none();
    }
    for name in security.add_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.with(name).ok_or_else(|| unknown(name))?;
    }
    for name in security.drop_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.without(name).ok_or_else(|| unknown(name))?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::shim::command::tests::container;

    #[test]
    fn drop_all_and_add_one_leaves_one() {
        let mut spec = container("c", &[]);
        spec.security.drop_capabilities = vec!["ALL".into()];
        spec.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
        assert_eq!(capabilities(&spec).unwrap(), Capabilities::none().with("NET_BIND_SERVICE").unwrap());
        spec.security.add_capabilities = vec!["NOTHING".into()];
        assert!(capabilities(&spec).unwrap_err().message.contains("CAP_NOTHING"));
    }
}
