//! `minilab/toolbox`: the machine's own programs, and nothing else of the machine.
//!
//! A skeleton of ours (empty `/root /home /tmp /var /run`, a small `/etc`) with the node's `/usr` and what
//! belongs to it shown read-only. So it needs no download and no space, and a pod of it can run whatever the
//! learner has installed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Image, ImageConfig, ImageError, STORE};

pub const REPOSITORY: &str = "docker.io/minilab/toolbox";
pub const TAG: &str = "latest";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/minilab/bin";

/// Raised when the skeleton changes: it is part of the image's digest.
const REVISION: u32 = 2;

/// Directories of the skeleton with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/ssl/certs", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt/minilab/bin", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/os-release", "NAME=\"minilab toolbox\"\nID=minilab-toolbox\nPRETTY_NAME=\"minilab toolbox\"\n"),
    ("etc/profile", "export PATH\n"),
    // openssl makes no request without one, whatever its command line says.
    ("etc/ssl/openssl.cnf", "[req]\ndistinguished_name = name\n[name]\n"),
    // The node's bundle is shown in its place.
    ("etc/ssl/certs/ca-certificates.crt", ""),
];

/// Directories and files of the node shown read-only where it has them.
const SHOWN: &[&str] = &[
    "/usr",
    "/opt/minilab/bin",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// Links on most machines, directories on some.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The image; prepared on the node when it is not yet.
pub fn image() -> Result<Image, ImageError> {
    let store = Path::new(STORE);
    let failed = |path: &Path, source| ImageError::Prepare {
        reference: format!("{REPOSITORY}:{TAG}"),
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(store).map_err(|error| failed(store, error))?;
    let identity = identity(store).map_err(|error| failed(store, error))?;
    let root = store.join(format!("toolbox-{}", &identity.digest[..16]));
    if !root.exists() {
        prepare(&root).map_err(|error| failed(&root, error))?;
    }
    Ok(Image {
        reference: format!("{REPOSITORY}:{TAG}"),
        id: format!("sha256:{}", identity.digest),
        stands_for: None,
        digest: Some(format!("sha256:{}", identity.digest)),
        size_bytes: identity.size,
        binds: binds(),
        layers: vec![root],
        config: ImageConfig {
            env: vec![("PATH".into(), PATH.into())],
            cmd: vec!["sh".into()],
            working_dir: "/".into(),
            ..ImageConfig::default()
        },
    })
}

/// A layer that has nothing but a link to the binary at a program's place.
pub fn with_program(program: &str, name: &str) -> Result<PathBuf, ImageError> {
    let layer = Path::new(STORE).join(format!("program-{name}"));
    if layer.exists() {
        return Ok(layer);
    }
    let failed = |source| ImageError::Prepare { reference: name.to_owned(), path: layer.clone(), source };
    let draft = layer.with_extension(std::process::id().to_string());
    fs::create_dir_all(&draft).map_err(failed)?;
    symlink(format!("/opt/minilab/bin/{name}"), draft.join(program.trim_start_matches('/')))
        .map_err(failed)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).map_err(failed)?;
    match fs::rename(&draft, &layer) {
        // Another shim was quicker.
        Err(_) if layer.exists() => fs::remove_dir_all(&draft).map_err(failed)?,
        result => result.map_err(failed)?,
    }
    Ok(layer)
}

/// The binary's digest together with the skeleton's, remembered as long as the binary is the same file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    digest: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    revision: u32,
}

fn identity(store: &Path) -> io::Result<Identity> {
    let remembered = store.join("toolbox.json");
    let binary = fs::File::open("/proc/self/exe")?;
    let meta = binary.metadata()?;
    let (inode, modified) = (meta.ino(), (meta.mtime(), meta.mtime_nsec()));
    if let Some(known) = read::<Identity>(&remembered)
        && (known.inode, known.size, known.modified, known.revision)
            == (inode, meta.size(), modified, REVISION)
    {
        return Ok(known);
    }
    let digest = digest(binary)?;
    let identity = Identity { digest, size: meta.size(), inode, modified, revision: REVISION };
    let text = serde_json::to_vec(&identity)?;
    super::replace(&remembered, &text)?;
    Ok(identity)
}

fn digest(mut binary: fs::File) -> io::Result<String> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(format!("toolbox {REVISION} {DIRECTORIES:?} {FILES:?} {SHOWN:?} {PATH}").as_bytes());
    let mut buffer = vec![0; 1 << 18];
    loop {
        match io::Read::read(&mut binary, &mut buffer)? {
            0 => break,
            length => context.update(&buffer[..length]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes the skeleton beside its place and moves it there, so that it is never seen half-made.
fn prepare(root: &Path) -> io::Result<()> {
    let draft = root.with_extension(std::process::id().to_string());
    for (name, mode) in DIRECTORIES {
        let path = draft.join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))?;
    }
    for (name, contents) in FILES {
        fs::write(draft.join(name), contents)?;
        fs::set_permissions(draft.join(name), Permissions::from_mode(0o644))?;
    }
    for name in MERGED {
        match fs::read_link(Path::new("/").join(name)) {
            Ok(target) => symlink(target, draft.join(name))?,
            Err(_) if Path::new("/").join(name).is_dir() => fs::create_dir(draft.join(name))?,
            Err(_) => {}
        }
    }
    fs::set_permissions(&draft, Permissions::from_mode(0o755))?;
    match fs::rename(&draft, root) {
        // Another shim was quicker.
        Err(_) if root.exists() => fs::remove_dir_all(&draft),
        result => result,
    }
}

fn binds() -> Vec<(PathBuf, PathBuf)> {
    let merged = MERGED
        .iter()
        .map(|name| Path::new("/").join(name))
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()));
    let shown = SHOWN.iter().map(PathBuf::from).filter(|path| path.exists());
    shown.chain(merged).map(|path| (path.clone(), path)).collect()
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
