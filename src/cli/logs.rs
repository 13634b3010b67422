//! `minilab logs ROLE[@HOST] [-f]`: what a role wrote to standard error, over all its restarts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Answer, Outcome, Trouble, roles};
use crate::lab::plan::RolePlan;
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Logs {
    /// For example kube-apiserver, or kubelet@node-1; without a host, on every host that has it
    #[arg(value_name = "ROLE[@HOST]")]
    role: String,
    /// Go on as the log grows
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

/// One role's log.
struct Log {
    title: String,
    path: PathBuf,
    open: Option<File>,
}

impl Logs {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.exists() {
            return Err(Trouble::not_running(lab));
        }
        let mut logs = self.chosen(lab)?;
        let several = logs.len() > 1;
        let mut shown = None;
        for (at, log) in logs.iter_mut().enumerate() {
            let text = log.begin(self.tail)?;
            show(&mut shown, at, several.then_some(&log.title), &text)?;
        }
        if !self.follow {
            return Ok(Answer::Done);
        }
        loop {
            std::thread::sleep(Duration::from_millis(50));
            for (at, log) in logs.iter_mut().enumerate() {
                let text = log.more()?;
                show(&mut shown, at, several.then_some(&log.title), &text)?;
            }
        }
    }

    fn chosen(&self, lab: &LabDir) -> Result<Vec<Log>, Trouble> {
        let log = |role: RolePlan| Log {
            title: format!("{}@{}", role.name, role.host),
            path: lab.log(&role.name, &role.host),
            open: None,
        };
        Ok(roles::named(lab, &self.role)?.into_iter().map(log).collect())
    }
}

/// Prints what came; where several logs are shown, under the name of the one it is from.
fn show(shown: &mut Option<usize>, at: usize, title: Option<&String>, text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let (false, Some(title)) = (text.is_empty() || *shown == Some(at), title) {
        writeln!(out, "{}==> {title} <==", if shown.is_some() { "\n" } else { "" })?;
        *shown = Some(at);
    }
    out.write_all(text)?;
    out.flush()
}

impl Log {
    /// Everything up to now, or the last lines of it.
    fn begin(&mut self, tail: Option<usize>) -> io::Result<Vec<u8>> {
        let text = self.more()?;
        let Some(tail) = tail else { return Ok(text) };
        let lines: Vec<Vec<u8>> = BufReader::new(text.as_slice()).split(b'\n').collect::<io::Result<_>>()?;
        let last = lines.iter().skip(lines.len().saturating_sub(tail));
        Ok(last.flat_map(|line| line.iter().copied().chain([b'\n'])).collect())
    }

    /// What is new; a log that was begun afresh is read from its start.
    fn more(&mut self) -> io::Result<Vec<u8>> {
        let now = std::fs::metadata(&self.path).ok();
        if let (Some(file), Some(now)) = (&mut self.open, &now) {
            let (at, there) = (file.stream_position()?, file.metadata()?);
            if there.ino() != now.ino() {
                self.open = None;
            } else if now.len() < at {
                file.seek(SeekFrom::Start(0))?;
            }
        }
        if self.open.is_none() && now.is_some() {
            self.open = Some(File::open(&self.path)?);
        }
        let mut text = Vec::new();
        if let Some(file) = &mut self.open {
            file.read_to_end(&mut text)?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: PathBuf) -> Log {
        Log { title: String::new(), path, open: None }
    }

    #[test]
    fn a_log_is_followed_through_truncation_and_replacement() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let mut log = log(path.clone());
        assert_eq!(log.more().unwrap(), b"");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(log.more().unwrap(), b"one\n");
        std::fs::write(&path, "2\n").unwrap();
        assert_eq!(log.more().unwrap(), b"2\n");
        std::fs::write(temp.path().join("next"), "three\n").unwrap();
        std::fs::rename(temp.path().join("next"), &path).unwrap();
        assert_eq!(log.more().unwrap(), b"three\n");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        std::fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(log(path.clone()).begin(Some(2)).unwrap(), b"2\n3\n");
        assert_eq!(log(path).begin(Some(9)).unwrap(), b"1\n2\n3\n");
    }
}
