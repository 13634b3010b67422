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

/// The next level for the state the checks were last seen in; the last one is given again.
pub fn hint(chapter: &Chapter, marks: &mut Marks) -> Option<Given> {
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
}
