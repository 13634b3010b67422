//! What `up` hears while the lab starts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::events::Supervisor;
use super::role::State;
use super::start::Role;
use crate::lab::protocol::{self, Report};

/// A lab whose role ends this often before it ever served will not come up.
const HOPELESS: u32 = 8;

impl Supervisor {
    fn report(&mut self, report: &Report) {
        if let Some(launch) = &self.launch
            && protocol::send(launch, report).is_err()
        {
            self.launch = None;
        }
    }

    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    pub(super) fn report_ready(&mut self, at: usize) {
        let Role { plan, launched, .. } = &self.roles[at];
        let micros = launched.elapsed().as_micros() as u64;
        let (role, host) = (plan.name.clone(), plan.host.clone());
        self.report(&Report::Ready { role, host, finished: plan.one_shot, micros });
    }

    pub(super) fn report_ended(&mut self, at: usize, how: &str) {
        let role = &self.roles[at];
        if role.life.ever_ready || self.launch.is_none() {
            return;
        }
        let (name, host) = (role.plan.name.clone(), role.plan.host.clone());
        let (log, false_starts) = (self.lab.log(&name, &host), role.life.false_starts);
        let how = match last_line(&log) {
            Some(line) => format!("{how}: {line}"),
            None => how.to_owned(),
        };
        if false_starts >= HOPELESS {
            let error = format!("{name} in {host} does not start: {how}");
            let remedy = Some(format!("see {}", log.display()));
            self.report(&Report::Failed { error, remedy });
        } else {
            self.report(&Report::Ended { role: name, host, how, log });
        }
    }

    pub(super) fn report_up(&mut self) {
        if self.launch.is_some()
            && self.roles.iter().all(|role| role.life.is_ready() || role.life.state == State::Stopped)
        {
            self.report(&Report::Up { micros: self.micros() });
            self.launch = None;
        }
    }
}

/// The last line of a log, for an error's text.
pub(super) fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2048))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
