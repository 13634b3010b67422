//! The checks: what a learner has done, by what came of it.
//!
//! A check is never about a setting. It runs an attack, asks a question over TLS, runs kubectl, counts packets,
//! or reads what the API server's audit trail and the roles' own logs say happened since the exercise began.

mod ask;
mod trail;
mod wire;
pub mod works;

pub use trail::requests;

use serde::Serialize;

use super::ground::{Ground, short};
use super::progress::{Marks, Progress};
use super::schema::{Check, Mark, Probe, Text};
use super::{CourseError, journal, wrong};
use crate::attack::{Wishes, attack};
use crate::lab::paths::find;

/// How something was found.
#[derive(Debug, Clone)]
pub struct Seen {
    pub holds: bool,
    /// What was seen, in a sentence.
    pub evidence: String,
}

impl Seen {
    pub fn new(holds: bool, evidence: impl Into<String>) -> Seen {
        Seen { holds, evidence: evidence.into() }
    }
}

/// One line of an answer to `lab check`.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub name: String,
    pub mark: Mark,
    pub passed: bool,
    /// What is missing, or what was seen.
    pub why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// What `lab check` answers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub lab: String,
    pub exercise: u8,
    pub title: String,
    pub passed: bool,
    pub exploit: bool,
    pub explain: bool,
    pub harden: bool,
    pub checks: Vec<Line>,
    /// Repairs that are none, recognised.
    pub wrong: Vec<wrong::Named>,
}

/// Looks at everything of the exercise that runs, and keeps what was earned.
pub fn check(ground: &Ground<'_>, progress: &mut Progress) -> Result<Report, CourseError> {
    let (chapter, now) = (ground.chapter, jiff::Timestamp::now());
    let marks = progress.marks(chapter.number);
    let mut lines = exploits(ground, marks);
    lines.extend(questions(ground, marks, Mark::Exploit));
    if lines.iter().all(|line| line.passed) {
        marks.exploit.get_or_insert(now);
    }
    let explained = questions(ground, marks, Mark::Explain);
    if explained.iter().all(|line| line.passed) {
        marks.explain.get_or_insert(now);
    }
    let earned = marks.exploit;
    let (hardened, named) = match earned {
        None => (chapter.exercise.harden.iter().map(too_early).collect(), Vec::new()),
        Some(earned) => hardened(ground, earned)?,
    };
    let holds = earned.is_some() && named.is_empty() && hardened.iter().all(|line: &Line| line.passed);
    if holds {
        marks.harden.get_or_insert(now);
    }
    lines.extend(explained);
    lines.extend(hardened);
    remember(marks, &lines);
    Ok(Report {
        lab: ground.lab.name.clone(),
        exercise: chapter.number,
        title: chapter.exercise.title.clone(),
        passed: holds && lines.iter().all(|line| line.passed),
        exploit: marks.exploit.is_some(),
        explain: marks.explain.is_some(),
        harden: holds,
        checks: lines,
        wrong: named,
    })
}

/// The learner's own acts. What was earned once is not asked again: the repair undoes it.
fn exploits(ground: &Ground<'_>, marks: &Marks) -> Vec<Line> {
    let look = |check: &Check| match marks.exploit {
        Some(when) => {
            let evidence = format!("seen {}", when.strftime("%Y-%m-%d %H:%M"));
            line(check, Mark::Exploit, Seen::new(true, evidence))
        }
        None => line(check, Mark::Exploit, probe(ground, &check.probe)),
    };
    ground.chapter.exercise.exploit.iter().map(look).collect()
}

/// The questions of a mark and how they were answered.
fn questions(ground: &Ground<'_>, marks: &Marks, mark: Mark) -> Vec<Line> {
    let asked = ground.chapter.exercise.questions.iter().filter(|question| question.mark == mark);
    asked
        .map(|question| {
            let answered = marks.answers.get(&question.name);
            let passed = answered.is_some_and(|answer| answer.right);
            let why = match answered {
                Some(_) if passed => "answered".to_owned(),
                Some(answer) => format!("{:?} is not it. {}", answer.text, question.ask),
                None => question.ask.clone(),
            };
            Line { name: question.name.clone(), mark, passed, why, evidence: String::new() }
        })
        .collect()
}

fn too_early(check: &Check) -> Line {
    let why = "This counts once the exploit has worked. If you have repaired already: `minilab lab reset`, attack, repair again.";
    line(check, Mark::Harden, Seen::new(false, "")).saying(why)
}

/// The repair, what must go on working beside it, and the repairs that are none.
fn hardened(
    ground: &Ground<'_>,
    earned: jiff::Timestamp,
) -> Result<(Vec<Line>, Vec<wrong::Named>), CourseError> {
    let mut lines: Vec<Line> = Vec::new();
    for check in &ground.chapter.exercise.harden {
        lines.push(line(check, Mark::Harden, probe(ground, &check.probe)));
    }
    let works = works::all(ground);
    let kept = trail::same(ground, &ground.begun.uids.keys().cloned().collect::<Vec<_>>());
    let running = trail::running(ground, &[]);
    for (name, why, seen) in [
        ("works", "Logs, exec and port-forward must go on working.", &works),
        ("unharmed", "What ran when the exercise began must still be there.", &kept),
        ("roles", "Every part of the cluster must run.", &running),
    ] {
        let check = Line {
            name: name.into(),
            mark: Mark::Harden,
            passed: seen.holds,
            why: why.into(),
            evidence: seen.evidence.clone(),
        };
        lines.push(check);
    }
    let named = wrong::recognise(ground, &lines, &works, earned);
    Ok((lines, named))
}

