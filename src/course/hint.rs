//! Help in three levels, about what is missing now: the first entry whose checks hold and fail as it says.

use super::book::Chapter;
use super::progress::Marks;
use super::schema::When;

/// A piece of help.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    /// 1 to 3.
    pub level: usize,
    pub text: String,
    /// Nothing more will come for this state.
    pub last: bool,
}

/// Where help about what every exercise asks for is counted.
const OF_ALL: usize = 1000;
/// For who has repaired something and broken something else.
const BROKEN: [&str; 3] = [
    "What the exercise asks for holds, and something that worked before does not any more. Which line of the check \
     says so?",
    "Logs, exec and port-forward go from the API server to the kubelet of every node. Try them on each node, and \
     read the error.",
    "One end of a connection may have changed without the other. Do the same for the other end, or take your last \
     step back.",
];

/// The next level for the state the checks were last seen in; the last one is given again.
pub fn hint(chapter: &Chapter, marks: &mut Marks) -> Option<Given> {
    let failing = |name: &str| marks.last.get(name) == Some(&false);
    let checks = &chapter.exercise;
    let asked = checks.exploit.iter().chain(&checks.harden).any(|check| failing(&check.name));
    if !asked && ["works", "unharmed", "roles"].into_iter().any(failing) {
        let taken = marks.hints.entry(OF_ALL).or_default();
        *taken = (*taken + 1).min(BROKEN.len());
        let level = *taken;
        return Some(Given { level, text: BROKEN[level - 1].to_owned(), last: level == BROKEN.len() });
    }
    let entries = &chapter.exercise.hints;
    let (at, entry) = entries.iter().enumerate().find(|(_, entry)| fits(&entry.when, marks))?;
    let taken = marks.hints.entry(at).or_default();
    *taken = (*taken + 1).min(entry.levels.len());
    let level = *taken;
    Some(Given { level, text: entry.levels[level - 1].clone(), last: level == entry.levels.len() })
}

fn fits(when: &When, marks: &Marks) -> bool {
    let held = |name: &String| marks.last.get(name).copied().unwrap_or(false);
    when.holds.iter().all(held) && !when.fails.iter().any(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_follows_the_state_and_goes_three_steps() {
        let chapter = Chapter::of(&super::super::folders()[0], "somebody").unwrap();
        let mut marks = Marks::default();
        let levels: Vec<usize> = (0..4).map(|_| hint(&chapter, &mut marks).unwrap().level).collect();
        assert_eq!(levels, [1, 2, 3, 3]);
        let before = hint(&chapter, &mut marks).unwrap().text;
        let names = chapter.exercise.exploit.iter().map(|check| check.name.clone());
        marks.last.extend(names.map(|name| (name, true)));
        assert_ne!(hint(&chapter, &mut marks).unwrap().text, before);
    }

    #[test]
    fn who_has_broken_something_is_not_told_of_questions() {
        let chapter = Chapter::of(&super::super::folders()[0], "somebody").unwrap();
        let mut marks = Marks::default();
        let checks = &chapter.exercise;
        let names = checks.exploit.iter().chain(&checks.harden).map(|check| check.name.clone());
        marks.last.extend(names.map(|name| (name, true)));
        marks.last.insert("works".into(), false);
        assert_eq!(hint(&chapter, &mut marks).unwrap().text, BROKEN[0]);
    }
}
