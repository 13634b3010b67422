//! Lines of text compared: what changed, as `diff -u` shows it, and three texts made one as `diff3` does.
//!
//! Left out on purpose: anything faster than the table of common lines; files of a lab have some hundred.

use std::ops::Range;

/// Lines beyond this many are not compared one by one.
const MOST: usize = 2_000;
/// How much is shown around a change.
const CONTEXT: usize = 2;

/// Lines `before` of the old text are replaced by lines `after` of the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    before: Range<usize>,
    after: Range<usize>,
}

/// What two sets of changes to one text gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    pub text: String,
    /// Lines of theirs that had to give way to ours.
    pub overwritten: Vec<String>,
}

/// The changes that lead from one list of lines to the other, in order.
fn edits(old: &[&str], new: &[&str]) -> Vec<Edit> {
    if old.len() > MOST || new.len() > MOST {
        return match old == new {
            true => Vec::new(),
            false => vec![Edit { before: 0..old.len(), after: 0..new.len() }],
        };
    }
    let width = new.len() + 1;
    // How many lines the rests of both have in common.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for a in (0..old.len()).rev() {
        for b in (0..new.len()).rev() {
            common[a * width + b] = match old[a] == new[b] {
                true => common[(a + 1) * width + b + 1] + 1,
                false => common[(a + 1) * width + b].max(common[a * width + b + 1]),
            };
        }
    }
    let (mut found, mut a, mut b) = (Vec::new(), 0, 0);
    while a < old.len() || b < new.len() {
        let (from_a, from_b) = (a, b);
        while a < old.len() || b < new.len() {
            if a < old.len() && b < new.len() && old[a] == new[b] {
                break;
            }
            let skip_old =
                a < old.len() && (b == new.len() || common[(a + 1) * width + b] >= common[a * width + b + 1]);
            if skip_old { a += 1 } else { b += 1 }
        }
        if (from_a, from_b) != (a, b) {
            found.push(Edit { before: from_a..a, after: from_b..b });
        }
        while a < old.len() && b < new.len() && old[a] == new[b] {
            (a, b) = (a + 1, b + 1);
        }
    }
    found
}

/// `diff -u` without its two header lines; empty when nothing changed.
pub fn unified(old: &str, new: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let edits = edits(&before, &after);
    let mut text = String::new();
    let mut at = 0;
    while at < edits.len() {
        let first = at;
        while at + 1 < edits.len() && edits[at + 1].before.start - edits[at].before.end <= 2 * CONTEXT {
            at += 1;
        }
        hunk(&mut text, &before, &after, &edits[first..=at]);
        at += 1;
    }
    text
}

fn hunk(text: &mut String, before: &[&str], after: &[&str], edits: &[Edit]) {
    let (Some(first), Some(last)) = (edits.first(), edits.last()) else { return };
    let lead = first.before.start.min(CONTEXT);
    let trail = (before.len() - last.before.end).min(CONTEXT);
    let old = first.before.start - lead..last.before.end + trail;
    let new = first.after.start - lead..last.after.end + trail;
    let span = |range: &Range<usize>| match range.len() {
        0 => format!("{},0", range.start),
        length => format!("{},{length}", range.start + 1),
    };
    *text += &format!("@@ -{} +{} @@\n", span(&old), span(&new));
    let mut line = |mark: char, line: &str| *text += &format!("{mark}{line}\n");
    let mut here = old.start;
    for edit in edits {
        before[here..edit.before.start].iter().for_each(|same| line(' ', same));
        before[edit.before.clone()].iter().for_each(|gone| line('-', gone));
        after[edit.after.clone()].iter().for_each(|fresh| line('+', fresh));
        here = edit.before.end;
    }
    before[here..old.end].iter().for_each(|same| line(' ', same));
}

/// Lines only the old text has, and lines only the new one has.
pub fn only_in(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let (before, after): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let (mut gone, mut fresh) = (Vec::new(), Vec::new());
    for edit in edits(&before, &after) {
        gone.extend(before[edit.before].iter().map(|line| (*line).to_owned()));
        fresh.extend(after[edit.after].iter().map(|line| (*line).to_owned()));
    }
    (gone, fresh)
}

