//! A pod's volumes under `/var/lib/kubelet/pods/UID/volumes`, at upstream's paths.
//!
//! Kinds: emptyDir, hostPath, configMap, secret, downwardAPI, projected, the last three on tmpfs; claims whose
//! volume is a directory of the node (a link leads there). Others (CSI, NFS …) are refused by name. Files that come from the API are refreshed by setting the volumes up again.

mod atomic;
mod payload;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume, VolumeMount,
};
use nix::mount::{MntFlags, umount2};

pub use payload::Gather;

use super::PodError;
use super::env::expand;
use crate::node::shim::Mount;

/// `/var/lib/kubelet/pods/UID`.
#[derive(Debug, Clone)]
pub struct PodDir(PathBuf);

impl PodDir {
    pub fn new(root: &Path, uid: &str) -> Self {
        Self(root.join("pods").join(uid))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a volume lives on the node.
    fn volume(&self, volume: &Volume) -> Result<PathBuf, PodError> {
        let plugin = match volume {
            Volume { host_path: Some(host), .. } => return Ok(PathBuf::from(&host.path)),
            Volume { empty_dir: Some(_), .. } => "kubernetes.io~empty-dir",
            Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
            Volume { secret: Some(_), .. } => "kubernetes.io~secret",
            Volume { projected: Some(_), .. } => "kubernetes.io~projected",
            Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
            Volume { persistent_volume_claim: Some(_), .. } | Volume { ephemeral: Some(_), .. } => {
                "kubernetes.io~host-path"
            }
            _ => {
                return Err(PodError::Volume(
                    "no volume plugin matched: this kind of volume is not supported".into(),
                ));
            }
        };
        Ok(self.0.join("volumes").join(plugin).join(&volume.name))
    }

    /// Sets up every volume; on failure names the one that could not be.
    pub async fn set_up(&self, gather: &Gather<'_>) -> Result<(), (String, PodError)> {
        let spec = gather.pod.spec.as_ref();
        let fs_group =
            spec.and_then(|spec| spec.security_context.as_ref()).and_then(|security| security.fs_group);
        for volume in spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            self.one(gather, volume, fs_group).await.map_err(|error| (volume.name.clone(), error))?;
        }
        Ok(())
    }

    async fn one(&self, gather: &Gather<'_>, volume: &Volume, fs_group: Option<i64>) -> Result<(), PodError> {
        let path = self.volume(volume)?;
        let io = |source| PodError::Io { what: "set up", path: path.clone(), source };
        if let Some(host) = &volume.host_path {
            return host_path(host)
                .map_err(|problem| PodError::Volume(format!("hostPath type check failed: {problem}")));
        }
        if let Some(claim) = claim_of(gather.pod, volume) {
            let source = gather.objects.claimed(&claim).await?;
            host_path(&source)
                .map_err(|problem| PodError::Volume(format!("hostPath type check failed: {problem}")))?;
            link(&path, Path::new(&source.path))?;
        }
        if let Some(empty) = &volume.empty_dir {
            empty_dir(&path, empty)?;
        }
        if let Some(payload) = gather.payload(volume).await? {
            if kept_in_memory(volume) {
                in_memory(&path)?;
            }
            atomic::write(&path, &payload).map_err(io)?;
        }
        match fs_group.and_then(|group| u32::try_from(group).ok()) {
            Some(group) if group != 0 => own(&path, group),
            _ => Ok(()),
        }
    }

    /// A container's volume mounts, for its shim.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, PodError> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let unknown = || PodError::Config(format!("volume {:?} of container not found", mount.name));
            let volume = volume.ok_or_else(unknown)?;
            let base = self.volume(volume)?;
            let claim = volume.persistent_volume_claim.as_ref();
            let read_only =
                mount.read_only == Some(true) || claim.is_some_and(|one| one.read_only == Some(true));
            let host_path = match sub_path(mount, env) {
                None => base,
                Some(sub) => below(&base, &sub)?,
            };
            let container_path = Path::new("/").join(&mount.mount_path);
            mounts.push(Mount { host_path, container_path, read_only });
        }
        Ok(mounts)
    }

    /// Takes the pod's directory away with everything mounted in it.
    pub fn remove(&self) {
        let kinds = fs::read_dir(self.0.join("volumes")).into_iter().flatten().flatten();
        for entry in kinds.flat_map(|kind| fs::read_dir(kind.path()).into_iter().flatten().flatten()) {
            // A claim's link leads to what is not the pod's.
            if entry.path().is_symlink() {
                continue;
            }
            // Some are no mounts.
            let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
        }
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "Cannot remove a pod's directory");
        }
    }
}

/// The claim behind a volume, named or made for this pod alone.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => {
            Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
        }
        (None, None) => None,
    }
}

