//! Whoever stays when an attack is killed: a process of its own that waits for the attack's end and, where the
//! attack could not, takes away what it had made.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::Scene;
use crate::attack::AttackError;
use crate::lab::state::LabDir;

/// The word of the command line that makes a process one.
pub const WORD: &str = "attack-guard";
/// What an attack says that has taken everything away itself.
const STRUCK: u8 = b'.';

/// A guard that waits.
pub(super) struct Guard(Child);

impl Guard {
    pub(super) fn post(lab: &LabDir) -> Result<Guard, AttackError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(format!("--lab={}", lab.name));
        if let Some(labs) = lab.state.parent() {
            command.arg("--state-dir").arg(labs);
        }
        // Ctrl-C is for the attack alone.
        command.arg(WORD).process_group(0);
        let quiet = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Guard(quiet.spawn()?))
    }

    /// Everything is taken away: nothing is left to do.
    pub(super) fn dismiss(mut self) {
        if let Some(mut ear) = self.0.stdin.take() {
            let _ = ear.write_all(&[STRUCK]);
        }
        let _ = self.0.wait();
    }
}

/// Waits for the end of the attack on the other end of standard input, and clears up after it.
///
/// # Errors
/// Where the lab cannot be reached; the next attack clears up then.
pub fn stand(lab: &LabDir) -> Result<(), AttackError> {
    let mut said = [0];
    if matches!(std::io::stdin().read(&mut said), Ok(1)) && said[0] == STRUCK || !lab.is_running() {
        return Ok(());
    }
    // Another attack may have begun and swept already; then there is no note.
    let _lock = lab.lock()?;
    let scene = Scene::of(lab)?;
    if scene.note().exists() {
        scene.clear();
        scene.sweep()?;
        scene.strike();
    }
    Ok(())
}
