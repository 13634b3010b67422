//! Images: what a container's root is made of and how its first process is found.
//!
//! Stands for containerd's image store. One image is built in, `minilab/toolbox`; others are brought by
//! `minilab image`, from an archive or from a registry that a process outside the lab asks (`registry`). A
//! node asks none: it has no way out, so what was brought is found whatever the pull policy says.

mod archive;
mod reference;
pub mod registry;
mod store;
mod toolbox;
mod unpack;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use reference::Reference;
pub use store::{Record, import, records, remove};

/// Where images and their layers are kept on a node.
const STORE: &str = "/var/lib/containerd/minilab/images";

/// An image ready to be started from.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// In full, as `kubectl describe` shows it: `docker.io/minilab/toolbox:latest`.
    pub reference: String,
    /// `sha256:…`: over everything that decides what a container of it sees.
    pub id: String,
    /// The real component whose place this binary takes under the image's name.
    pub stands_for: Option<&'static str>,
    /// The digest it is pulled by; an image of `docker save` has none.
    pub digest: Option<String>,
    pub size_bytes: u64,
    /// Directories laid over each other, the uppermost first.
    pub layers: Vec<PathBuf>,
    /// What is shown read-only inside: path on the node, path in the container.
    pub binds: Vec<(PathBuf, PathBuf)>,
    pub config: ImageConfig,
}

/// What the image says about its process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageConfig {
    /// A name or number, with a group after a colon; empty is root.
    pub user: String,
    pub env: Vec<(String, String)>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
}

impl Image {
    /// The image with its digest, as a pod's `imageID`: `docker.io/minilab/toolbox@sha256:…`, or its bare id
    /// where it has none.
    pub fn digest_reference(&self) -> String {
        let Some(digest) = &self.digest else { return self.id.clone() };
        match Reference::parse(&self.reference) {
            Ok(reference) => format!("{}@{digest}", reference.repository),
            Err(_) => self.id.clone(),
        }
    }
}

/// Why there is no such image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// kubelet's `InvalidImageName`.
    #[error(
        "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": invalid reference format{why}"
    )]
    InvalidName { name: String, why: &'static str },
    /// kubelet's `ErrImagePull`.
    #[error(
        "failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\": \
         {reference}: not found (a node of a lab has no way out to a registry: `minilab image pull` or `image load` \
         brings it)"
    )]
    NotFound { reference: String },
    #[error("the archive cannot be used: {what}")]
    Archive { what: String },
    #[error("cannot read the archive")]
    Read { source: io::Error },
    #[error("cannot write {path}")]
    Unpack { path: PathBuf, source: io::Error },
    #[error("failed to prepare image \"{reference}\" at {path}")]
    Prepare { reference: String, path: PathBuf, source: std::io::Error },
}

/// Finds an image by the name a pod gives it, with or without registry and tag.
///
/// The first call on a node writes the built-in image's files and reads the binary once for its digest.
pub fn resolve(name: &str) -> Result<Image, ImageError> {
    let reference = Reference::parse(name)?;
    if reference.repository == toolbox::REPOSITORY && reference.selects(toolbox::TAG) {
        let image = toolbox::image()?;
        match &reference.digest {
            Some(digest) if *digest != image.id => {}
            _ => return Ok(image),
        }
    }
    if let Some(image) = store::find(&reference) {
        return Ok(image);
    }
    if let Some(image) = component(&reference)? {
        return Ok(image);
    }
    Err(ImageError::NotFound { reference: reference.to_string() })
}

/// Images of real components whose program this binary is, from whichever registry: the end of the repository,
/// the program's place in the image, and the name the binary has for it.
const COMPONENTS: &[(&str, &str, &str)] = &[
    ("/kas-network-proxy/proxy-agent", "/proxy-agent", "proxy-agent"),
    ("/kas-network-proxy/proxy-server", "/proxy-server", "proxy-server"),
];

/// The built-in image under a real component's name, of whatever tag: its program is this binary.
fn component(reference: &Reference) -> Result<Option<Image>, ImageError> {
    let found = COMPONENTS.iter().find(|(repository, ..)| reference.repository.ends_with(repository));
    let Some((_, program, name)) = found.filter(|_| reference.digest.is_none()) else {
        return Ok(None);
    };
    let mut image = toolbox::image()?;
    let tag = reference.tag.as_deref().unwrap_or(toolbox::TAG);
    image.reference = format!("{}:{tag}", reference.repository);
    image.stands_for = Some(*name);
    image.layers.insert(0, toolbox::with_program(program, name)?);
    image.config.cmd = Vec::new();
    image.config.entrypoint = vec![(*program).to_owned()];
    Ok(Some(image))
}

/// The images of this node with their names, for its status.
pub fn list() -> Vec<(Image, Vec<String>)> {
    let named = |image: Image| {
        let names = vec![image.reference.clone()];
        (image, names)
    };
    let brought = records().into_iter().map(|record| {
        let first = record.names.first().cloned().unwrap_or_default();
        (store::image(&record, &first), record.names)
    });
    toolbox::image().into_iter().map(named).chain(brought).collect()
}

/// Go's name for this machine's architecture.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file beside its place and moves it there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    fs::write(&draft, bytes)?;
    fs::rename(draft, path)
}
