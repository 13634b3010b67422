//! The images that were brought to a node: a directory and a record each.
//!
//! Stands for containerd's metadata store. A record is written when its directory is whole, and a directory
//! without a record is swept away as soon as no container has it mounted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::archive::{Archive, Found};
use super::{Image, ImageConfig, ImageError, Reference, STORE, hex, unpack};

const LOADED: &str = "loaded";

/// What is known of an image beside its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// In full.
    pub names: Vec<String>,
    /// The digest of its manifest, where it came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    pub size_bytes: u64,
    #[serde(default)]
    config: Value,
}

fn folder() -> PathBuf {
    Path::new(STORE).join(LOADED)
}

fn key(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    |source| ImageError::Unpack { path, source }
}

/// One at a time changes the store.
fn lock() -> Result<Flock<File>, ImageError> {
    let folder = folder();
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let path = folder.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(&path)(errno.into()))
}

/// Every image there is a record of.
pub fn records() -> Vec<Record> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    let files =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut records: Vec<Record> =
        files.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect();
    records.sort_by(|one, other| one.names.cmp(&other.names));
    records
}

/// The image of that name, if it was brought here.
pub fn find(reference: &Reference) -> Option<Image> {
    // Most nodes have none, and are asked often.
    let record = records().into_iter().find(|record| is_of(record, reference))?;
    Some(image(&record, &reference.to_string()))
}

fn is_of(record: &Record, reference: &Reference) -> bool {
    let Some(digest) = &reference.digest else { return record.names.contains(&reference.to_string()) };
    let own = record.manifest.as_ref() == Some(digest) || record.id == *digest;
    own && record
        .names
        .iter()
        .any(|name| Reference::parse(name).is_ok_and(|name| name.repository == reference.repository))
}

/// An image as containers are started from it.
pub fn image(record: &Record, name: &str) -> Image {
    let words = |field: &str| -> Vec<String> {
        let list = record.config[field].as_array().into_iter().flatten();
        list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let text = |field: &str| record.config[field].as_str().unwrap_or_default().to_owned();
    let pair = |line: &String| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Image {
        reference: name.to_owned(),
        id: record.id.clone(),
        digest: record.manifest.clone(),
        stands_for: None,
        size_bytes: record.size_bytes,
        layers: vec![folder().join(key(&record.id))],
        binds: Vec::new(),
        config: ImageConfig {
            user: text("User"),
            env: words("Env").iter().filter_map(pair).collect(),
            entrypoint: words("Entrypoint"),
            cmd: words("Cmd"),
            working_dir: text("WorkingDir"),
        },
    }
}

/// Takes an archive's images in; a name that an older image had is the new one's.
pub fn import(file: File, name: Option<&Reference>) -> Result<Vec<Record>, ImageError> {
    let _lock = lock()?;
    sweep();
    let folder = folder();
    let spool = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(&folder);
    let archive = Archive::open(file, spool)?;
    let mut brought = Vec::new();
    for found in archive.images(name)? {
        brought.push(take_in(&archive, &found)?);
    }
    Ok(brought)
}

fn take_in(archive: &Archive, found: &Found) -> Result<Record, ImageError> {
    let bytes = archive.bytes(&found.config)?;
    let id = format!("sha256:{}", hex(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref()));
    let unread = |error| ImageError::Archive { what: format!("{}: {error}", found.config) };
    let config: Value = serde_json::from_slice(&bytes).map_err(unread)?;
    let names: Vec<String> = found.names.iter().map(Reference::to_string).collect();
    let root = folder().join(key(&id));
    let known = records().into_iter().find(|record| record.id == id && root.is_dir());
    let size_bytes = match &known {
        Some(known) => known.size_bytes,
        None => unpacked(archive, found, &config, &root)?,
    };
    let mut record = Record {
        id,
        names: known.iter().flat_map(|known| known.names.clone()).collect(),
        manifest: found.manifest.clone().or_else(|| known.as_ref().and_then(|known| known.manifest.clone())),
        size_bytes,
        config: config["config"].clone(),
    };
    record
        .names
        .extend(names.iter().filter(|name| !record.names.contains(name)).cloned().collect::<Vec<_>>());
    for mut other in records().into_iter().filter(|other| other.id != record.id) {
        if other.names.iter().any(|name| names.contains(name)) {
            other.names.retain(|name| !names.contains(name));
            write(&other)?;
        }
    }
    write(&record)?;
    Ok(record)
}

/// Unpacks beside the image's place and moves it there when it is whole.
fn unpacked(archive: &Archive, found: &Found, config: &Value, root: &Path) -> Result<u64, ImageError> {
    let diff_ids = config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
    let diff_ids: Vec<String> = diff_ids.filter_map(|id| id.as_str().map(str::to_owned)).collect();
    let draft = root.with_extension("draft");
    // What an import that was cut short left.
    let _ = fs::remove_dir_all(&draft);
    fs::create_dir(&draft).map_err(failed(&draft))?;
    let size = unpack::into(&draft, archive, &found.layers, &diff_ids);
    if size.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    let size = size?;
    let _ = fs::remove_dir_all(root);
    fs::rename(&draft, root).map_err(failed(root))?;
    Ok(size)
}

/// Writes a record, or takes one without names away.
fn write(record: &Record) -> Result<(), ImageError> {
    let path = folder().join(format!("{}.json", key(&record.id)));
    if record.names.is_empty() {
        fs::remove_file(&path).map_err(failed(&path))?;
        sweep();
        return Ok(());
    }
    let text = serde_json::to_vec(record).expect("a record has only string keys");
    super::replace(&path, &text).map_err(failed(&path))
}

/// Takes a name away, and the image with its last one. False when there is none of that name.
pub fn remove(reference: &Reference) -> Result<bool, ImageError> {
    let _lock = lock()?;
    let Some(mut record) = records().into_iter().find(|record| is_of(record, reference)) else {
        return Ok(false);
    };
    let name = reference.to_string();
    match reference.digest {
        Some(_) => record.names.clear(),
        None => record.names.retain(|known| *known != name),
    }
    write(&record)?;
    Ok(true)
}

/// Removes directories that no record names and no container has mounted.
fn sweep() {
    let known: Vec<String> = records().iter().map(|record| key(&record.id).to_owned()).collect();
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !known.contains(&name) && !is_mounted(&name) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a process of this node has the directory in a mount of its.
fn is_mounted(name: &str) -> bool {
    let inside = format!("{LOADED}/{name}");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mounts = processes.filter_map(|entry| fs::read_to_string(entry.path().join("mountinfo")).ok());
    mounts.into_iter().any(|text| text.contains(&inside))
}
