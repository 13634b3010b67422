//! `minilab shell HOST` and `minilab exec HOST -- CMD`: a process in a host, on this terminal.
//!
//! On a terminal the process gets one of its own, made in the host, and this command carries bytes between
//! the two; else it inherits standard input, output and error and nothing is in between.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::{Answer, Outcome, Trouble};
use crate::lab::plan::Plan;
use crate::lab::protocol::{self, Control, Reply};
use crate::lab::state::LabDir;
use crate::sys::{process, terminal};

#[derive(Args)]
pub struct Shell {
    /// control, wire, switch or node-N
    host: String,
}

#[derive(Args)]
pub struct Exec {
    /// control, wire, switch or node-N
    host: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Shell {
    pub fn run(self, lab: &LabDir) -> Outcome {
        run(lab, self.host, Vec::new())
    }
}

impl Exec {
    pub fn run(self, lab: &LabDir) -> Outcome {
        run(lab, self.host, self.command)
    }
}

fn run(lab: &LabDir, host: String, argv: Vec<String>) -> Outcome {
    if !lab.is_running() {
        return Err(Trouble::not_running(lab));
    }
    let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
    if !plan.hosts.iter().any(|known| known.name == host) {
        let hosts: Vec<&str> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
        let remedy = format!("one of {}", hosts.join(", "));
        return Err(Trouble::new(Answer::Usage, format_args!("there is no host {host}"), remedy));
    }
    let control = Control::connect(lab)?;
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let env = std::env::var("TERM").map(|term| ("TERM".to_owned(), term)).into_iter().collect();
    let exec = protocol::Exec { host, argv, env, terminal: on_terminal };
    match on_terminal {
        true => on_a_terminal(&control, exec),
        false => {
            let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
            let fds = [input.as_fd(), output.as_fd(), error.as_fd()];
            control.exec(exec, &fds)?;
            ended(&control)
        }
    }
}

/// Waits for the process's end and answers as it did.
fn ended(control: &Control) -> Outcome {
    loop {
        match control.next()? {
            (Reply::Exited { code }, _) => return Ok(Answer::Of(u8::try_from(code).unwrap_or(1))),
            (Reply::Failed { error }, _) => return Err(anyhow::anyhow!(error).into()),
            (Reply::NotStarted { error }, _) => return Err(not_started(error)),
            _ => {}
        }
    }
}

/// As a shell answers for a command it cannot start.
fn not_started(error: String) -> Trouble {
    Trouble { error: anyhow::anyhow!(error), answer: Answer::Of(127), remedy: None }
}

fn on_a_terminal(control: &Control, exec: protocol::Exec) -> Outcome {
    control.exec(exec, &[])?;
    let far = match control.next()? {
        (Reply::Started { .. }, mut fds) if !fds.is_empty() => fds.remove(0),
        (Reply::Failed { error }, _) => return Err(anyhow::anyhow!(error).into()),
        (Reply::NotStarted { error }, _) => return Err(not_started(error)),
        _ => return Err(anyhow::anyhow!("the lab gave no terminal").into()),
    };
    let windows = process::signals(&[Signal::SIGWINCH])?;
    let resize = || terminal::size(io::stdin()).and_then(|size| terminal::resize(&far, size));
    // A terminal of unknown size is one of no size; programs then assume 80 × 24.
    let _ = resize();
    let raw = terminal::Raw::enter(io::stdin())?;
    let carried = carry(&far, windows.as_fd(), || {
        while windows.read_signal().is_ok_and(|signal| signal.is_some()) {}
        let _ = resize();
    });
    drop(raw);
    carried?;
    ended(control)
}

/// Carries bytes both ways until the far side has no writer left.
fn carry(far: &OwnedFd, windows: BorrowedFd<'_>, mut resized: impl FnMut()) -> io::Result<()> {
    let (mut near, mut shown) = (io::stdin().lock(), io::stdout().lock());
    let (mut keys, mut screen) =
        (std::fs::File::from(far.try_clone()?), std::fs::File::from(far.try_clone()?));
    let mut buffer = [0; 16 * 1024];
    let mut listening = true;
    loop {
        let input = io::stdin();
        let mut waiting =
            vec![PollFd::new(far.as_fd(), PollFlags::POLLIN), PollFd::new(windows, PollFlags::POLLIN)];
        if listening {
            waiting.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let happened: Vec<bool> = waiting.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if happened[0] {
            match screen.read(&mut buffer) {
                // EIO: the last process on the far terminal has gone.
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => shown.write_all(&buffer[..count]).and_then(|()| shown.flush())?,
            }
        }
        if happened[1] {
            resized();
        }
        if happened.get(2).copied().unwrap_or(false) {
            match near.read(&mut buffer) {
                Ok(0) | Err(_) => listening = false,
                Ok(count) => keys.write_all(&buffer[..count])?,
            }
        }
    }
}
