//! Finding a container's program, and saying in runc's words why it could not be started.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::protocol::{Refusal, RefusalKind};

/// What a process is made for, on which runc's words depend.
#[derive(Debug, Clone)]
pub enum Errand {
    /// A new container.
    Create,
    /// A command in a running one, under the id containerd gives it.
    Exec { id: String },
}

impl Errand {
    /// A step on the way to the program that failed.
    pub fn failed(&self, step: &str, error: impl std::fmt::Display) -> Refusal {
        self.refuse(RefusalKind::Create, step, error)
    }

    /// The program itself could not be started.
    pub fn not_started(&self, why: impl std::fmt::Display) -> Refusal {
        self.refuse(RefusalKind::Start, "", why)
    }

    fn refuse(&self, kind: RefusalKind, step: &str, error: impl std::fmt::Display) -> Refusal {
        let colon = if step.is_empty() { "" } else { ": " };
        match self {
            Errand::Create => {
                let runc = "failed to create containerd task: failed to create shim task: OCI runtime create \
                            failed: runc create failed: unable to start container process: error during \
                            container init";
                Refusal::new(kind, format!("{runc}: {step}{colon}{error}"))
            }
            Errand::Exec { id } => {
                let runc = "OCI runtime exec failed: exec failed: unable to start container process";
                let text = format!(
                    "failed to exec in container: failed to start exec {id:?}: {runc}: {step}{colon}{error}: unknown"
                );
                Refusal::new(RefusalKind::Exec, text)
            }
        }
    }
}

/// Finds the program as Go's `exec.LookPath` does, with its texts.
pub fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    let not = |why: &str| format!("exec: {name:?}: {why}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_reported_in_runcs_words() {
        let text = |name| find(name, "/bin:/usr/bin").unwrap_err();
        assert_eq!(text("nosuch"), "exec: \"nosuch\": executable file not found in $PATH");
        assert_eq!(text("/nosuch"), "exec: \"/nosuch\": stat /nosuch: no such file or directory");
        assert_eq!(text("/etc/passwd"), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(text("/etc"), "exec: \"/etc\": is a directory");
        assert!(find("sh", "/bin").is_ok());
        let exec = Errand::Exec { id: "7".into() }.not_started(text("nosuch"));
        assert_eq!(
            exec.message,
            "failed to exec in container: failed to start exec \"7\": OCI runtime exec failed: exec failed: unable \
             to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown"
        );
        let create = Errand::Create.not_started(text("nosuch"));
        assert!(create.message.ends_with("init: exec: \"nosuch\": executable file not found in $PATH"));
    }
}
