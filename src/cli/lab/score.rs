//! `minilab lab list`, `status`, `score`: where a learner stands.

use serde_json::{Value, json};

use super::super::{Answer, Outcome, Output, table};
use crate::course::{Chapter, Marks, Progress, folders};
use crate::lab::state::LabDir;

/// Every exercise, with its marks.
fn rows(progress: &Progress) -> anyhow::Result<Vec<(Chapter, Marks)>> {
    let row = |folder| {
        let chapter = Chapter::of(folder, &progress.learner)?;
        let marks = progress.exercises.get(&chapter.number).cloned().unwrap_or_default();
        Ok((chapter, marks))
    };
    folders().iter().map(row).collect()
}

fn runs(progress: &Progress, chapter: &Chapter) -> bool {
    progress.current.as_ref().is_some_and(|begun| begun.exercise == chapter.number)
}

fn as_json(progress: &Progress, (chapter, marks): &(Chapter, Marks)) -> Value {
    json!({
        "exercise": chapter.number, "name": chapter.folder.name, "title": chapter.exercise.title,
        "path": chapter.exercise.path, "minutes": chapter.exercise.minutes, "cis": chapter.exercise.cis,
        "running": runs(progress, chapter), "passed": marks.passed(), "points": marks.points(),
        "marks": {"exploit": marks.exploit, "explain": marks.explain, "harden": marks.harden},
        "hints": marks.hints.values().sum::<usize>(), "checks": marks.checks,
    })
}

fn signs(marks: &Marks) -> String {
    let sign = |mark: &Option<jiff::Timestamp>| if mark.is_some() { '✓' } else { '·' };
    [&marks.exploit, &marks.explain, &marks.harden].into_iter().map(sign).collect()
}

pub fn list(lab: &LabDir, output: Output) -> Outcome {
    let progress = Progress::read(lab)?;
    let rows = rows(&progress)?;
    if output.json() {
        let all: Vec<Value> = rows.iter().map(|row| as_json(&progress, row)).collect();
        super::super::print_json(&all)?;
        return Ok(Answer::Done);
    }
    let lines = rows.iter().map(|row| {
        let (chapter, marks) = row;
        let now = if runs(&progress, chapter) { ">" } else { " " };
        vec![
            format!("{now}{:>2}", chapter.number),
            chapter.exercise.title.clone(),
            chapter.exercise.path.clone(),
            format!("{} min", chapter.exercise.minutes),
            signs(marks),
        ]
    });
    table::print(&["  N", "EXERCISE", "PATH", "TIME", "MARKS"], lines)?;
    if progress.current.is_none() {
        println!("\n`minilab lab start 0` begins with the tour.");
    }
    Ok(Answer::Done)
}

pub fn status(lab: &LabDir, output: Output) -> Outcome {
    let (mut progress, chapter) = super::current(lab)?;
    let marks = progress.marks(chapter.number).clone();
    if output.json() {
        super::super::print_json(&as_json(&progress, &(chapter, marks)))?;
        return Ok(Answer::Done);
    }
    println!("{}", chapter.title());
    println!("marks {} ({} points)", signs(&marks), marks.points());
    let open = marks.last.iter().filter(|(_, passed)| !**passed).map(|(name, _)| name.as_str());
    let open: Vec<&str> = open.collect();
    if !open.is_empty() {
        print!(
            "{}",
            super::page::wrapped(&format!("missing when you last checked: {}", open.join(", ")), "  ")
        );
    }
    if !lab.is_running() {
        println!("The lab is not running; `minilab up` starts it, `minilab lab reset` begins again.");
    }
    Ok(Answer::Done)
}

pub fn score(lab: &LabDir, output: Output) -> Outcome {
    let progress = Progress::read(lab)?;
    let rows = rows(&progress)?;
    let points: u32 = rows.iter().map(|(_, marks)| marks.points()).sum();
    let passed = rows.iter().filter(|(_, marks)| marks.passed()).count();
    if output.json() {
        let all: Vec<Value> = rows.iter().map(|row| as_json(&progress, row)).collect();
        let whole = json!({"name": progress.name, "points": points, "passed": passed, "exercises": all});
        super::super::print_json(&whole)?;
        return Ok(Answer::Done);
    }
    let lines = rows.iter().map(|(chapter, marks)| {
        let sign = |mark: &Option<jiff::Timestamp>| if mark.is_some() { "✓" } else { "·" }.to_owned();
        let hints = marks.hints.values().sum::<usize>();
        vec![
            chapter.title(),
            sign(&marks.exploit),
            sign(&marks.explain),
            sign(&marks.harden),
            hints.to_string(),
            marks.points().to_string(),
        ]
    });
    table::print(&["EXERCISE", "EXPLOIT", "EXPLAIN", "HARDEN", "HINTS", "POINTS"], lines)?;
    println!(
        "\n{}: {passed} of {} passed, {points} of {} points",
        progress.name,
        rows.len(),
        30 * rows.len()
    );
    Ok(Answer::Done)
}