/// Leads from a pod's volume to the directory that is it.
fn link(path: &Path, target: &Path) -> Result<(), PodError> {
    let io = |source| PodError::Io { what: "link", path: path.to_owned(), source };
    if fs::read_link(path).is_ok_and(|known| known == target) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(io)?;
    if path.is_symlink() {
        fs::remove_file(path).map_err(io)?;
    }
    std::os::unix::fs::symlink(target, path).map_err(io)
}

/// What upstream keeps off the disk: secrets, tokens, and what may hold them.
fn kept_in_memory(volume: &Volume) -> bool {
    volume.secret.is_some() || volume.projected.is_some() || volume.downward_api.is_some()
}

/// A tmpfs of the volume's own, unless there is one already.
fn in_memory(path: &Path) -> Result<(), PodError> {
    let io = |source| PodError::Io { what: "make", path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let parent = path.parent().unwrap_or(path);
    if device(path).map_err(io)? != device(parent).map_err(io)? {
        return Ok(());
    }
    // Files of a kubelet that kept them on disk may be bound in running containers.
    if path.join("..data").is_symlink() {
        return Ok(());
    }
    crate::sys::mount::tmpfs(path, "mode=1777").map_err(|error| PodError::Volume(error.to_string()))
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource) -> Result<(), PodError> {
    if path.is_dir() {
        return Ok(());
    }
    let io = |source| PodError::Io { what: "make emptyDir", path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o777).create(path).map_err(io)?;
    if source.medium.as_deref() == Some("Memory") {
        let size =
            source.size_limit.as_ref().and_then(|limit| crate::api::quantity::Quantity::parse(&limit.0).ok());
        let options = size.map_or("mode=0777".into(), |size| format!("mode=0777,size={}", size.value()));
        crate::sys::mount::tmpfs(path, &options).map_err(|error| PodError::Volume(error.to_string()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(io)
}

/// Checks or makes what `hostPath.type` asks for.
fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = fs::metadata(path).map(|meta| meta.file_type()).ok();
    let need = |fits: bool, what: &str| match fits {
        true => Ok(()),
        false => Err(format!("{} is not a {what}", path.display())),
    };
    let made = |outcome: std::io::Result<()>| outcome.map_err(|error| error.to_string());
    match source.type_.as_deref().unwrap_or_default() {
        "" => Ok(()),
        "DirectoryOrCreate" if kind.is_none() => {
            made(fs::DirBuilder::new().recursive(true).mode(0o755).create(path))
        }
        "DirectoryOrCreate" | "Directory" => need(kind.is_some_and(|kind| kind.is_dir()), "directory"),
        "FileOrCreate" if kind.is_none() => made(fs::write(path, "")),
        "FileOrCreate" | "File" => need(kind.is_some_and(|kind| kind.is_file()), "file"),
        "Socket" => need(kind.is_some_and(|kind| kind.is_socket()), "socket file"),
        "CharDevice" => need(kind.is_some_and(|kind| kind.is_char_device()), "character device"),
        "BlockDevice" => need(kind.is_some_and(|kind| kind.is_block_device()), "block device"),
        other => Err(format!("unknown type {other:?}")),
    }
}

/// Gives a volume to the pod's group, as far as the ids mapped here allow.
fn own(path: &Path, group: u32) -> Result<(), PodError> {
    let failed = |source: std::io::Error| match source.raw_os_error() {
        Some(libc::EINVAL) => PodError::Volume(format!(
            "fsGroup {group} is not mapped in this lab: it has one user id only (install newuidmap and add a range for \
             your user to /etc/subuid and /etc/subgid)"
        )),
        _ => PodError::Io { what: "change the group of", path: path.to_owned(), source },
    };
    chown(path, None, Some(group)).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o2070)).map_err(failed)
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Option<String> {
    let lookup = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let plain = mount.sub_path.clone().filter(|sub| !sub.is_empty());
    plain.or_else(|| {
        mount.sub_path_expr.as_deref().filter(|sub| !sub.is_empty()).map(|sub| expand(sub, lookup))
    })
}

/// A path inside a volume, made if missing. Links that lead out of the volume are refused.
fn below(base: &Path, sub: &str) -> Result<PathBuf, PodError> {
    let refused =
        || PodError::Config(format!("failed to prepare subPath {sub:?}: it leads out of its volume"));
    if !atomic::stays_inside(Path::new(sub)) {
        return Err(refused());
    }
    let path = base.join(sub);
    if !path.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(|source| PodError::Io {
            what: "create subPath",
            path: path.clone(),
            source,
        })?;
    }
    let real = |path: &Path| path.canonicalize().map_err(|_| refused());
    let (real_path, real_base) = (real(&path)?, real(base)?);
    if real_path.starts_with(&real_base) { Ok(real_path) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_cannot_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        assert!(below(dir.path(), "a/b").unwrap().ends_with("a/b"));
        assert!(below(dir.path(), "../b").is_err());
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        assert!(below(dir.path(), "out").is_err());
    }
}