/// Makes our changes to `base` in a text where somebody made theirs. Where both changed the same lines ours
/// win, and theirs are named.
pub fn merge(base: &str, theirs: &str, ours: &str) -> Merged {
    let lines = |text: &'_ str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (base, theirs, ours) = (lines(base), lines(theirs), lines(ours));
    fn borrowed(lines: &[String]) -> Vec<&str> {
        lines.iter().map(String::as_str).collect()
    }
    let mut of_theirs = edits(&borrowed(&base), &borrowed(&theirs)).into_iter().peekable();
    let of_ours = edits(&borrowed(&base), &borrowed(&ours));
    // What both added under one name, each at a place of its own, would be there twice.
    let fresh: Vec<&String> = of_ours.iter().flat_map(|edit| &ours[edit.after.clone()]).collect();
    let (mut merged, mut overwritten, mut at) = (Vec::new(), Vec::new(), 0);
    let keep = |lines: &[String], merged: &mut Vec<String>, overwritten: &mut Vec<String>| {
        for line in lines {
            match fresh.iter().find(|fresh| name(fresh).is_some_and(|one| name(line) == Some(one))) {
                None => merged.push(line.clone()),
                Some(same) if *same == line => {}
                Some(_) => overwritten.push(line.clone()),
            }
        }
    };
    for edit in of_ours {
        while let Some(other) = of_theirs.next_if(|other| {
            other.before.end < edit.before.start.max(1)
                || (other.before.end <= edit.before.start && !touches(other, &edit))
        }) {
            merged.extend_from_slice(&base[at..other.before.start]);
            keep(&theirs[other.after], &mut merged, &mut overwritten);
            at = other.before.end;
        }
        merged.extend_from_slice(&base[at.min(edit.before.start)..edit.before.start]);
        merged.extend_from_slice(&ours[edit.after.clone()]);
        at = edit.before.end;
        while let Some(other) = of_theirs.next_if(|other| touches(other, &edit)) {
            let lost = theirs[other.after].iter().filter(|line| !ours[edit.after.clone()].contains(line));
            overwritten.extend(lost.cloned());
            at = at.max(other.before.end);
        }
    }
    for other in of_theirs {
        merged.extend_from_slice(&base[at.min(other.before.start)..other.before.start]);
        keep(&theirs[other.after], &mut merged, &mut overwritten);
        at = other.before.end;
    }
    merged.extend_from_slice(&base[at..]);
    let mut text = merged.join("\n");
    text.push('\n');
    Merged { text, overwritten }
}

/// Takes away flags that the plan speaks of and that stand in a merged text more often than the plan says:
/// somebody wrote them elsewhere than the plan does.
pub fn each_flag_once(old: &str, new: &str, merged: &str) -> String {
    let count = |text: &[&str], line: &str| text.iter().filter(|there| **there == line).count();
    let wanted: Vec<&str> = new.lines().collect();
    let mut lines: Vec<&str> = merged.lines().collect();
    let (gone, fresh) = only_in(old, new);
    for flag in gone.iter().chain(&fresh).filter(|line| line.trim_start().starts_with("- --")) {
        while count(&lines, flag) > count(&wanted, flag) {
            let Some(last) = lines.iter().rposition(|line| line == flag) else { break };
            lines.remove(last);
        }
    }
    lines.join("\n") + "\n"
}

/// What a line is about where it can stand only once: a flag, or a key of the outermost map.
fn name(line: &str) -> Option<&str> {
    if let Some(flag) = line.trim_start().strip_prefix("- --") {
        return Some(flag.split('=').next().unwrap_or(flag));
    }
    let (key, _) = line.split_once(':')?;
    let is_key = !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric());
    is_key.then_some(key)
}

