//! What attacks the learner ran and what came of them: a line each in the lab's directory.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::progress::now_micros;
use crate::attack::Verdict;
use crate::lab::state::LabDir;

/// No more of the journal is read.
const LONGEST: u64 = 4 << 20;

/// An attack that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub micros: i64,
    pub setting: String,
    pub verdict: Verdict,
    /// The learner chose what forged answers say.
    pub said: bool,
}

pub fn path(lab: &LabDir) -> PathBuf {
    lab.state.join("attacks.jsonl")
}

/// Notes an attack. Who cannot write it down still has its verdict on the screen.
pub fn note(lab: &LabDir, setting: &str, verdict: Verdict, said: bool) {
    let entry = Entry { micros: now_micros(), setting: setting.to_owned(), verdict, said };
    let Ok(mut line) = serde_json::to_vec(&entry) else { return };
    line.push(b'\n');
    let path = path(lab);
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let _ = file.and_then(|mut file| file.write_all(&line));
    let _ = lab.owner.adopt(&path);
}

/// What was run since.
pub fn since(lab: &LabDir, micros: i64) -> Vec<Entry> {
    use std::io::Read;
    let mut text = String::new();
    let Ok(file) = std::fs::File::open(path(lab)) else { return Vec::new() };
    let _ = file.take(LONGEST).read_to_string(&mut text);
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    entries.filter(|entry| entry.micros >= micros).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_run_since_counts() {
        let temp = tempfile::tempdir().unwrap();
        let lab = LabDir::new("one", Some(temp.path())).unwrap();
        std::fs::create_dir(&lab.state).unwrap();
        note(&lab, "kubelet-access.grants", Verdict::Defeated, false);
        let after = now_micros() + 1;
        assert_eq!(since(&lab, 0).len(), 1);
        assert!(since(&lab, after).is_empty());
    }
}
