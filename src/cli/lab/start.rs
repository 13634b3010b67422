//! `minilab lab start N` and `reset`: the lab at the beginning of an exercise, whatever it was before.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use super::super::{Answer, Outcome, Trouble, up};
use super::page;
use crate::course::{Begun, Chapter, CourseError, Marks, Progress, begin, find, folders, is_stuck};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Start {
    /// A number or a name
    exercise: String,
    /// The word your instructor gave the room: exported results are signed with it
    #[arg(long, value_name = "SEED")]
    class: Option<String>,
    /// Your name on exported results
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Args)]
pub struct Reset {
    /// Make the lab anew instead of mending it
    #[arg(long)]
    hard: bool,
    /// Forget every mark, answer and hint of the whole course
    #[arg(long)]
    all: bool,
    /// Do not ask before forgetting
    #[arg(long, requires = "all")]
    yes: bool,
}

impl Start {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let mut progress = Progress::read(lab)?;
        progress.update(lab, |now| {
            now.class = self.class.or(now.class.take());
            now.name = self.name.unwrap_or(std::mem::take(&mut now.name));
        })?;
        to(lab, progress, &self.exercise, false)
    }
}

/// The first exercise that is not passed.
pub fn next(lab: &LabDir) -> Outcome {
    let progress = Progress::read(lab)?;
    let open = |number: &u8| !progress.exercises.get(number).is_some_and(Marks::passed);
    match folders().iter().map(crate::course::Folder::number).find(open) {
        Some(number) => to(lab, progress, &number.to_string(), false),
        None => {
            println!("Every exercise is passed. `minilab lab score` shows it.");
            Ok(Answer::Done)
        }
    }
}

impl Reset {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let mut progress = Progress::read(lab)?;
        if self.all {
            if !self.yes && !confirmed()? {
                return Ok(Answer::Usage);
            }
            progress.update(lab, |now| {
                now.exercises.clear();
                now.current = None;
            })?;
            println!("Every mark is forgotten. `minilab lab start 0` begins again.");
            return Ok(Answer::Done);
        }
        let number = progress.current.as_ref().ok_or(CourseError::NotStarted)?.exercise;
        to(lab, progress, &number.to_string(), self.hard)
    }
}

fn confirmed() -> anyhow::Result<bool> {
    eprint!("Forget every mark of the whole course? [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("y"))
}

/// Begins an exercise and says what it is about.
pub fn to(lab: &LabDir, progress: Progress, word: &str, anew: bool) -> Outcome {
    let began = Instant::now();
    let passed = |number: u8| progress.exercises.get(&number).is_some_and(Marks::passed);
    let passed = find(word).is_ok_and(|folder| passed(folder.number()));
    let chapter = enter(lab, progress, word, anew)?;
    print!("{}", page::head(&chapter));
    if passed {
        println!("You have passed this one. Its marks stay, whatever you do now.");
    }
    println!("The lab is ready ({:.1} s).", began.elapsed().as_secs_f64());
    println!("`minilab lab page` shows the whole page, `minilab lab check` what is missing.");
    Ok(Answer::Done)
}

/// Brings the lab to an exercise's beginning; where that cannot be, makes it anew once.
pub fn enter(lab: &LabDir, mut progress: Progress, word: &str, anew: bool) -> Result<Chapter, Trouble> {
    let folder = find(word)?;
    let chapter = Chapter::of(folder, &progress.learner)?;
    // From here on an interrupted start is a start: `reset` knows what to bring back, and what to take away.
    let before: Vec<u8> = match progress.current.take() {
        None => Vec::new(),
        Some(Begun { exercise, before, .. }) => [before, vec![exercise]].concat(),
    };
    let half = Begun { exercise: chapter.number, before: before.clone(), ..Begun::default() };
    progress.update(lab, |now| now.current = Some(half))?;
    let before: Vec<Chapter> = before
        .iter()
        .filter_map(|number| find(&number.to_string()).ok())
        .map(|folder| Chapter::of(folder, &progress.learner))
        .collect::<Result<_, _>>()?;
    if anew {
        remake(lab)?;
    } else if !lab.is_running() {
        run_myself(lab, &["up"])?;
    }
    let begun = match staged(lab, &chapter, &before) {
        Err(error) if !anew && is_stuck(&error) => {
            eprintln!("The lab could not be mended ({error:#}); it is made anew.");
            remake(lab)?;
            staged(lab, &chapter, &[])?
        }
        begun => begun?,
    };
    progress.update(lab, |now| {
        now.current = Some(begun);
        now.marks(chapter.number).started.get_or_insert_with(jiff::Timestamp::now);
    })?;
    Ok(chapter)
}

fn staged(lab: &LabDir, chapter: &Chapter, before: &[Chapter]) -> Result<Begun, CourseError> {
    let _lock = lab.lock()?;
    begin(lab, chapter, before)
}

/// A new lab of the same shape, at the same port.
fn remake(lab: &LabDir) -> Result<(), Trouble> {
    let spec = up::read_spec(lab).ok();
    run_myself(lab, &["delete"])?;
    let port = spec.map(|spec| spec.port.to_string());
    match &port {
        Some(port) => run_myself(lab, &["up", "--port", port]),
        None => run_myself(lab, &["up"]),
    }
}

fn run_myself(lab: &LabDir, words: &[&str]) -> Result<(), Trouble> {
    let base = lab.state.parent().unwrap_or(&lab.state);
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(["--lab", &lab.name, "--state-dir"]).arg(base).args(words).stdout(std::io::stderr());
    let status = command.status().context("run this program")?;
    if status.success() {
        return Ok(());
    }
    let what = format!("`minilab {}` failed", words.join(" "));
    let remedy = format!("`{} doctor` tries what a lab needs of this machine", up::myself(lab));
    Err(Trouble::new(Answer::Failed, what, remedy))
}