fn line(check: &Check, mark: Mark, seen: Seen) -> Line {
    Line {
        name: check.name.clone(),
        mark,
        passed: seen.holds,
        why: check.why.clone(),
        evidence: seen.evidence,
    }
}

impl Line {
    fn saying(mut self, why: &str) -> Line {
        self.why = why.to_owned();
        self
    }
}

fn remember(marks: &mut Marks, lines: &[Line]) {
    marks.checks += 1;
    for line in lines {
        marks.last.insert(line.name.clone(), line.passed);
        if !line.passed {
            *marks.failed.entry(line.name.clone()).or_default() += 1;
        }
    }
}

/// Finds one thing out. What cannot be found out does not hold, and says why.
pub fn probe(ground: &Ground<'_>, wanted: &Probe) -> Seen {
    found(ground, wanted).unwrap_or_else(|error| Seen::new(false, error))
}

fn found(ground: &Ground<'_>, wanted: &Probe) -> Result<Seen, String> {
    match wanted {
        Probe::Attack { setting, expect } => {
            let id = find(setting).map_err(|error| error.to_string())?.1.id;
            let settings = super::ground::spec(ground.lab).map_err(|error| error.to_string())?.modes();
            let report = attack(ground.lab, &settings, id, &Wishes::default());
            let report = report.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
            let evidence = format!("{}: {}", report.verdict, report.observed);
            Ok(Seen::new(report.verdict == *expect, evidence))
        }
        Probe::Attacked { setting, expect, say } => {
            let entries = journal::since(ground.lab, ground.begun.micros);
            let fits = |entry: &&journal::Entry| {
                entry.setting == *setting && entry.verdict == *expect && (entry.said || !say)
            };
            let last = entries.iter().rev().find(|entry| entry.setting == *setting);
            let evidence = match (entries.iter().any(|entry| fits(&entry)), last) {
                (true, _) => format!("your attack: {expect}"),
                (false, Some(last)) => format!("your last attack: {}", last.verdict),
                (false, None) => "no attack of yours yet".into(),
            };
            Ok(Seen::new(entries.iter().any(|entry| fits(&entry)), evidence))
        }
        Probe::Ask(question) => ask::ask(ground, question),
        Probe::Run(run) => {
            let ran = ground.command(&run.on, &run.command, Vec::new())?;
            let text = Text { contains: run.contains.clone(), lacks: run.lacks.clone() };
            Ok(judged(&ran.text, &text, ran.code == run.exit))
        }
        Probe::Exec(exec) => {
            let (namespace, pod) = exec.pod.split_once('/').ok_or("a pod is NS/NAME")?;
            let mut words = vec!["exec", "-n", namespace, pod, "--"];
            words.extend(exec.command.iter().map(String::as_str));
            let ran = ground.kubectl(&words)?;
            let text = Text { contains: exec.contains.clone(), lacks: exec.lacks.clone() };
            Ok(judged(&ran.text, &text, ran.code == 0))
        }
        Probe::Kubectl { words, exit, text } => {
            let ran = ground.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
            Ok(judged(&ran.text, text, ran.code == *exit))
        }
        Probe::Log(log) => trail::log(ground, log),
        Probe::Audit(audit) => trail::audit(ground, audit),
        Probe::Wire(packets) => wire::wire(ground, packets),
        Probe::Works(streams) => Ok(works::these(ground, streams)),
        Probe::Same(objects) => Ok(trail::same(ground, objects)),
        Probe::Running(roles) => Ok(trail::running(ground, roles)),
        Probe::Not(inner) => found(ground, inner).map(|seen| Seen::new(!seen.holds, seen.evidence)),
        Probe::Any(list) => {
            let all: Vec<Seen> = list.iter().map(|one| probe(ground, one)).collect();
            let best = all.iter().find(|seen| seen.holds).or(all.last()).cloned();
            Ok(best.unwrap_or_else(|| Seen::new(false, "")))
        }
        Probe::All(list) => {
            let all: Vec<Seen> = list.iter().map(|one| probe(ground, one)).collect();
            let worst = all.iter().find(|seen| !seen.holds).or(all.last()).cloned();
            Ok(worst.unwrap_or_else(|| Seen::new(true, "")))
        }
    }
}

/// A text by what it must have and must not have.
pub fn judged(said: &str, text: &Text, ended_so: bool) -> Seen {
    let has = text.contains.as_ref().is_none_or(|wanted| said.contains(wanted.as_str()));
    let clean = text.lacks.as_ref().is_none_or(|unwanted| !said.contains(unwanted.as_str()));
    Seen::new(has && clean && ended_so, short(said))
}
