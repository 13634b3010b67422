//! Unix sockets: the way between parts of one host that share a directory and nothing else.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use super::NetError;

/// Listens at a path for its owner and group (umask 0007, as Konnectivity's server has it). What a
/// predecessor left there goes first when `replace` says so; the directory is made, as a hostPath volume's is.
pub fn bind_unix(path: &Path, replace: bool) -> Result<UnixListener, NetError> {
    let failed = |source| NetError::Bind { address: path.display().to_string(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    if replace {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(0o770);
    std::fs::set_permissions(path, mode).map_err(failed)?;
    Ok(listener)
}

/// Connects to whoever listens at a path.
pub async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
