//! Finding a container's program, and saying in runc's words why it could not be started.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::protocol::{Refusal, RefusalKind};

const RUNC: &str = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                    container process: error during container init";

/// Finds the program as Go's `exec.LookPath` does, with its texts.
pub fn find(name: &str, path: &str) -> Result<PathBuf, Refusal> {
    let not = |why: &str| start(format!("exec: {name:?}: {why}"));
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(not(&format!("stat {name}: no such file or directory")))
            }
            Err(error) => Err(not(&io_text(&error))),
        };
    }
    let mut found = path.split(':').map(|directory| match directory {
        "" => Path::new(".").join(name),
        directory => Path::new(directory).join(name),
    });
    found
        .find(|candidate| executable(candidate).is_ok())
        .ok_or_else(|| not("executable file not found in $PATH"))
}

fn executable(path: &Path) -> io::Result<()> {
    let meta = path.metadata()?;
    if meta.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)?)
}

/// An error as Go spells it: lower case, without the number.
pub fn io_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// A step of the container's start that failed.
pub fn create(step: &str, error: impl std::fmt::Display) -> Refusal {
    match step {
        "" => Refusal::create(RUNC, error),
        step => Refusal::create(format!("{RUNC}: {step}"), error),
    }
}

fn start(text: String) -> Refusal {
    Refusal::new(RefusalKind::Start, format!("failed to create containerd task: {RUNC}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_reported_in_runcs_words() {
        let text = |name| find(name, "/bin:/usr/bin").unwrap_err().message;
        assert!(
            text("nosuch").ends_with(
                "error during container init: exec: \"nosuch\": executable file not found in $PATH"
            )
        );
        assert!(text("/nosuch").ends_with("exec: \"/nosuch\": stat /nosuch: no such file or directory"));
        assert!(text("/etc/passwd").ends_with("exec: \"/etc/passwd\": permission denied"));
        assert!(text("/etc").ends_with("exec: \"/etc\": is a directory"));
        assert!(find("sh", "/bin").is_ok());
    }
}
