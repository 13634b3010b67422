//! What the course shows: pages, reports, questions, each in eighty columns and without colour.

use std::fmt::Write;

use super::super::{Answer, Outcome};
use super::{Mark, choices, current, find};
use crate::course::{Chapter, Line, Progress, Report};
use crate::lab::state::LabDir;

const WIDTH: usize = 80;

/// The whole page of an exercise.
pub fn show(lab: &LabDir, word: Option<&str>) -> Outcome {
    let chapter = match word {
        None => current(lab)?.1,
        Some(word) => Chapter::of(find(word)?, &Progress::read(lab)?.learner)?,
    };
    print!("{}", chapter.readme());
    Ok(Answer::Done)
}

/// Title, goal and stand: enough to begin with.
pub fn head(chapter: &Chapter) -> String {
    let mut out = format!("{}\n\n", chapter.title());
    let page = chapter.readme();
    for wanted in ["## Goal", "## Where you stand"] {
        let mut lines = page.lines().skip_while(|line| !line.starts_with(wanted));
        let Some(title) = lines.next() else { continue };
        let body: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).map(str::trim).collect();
        let _ = writeln!(out, "{}", title.trim_start_matches("## "));
        out += &wrapped(&format!("  {}", body.join(" ").trim()), "  ");
        out.push('\n');
    }
    let minutes = chapter.exercise.minutes;
    let _ =
        writeln!(out, "About {minutes} minutes; the attacker stands {}.\n", chapter.exercise.stand.words());
    out
}

/// A report: what holds, what is missing, what is no repair.
pub fn report(report: &Report) -> String {
    let mut out = format!("{}. {}\n\n", report.exercise, report.title);
    for line in &report.checks {
        out += &one(line);
    }
    for wrong in &report.wrong {
        out.push('\n');
        out += &wrapped(&format!("! {}", wrong.say), "  ");
    }
    let marks = [report.exploit, report.explain, report.harden];
    let earned = marks.iter().filter(|mark| **mark).count();
    let word = |name: &str, has: bool| format!("{name} {}", if has { "✓" } else { "✗" });
    let _ = writeln!(
        out,
        "\n{}  {}  {}   {}",
        word("Exploit", marks[0]),
        word("Explain", marks[1]),
        word("Harden", marks[2]),
        match (report.passed, earned) {
            (true, _) => "Passed. `minilab lab next` goes on.".to_owned(),
            (false, number) => format!("{number} of 3 marks. `minilab lab hint` helps."),
        }
    );
    out
}

fn one(line: &Line) -> String {
    let mark = match line.mark {
        Mark::Exploit => "exploit",
        Mark::Explain => "explain",
        Mark::Harden => "harden",
        Mark::Predict => "predict",
    };
    let sign = if line.passed { "✓" } else { "✗" };
    let said = match (line.passed, line.evidence.is_empty()) {
        (true, true) => String::new(),
        (true, false) => line.evidence.clone(),
        (false, _) => line.why.clone(),
    };
    let mut out = wrapped(&format!("{sign} {mark:<8}{:<15} {said}", line.name), &" ".repeat(26));
    if !line.passed && !line.evidence.is_empty() {
        out += &wrapped(&format!("{}seen: {}", " ".repeat(26), line.evidence), &" ".repeat(32));
    }
    out
}

/// The questions, their choices in this learner's order, and what was answered.
pub fn questions(chapter: &Chapter, progress: &mut Progress) -> String {
    let mut out = String::new();
    let learner = progress.learner.clone();
    let marks = progress.marks(chapter.number);
    for question in &chapter.exercise.questions {
        let answered = marks.answers.get(&question.name);
        let state = match answered {
            Some(answer) if answer.right => "✓",
            Some(_) if question.mark == Mark::Predict => "·",
            Some(_) => "✗",
            None => "?",
        };
        out += &wrapped(&format!("{state} {}: {}", question.name, question.ask), "  ");
        for (at, choice) in choices(chapter, &learner, question).iter().enumerate() {
            out += &wrapped(&format!("    {} {choice}", at + 1), "      ");
        }
    }
    out += "\n`minilab lab answer NAME TEXT` answers; a choice by its number or its words.\n";
    out
}

/// A text in eighty columns; lines after the first begin with `indent`.
pub fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    for paragraph in text.lines() {
        let lead: String = paragraph.chars().take_while(|c| *c == ' ').collect();
        let (mut line, mut empty) = (lead, true);
        for word in paragraph.split(' ') {
            if word.is_empty() && empty {
                continue;
            }
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                out += line.trim_end();
                out.push('\n');
                line = indent.to_owned();
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_a_terminal() {
        let text = "a fairly long sentence that says what is missing and why it is so ".repeat(4);
        let out = wrapped(&format!("✗ harden  verified        {text}"), &" ".repeat(26));
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
        assert!(out.lines().nth(1).unwrap().starts_with(&" ".repeat(26)));
        assert_eq!(wrapped("short", "  "), "short\n");
    }

    #[test]
    fn every_page_begins_with_its_goal_and_fits() {
        for folder in crate::course::folders() {
            let chapter = Chapter::of(folder, "somebody").unwrap();
            let head = head(&chapter);
            assert!(head.contains("\nGoal\n") && head.contains("\nWhere you stand\n"), "{}", folder.name);
            assert!(head.lines().all(|line| line.chars().count() <= WIDTH), "{}: {head}", folder.name);
        }
    }
}
