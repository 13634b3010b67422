//! What a learner has done, kept beside the lab (`NAME.course.json`): it outlives `down` and `delete`.
//!
//! Marks stay once they are earned. What the exercise that runs now was started with is here too: from when
//! on the logs count, and which objects were there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::CourseError;
use crate::lab::state::{LabDir, write_whole};

/// Everything of one learner.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Nobody else's: random values come from it.
    pub learner: String,
    pub name: String,
    /// What an instructor gave the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Begun>,
    pub exercises: BTreeMap<u8, Marks>,
}

/// How far an exercise is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Marks {
    pub started: Option<Timestamp>,
    pub exploit: Option<Timestamp>,
    pub explain: Option<Timestamp>,
    pub harden: Option<Timestamp>,
    /// The last answer to each question, and whether it was right.
    pub answers: BTreeMap<String, Answered>,
    /// How many levels of help were taken, by the entry of `hints`.
    pub hints: BTreeMap<usize, usize>,
    pub solution: bool,
    pub checks: u32,
    /// How often a check failed: what an instructor wants to know.
    pub failed: BTreeMap<String, u32>,
    /// How each check came out last.
    pub last: BTreeMap<String, bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    pub text: String,
    pub right: bool,
    pub tries: u32,
}

/// What the running exercise was started with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Begun {
    pub exercise: u8,
    /// When, in microseconds since 1970.
    pub micros: i64,
    /// How long each role's log was: `role@host`.
    pub logs: BTreeMap<String, u64>,
    /// `pods NS/NAME` and its uid.
    pub uids: BTreeMap<String, String>,
    /// Bindings to cluster-admin that were there.
    pub admins: Vec<String>,
    /// Which lab it was (its namespace kube-system's uid): another one has nothing of the exercise.
    pub lab: String,
    /// Exercises whose objects may still be there, because a start was cut off.
    pub before: Vec<u8>,
    /// This exploit was seen since, so that a mark of an earlier round does not stand in for it.
    pub exploited: Option<i64>,
}

impl Progress {
    fn path(lab: &LabDir) -> PathBuf {
        lab.state.with_file_name(format!("{}.course.json", lab.name))
    }

    /// What was kept; a fresh learner where there is nothing.
    pub fn read(lab: &LabDir) -> Result<Progress, CourseError> {
        let path = Self::path(lab);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::fresh(),
            other => {
                other.map_err(|source| CourseError::Read { path: path.display().to_string(), source })?
            }
        };
        serde_json::from_slice(&text)
            .map_err(|source| CourseError::Damaged { path: path.display().to_string(), source })
    }

    fn fresh() -> Result<Progress, CourseError> {
        let mut bytes = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| CourseError::Random)?;
        let learner = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = std::env::var("USER").unwrap_or_else(|_| "learner".into());
        Ok(Progress { learner, name, ..Progress::default() })
    }

    pub fn write(&self, lab: &LabDir) -> Result<(), CourseError> {
        let path = Self::path(lab);
        let failed = |source| CourseError::Read { path: path.display().to_string(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut text = serde_json::to_vec_pretty(self).expect("progress has only string keys");
        text.push(b'\n');
        write_whole(&path, 0o600, &text, &lab.owner.person()).map_err(failed)
    }

    /// Changes what is kept; what somebody else has written since this was read stays.
    pub fn update<T>(
        &mut self,
        lab: &LabDir,
        change: impl FnOnce(&mut Progress) -> T,
    ) -> Result<T, CourseError> {
        let path = Self::path(lab);
        let failed = |source| CourseError::Read { path: path.display().to_string(), source };
        let directory = path.parent().unwrap_or(std::path::Path::new("/"));
        std::fs::create_dir_all(directory).map_err(failed)?;
        let opened = std::fs::File::open(directory).map_err(failed)?;
        let _lock =
            Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
        if path.exists() {
            *self = Self::read(lab)?;
        }
        let changed = change(self);
        self.write(lab)?;
        Ok(changed)
    }

    pub fn marks(&mut self, exercise: u8) -> &mut Marks {
        self.exercises.entry(exercise).or_default()
    }
}

impl Marks {
    /// Takes over what a check found out.
    pub fn found(&mut self, checked: Marks) {
        self.exploit = self.exploit.or(checked.exploit);
        self.explain = self.explain.or(checked.explain);
        self.harden = self.harden.or(checked.harden);
        (self.checks, self.failed, self.last) = (checked.checks, checked.failed, checked.last);
    }

    pub fn passed(&self) -> bool {
        self.exploit.is_some() && self.explain.is_some() && self.harden.is_some()
    }

    /// Ten points a mark; help costs points and never a mark.
    pub fn points(&self) -> u32 {
        let marks = [&self.exploit, &self.explain, &self.harden].iter().filter(|mark| mark.is_some()).count();
        let hints = self.hints.values().sum::<usize>();
        let help = hints + if self.solution { 10 } else { 0 };
        u32::try_from((10 * marks).saturating_sub(help)).unwrap_or_default()
    }
}

/// Now, as logs count it.
pub fn now_micros() -> i64 {
    Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_costs_points_and_no_mark() {
        let now = Some(Timestamp::UNIX_EPOCH);
        let mut marks = Marks { exploit: now, explain: now, harden: now, ..Marks::default() };
        assert_eq!((marks.points(), marks.passed()), (30, true));
        marks.hints.insert(0, 3);
        assert_eq!(marks.points(), 27);
        marks.solution = true;
        assert_eq!((marks.points(), marks.passed()), (17, true));
    }

    #[test]
    fn what_another_has_written_meanwhile_is_not_lost() {
        let temp = tempfile::tempdir().unwrap();
        let lab = LabDir::new("one", Some(temp.path())).unwrap();
        let mut slow = Progress::read(&lab).unwrap();
        slow.update(&lab, |_| ()).unwrap();
        let answer = Answered { text: "443".into(), right: true, tries: 1 };
        let mut quick = Progress::read(&lab).unwrap();
        quick.update(&lab, |now| now.marks(0).answers.insert("port".into(), answer)).unwrap();
        let mut checked = slow.marks(0).clone();
        checked.exploit = Some(Timestamp::UNIX_EPOCH);
        slow.update(&lab, |now| now.marks(0).found(checked)).unwrap();
        let kept = Progress::read(&lab).unwrap().marks(0).clone();
        assert!(kept.answers["port"].right && kept.exploit.is_some());
    }

    #[test]
    fn what_is_kept_is_read_again_and_outlives_the_labs_own_directory() {
        let temp = tempfile::tempdir().unwrap();
        let lab = LabDir::new("one", Some(temp.path())).unwrap();
        let mut progress = Progress::read(&lab).unwrap();
        assert_eq!(progress.learner.len(), 32);
        progress.marks(3).checks = 2;
        progress.write(&lab).unwrap();
        assert_eq!(Progress::read(&lab).unwrap(), progress);
        assert!(!lab.state.exists());
    }
}