/// Whether two edits are about the same lines (or add at the same place).
fn touches(one: &Edit, other: &Edit) -> bool {
    let overlap = one.before.start < other.before.end && other.before.start < one.before.end;
    overlap || (one.before.start == other.before.start && (one.before.is_empty() == other.before.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_the_lines_around_it() {
        let old = "a\nb\nc\nd\ne\nf\n";
        assert_eq!(unified(old, "a\nb\nc\nD\ne\nf\n"), "@@ -2,5 +2,5 @@\n b\n c\n-d\n+D\n e\n f\n");
        assert_eq!(unified("", "x\n"), "@@ -0,0 +1,1 @@\n+x\n");
        assert_eq!(unified(old, old), "");
    }

    #[test]
    fn two_far_changes_make_two_hunks() {
        let old: String = (0..20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("2\n3\n", "2\nx\n3\n").replace("17\n", "");
        assert_eq!(unified(&old, &new).matches("@@ -").count(), 2);
    }

    #[test]
    fn an_edit_elsewhere_survives_and_one_of_the_same_line_is_named() {
        let base = "flags:\n- --a=1\n- --b=1\nend\n";
        let ours = "flags:\n- --a=2\n- --b=1\nend\n";
        let merged = merge(base, "# mine\nflags:\n- --a=1\n- --b=1\n- --v=4\nend\n", ours);
        assert_eq!(merged.text, "# mine\nflags:\n- --a=2\n- --b=1\n- --v=4\nend\n");
        assert!(merged.overwritten.is_empty());
        let merged = merge(base, "flags:\n- --a=9\n- --b=1\nend\n", ours);
        assert_eq!((merged.text.as_str(), merged.overwritten), (ours, vec!["- --a=9".to_owned()]));
    }

    #[test]
    fn an_edit_that_did_the_same_is_no_loss() {
        let (base, ours) = ("a\nb\nc\n", "a\nB\nc\n");
        assert_eq!(merge(base, ours, ours), Merged { text: ours.into(), overwritten: Vec::new() });
        assert_eq!(merge(base, "a\nc\n", "a\nb\nnew\nc\n").text, "a\nnew\nc\n");
    }

    #[test]
    fn a_flag_that_hands_wrote_elsewhere_goes_with_the_plans_and_comes_once() {
        let (open, shut) = ("c:\n- --a\n- --z\n", "c:\n- --a\n- --ca=x\n- --z\n");
        let by_hand = "c:\n- --ca=x\n- --mine\n- --a\n- --z\n";
        let merged = |old, new| each_flag_once(old, new, &merge(old, by_hand, new).text);
        assert_eq!(merged(shut, open), "c:\n- --mine\n- --a\n- --z\n");
        assert_eq!(merged(open, shut).matches("--ca=x").count(), 1);
    }

    #[test]
    fn what_both_added_at_different_places_is_there_once() {
        let (base, ours) = ("a: 1\nz: 1\n", "a: 1\nserving: true\nz: 1\n");
        let merged = merge(base, "a: 1\nz: 1\nserving: true\n", ours);
        assert_eq!(merged, Merged { text: ours.into(), overwritten: Vec::new() });
        let merged = merge(base, "serving: false\na: 1\nz: 1\n", ours);
        assert_eq!(merged.text, ours);
        assert_eq!(merged.overwritten, ["serving: false"]);
        let flags = merge("- run\n- --z\n", "- run\n- --z\n- --ca=x\n", "- run\n- --ca=x\n- --z\n");
        assert_eq!(flags.text, "- run\n- --ca=x\n- --z\n");
        let nested = merge("a:\n  on: 1\nz:\n", "a:\n  on: 1\nz:\n  on: 2\n", "a:\n  on: 1\n  off: 1\nz:\n");
        assert_eq!(nested.text, "a:\n  on: 1\n  off: 1\nz:\n  on: 2\n");
    }

    #[test]
    fn what_a_mode_adds_and_takes_away_is_told_apart() {
        let (gone, fresh) = only_in("a\nb\n", "b\nc\n");
        assert_eq!((gone, fresh), (vec!["a".to_owned()], vec!["c".to_owned()]));
    }
}
