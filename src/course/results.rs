//! Results of a room: exported progress, signed with a key that comes from the class's seed.
//!
//! The signature tells an instructor that a file was written by minilab with the class's seed and not edited
//! since. Who has the seed and reads this file can forge one: it keeps honest people honest, as flags of a
//! capture-the-flag do.

use std::collections::BTreeMap;

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::book::folders;
use super::progress::{Marks, Progress};

/// What `lab export` writes and `lab import` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    pub kind: String,
    pub learner: String,
    pub name: String,
    pub points: u32,
    pub exercises: BTreeMap<u8, Marks>,
    /// Hexadecimal; empty without a class.
    #[serde(default)]
    pub signature: String,
}

/// A learner as `lab grade` sees them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    pub file: String,
    pub name: String,
    /// `true`, or why not.
    pub genuine: bool,
    pub passed: usize,
    pub points: u32,
    /// The first exercise that is not passed.
    pub next: Option<u8>,
}

const KIND: &str = "minilab.dev/v1alpha1 CourseResults";

impl Results {
    pub fn of(progress: &Progress) -> Results {
        let mut results = Results {
            kind: KIND.into(),
            learner: progress.learner.clone(),
            name: progress.name.clone(),
            points: progress.exercises.values().map(Marks::points).sum(),
            exercises: progress.exercises.clone(),
            signature: String::new(),
        };
        if let Some(class) = &progress.class {
            results.signature = results.sign(class);
        }
        results
    }

    fn sign(&self, class: &str) -> String {
        let unsigned = Results { signature: String::new(), ..self.clone() };
        // Maps are sorted and fields in their order, so the same results are the same bytes.
        let bytes = serde_json::to_vec(&unsigned).expect("results have only string keys");
        let key = hmac::Key::new(hmac::HMAC_SHA256, format!("minilab results/{class}").as_bytes());
        hmac::sign(&key, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn is_signed_for(&self, class: &str) -> bool {
        !self.signature.is_empty() && self.signature == self.sign(class)
    }

    /// Takes them over: whatever is farther, mark by mark, stays.
    pub fn into(self, progress: &mut Progress) {
        // Values are the learner's own: with another's the answers would not fit.
        progress.learner = self.learner;
        progress.name = self.name;
        for (number, theirs) in self.exercises {
            let ours = progress.marks(number);
            ours.exploit = ours.exploit.or(theirs.exploit);
            ours.explain = ours.explain.or(theirs.explain);
            ours.harden = ours.harden.or(theirs.harden);
            ours.started = ours.started.or(theirs.started);
            ours.solution |= theirs.solution;
            for (name, answer) in theirs.answers {
                ours.answers.entry(name).or_insert(answer);
            }
            for (at, taken) in theirs.hints {
                let mine = ours.hints.entry(at).or_default();
                *mine = taken.max(*mine);
            }
        }
    }
}

/// Who stands where, and how many stumble over which check (`2 token-refused`), the hardest first.
pub fn grade(files: &[(String, Results)], class: &str) -> (Vec<Standing>, Vec<(String, usize)>) {
    let standing = |(file, results): &(String, Results)| Standing {
        file: file.clone(),
        name: results.name.clone(),
        genuine: results.is_signed_for(class),
        passed: results.exercises.values().filter(|marks| marks.passed()).count(),
        points: results.points,
        next: folders()
            .iter()
            .map(super::book::Folder::number)
            .find(|number| !results.exercises.get(number).is_some_and(Marks::passed)),
    };
    let mut all: Vec<Standing> = files.iter().map(standing).collect();
    all.sort_by_key(|one| (std::cmp::Reverse((one.genuine, one.passed, one.points)), one.name.clone()));
    let mut stumbled: BTreeMap<String, usize> = BTreeMap::new();
    for (_, results) in files {
        for (number, marks) in &results.exercises {
            let failing = marks.failed.keys().filter(|name| marks.last.get(*name) == Some(&false));
            failing.for_each(|name| *stumbled.entry(format!("{number} {name}")).or_default() += 1);
        }
    }
    let mut stumbled: Vec<(String, usize)> = stumbled.into_iter().collect();
    stumbled.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), name.clone()));
    (all, stumbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let mut progress =
            Progress { learner: "ada".into(), class: Some("spring".into()), ..Progress::default() };
        let marks = progress.marks(0);
        marks.exploit = Some(jiff::Timestamp::UNIX_EPOCH);
        marks.failed.insert("verified".into(), 2);
        marks.last.insert("verified".into(), false);
        progress
    }

    #[test]
    fn an_edited_result_is_not_genuine() {
        let mut results = Results::of(&progress());
        assert!(results.is_signed_for("spring") && !results.is_signed_for("autumn"));
        let text = serde_json::to_string(&results).unwrap();
        let again: Results = serde_json::from_str(&text).unwrap();
        assert!(again.is_signed_for("spring"));
        results.points += 1;
        assert!(!results.is_signed_for("spring"));
        assert!(!Results::of(&Progress::default()).is_signed_for(""));
    }

    #[test]
    fn a_room_is_ranked_and_its_stumbling_block_named() {
        let files = vec![("a.json".to_owned(), Results::of(&progress()))];
        let (standings, stumbled) = grade(&files, "spring");
        assert_eq!((standings[0].genuine, standings[0].points, standings[0].next), (true, 10, Some(0)));
        assert_eq!(stumbled, [("0 verified".to_owned(), 1)]);
    }

    #[test]
    fn what_is_taken_over_never_takes_a_mark_away() {
        let mut mine = progress();
        let empty = Results { exercises: BTreeMap::new(), ..Results::of(&mine) };
        empty.into(&mut mine);
        assert!(mine.marks(0).exploit.is_some());
    }
}
