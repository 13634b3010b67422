//! How a shim comes to be: it leaves the kubelet's process tree before it makes anything.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::sched::CloneFlags;

use super::daemon::Shim;
use super::protocol::{self, Birth, Directories};
use super::spec::SandboxSpec;
use crate::sys::container::{self, Side};

/// The role: `containerd-shim -namespace minilab -id ID`, with the sandbox's specification on standard input.
///
/// Answers one line ([`Birth`]) on standard output, from a process that is nobody's child but init's.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let id = flag(&argv, "id").ok_or_else(|| anyhow::anyhow!("-id is missing"))?;
    anyhow::ensure!(protocol::is_id(Path::new(&id)), "-id {id} is not 64 hex digits");
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let spec: SandboxSpec = serde_json::from_str(&text)?;
    if let Side::Parent(_) = container::fork(CloneFlags::empty())? {
        return Ok(ExitCode::SUCCESS);
    }
    nix::unistd::setsid()?;
    if let Side::Parent(_) = container::fork(CloneFlags::empty())? {
        container::leave(0);
    }
    nix::unistd::chdir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Everything forked from here on must not hold the kubelet's streams open.
    let kubelet = io::stdout().as_fd().try_clone_to_owned()?;
    detach_streams(&id)?;
    let (birth, shim) = match Shim::make(&id, spec) {
        Ok(shim) => (Birth::Ready(Box::new(shim.state())), Some(shim)),
        Err(error) => (Birth::Failed(format!("{error:#}")), None),
    };
    // Without a kubelet to read it the pod runs all the same, and is found on disk.
    let _ = File::from(kubelet).write_all(&protocol::line(&birth));
    match shim {
        Some(shim) => {
            shim.serve()?;
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(ExitCode::FAILURE),
    }
}

/// A flag as containerd's shim has it, with one dash.
fn flag(argv: &[String], name: &str) -> Option<String> {
    let mut words = argv.iter().map(|word| word.trim_start_matches('-'));
    while let Some(word) = words.next() {
        if word == name {
            return words.next().map(str::to_owned);
        }
        if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

/// Standard error goes to a file of its own, where one can be made, the rest nowhere.
fn detach_streams(id: &str) -> io::Result<()> {
    let run = Directories::default().sandbox(id).run;
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let log = std::fs::create_dir_all(&run)
        .and_then(|()| File::options().create(true).append(true).open(run.join("shim.log")))
        .map(OwnedFd::from);
    container::place_stdio([&null()?, &null()?, &log.or_else(|_| null())?])
}
