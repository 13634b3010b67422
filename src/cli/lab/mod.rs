//! `minilab lab …`: the course. Alone on a terminal it watches; every listing takes `-o json`.

mod page;
mod room;
mod score;
mod start;
mod watch;

use clap::{Args, Subcommand};

use super::{Answer, Outcome, Output, Trouble, up};
use crate::course::{
    Chapter, CourseError, Ground, Mark, Progress, Reply, Report, answer, check, choices, find, hint, identity,
};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Lab {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// List the exercises and how far you are
    List(Listing),
    /// Begin an exercise: bring the lab to its state and show what it is about
    Start(start::Start),
    /// Begin the first exercise that is not passed
    Next,
    /// Show the page of the exercise
    Page(Which),
    /// Look at what you have done, and say what is missing
    Check(Check),
    /// Answer one of the exercise's questions; without an answer, show them
    Answer(Say),
    /// Help: a nudge, a pointer, nearly the answer; each costs a point until you have passed
    Hint,
    /// Show a solution; before you have passed it costs ten points
    Solution(Solution),
    /// Begin the exercise again
    Reset(start::Reset),
    /// Show which exercise runs and how far it is
    Status(Listing),
    /// Show the score board
    Score(Listing),
    /// Write your results, or an exercise as a killercoda scenario
    Export(room::Export),
    /// Take over results written elsewhere
    Import(room::Import),
    /// For instructors: who stands where, and what most people fail
    Grade(room::Grade),
}

#[derive(Args)]
struct Listing {
    #[command(flatten)]
    output: Output,
}

/// One exercise, or the one that runs.
#[derive(Args)]
struct Which {
    /// A number or a name [default: the exercise that runs]
    exercise: Option<String>,
}

#[derive(Args)]
struct Check {
    /// The exercise it must be
    exercise: Option<String>,
    /// Look again whenever something changes
    #[arg(long, conflicts_with = "output")]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Say {
    /// The question's name
    name: Option<String>,
    /// The answer, or the number of a choice
    text: Vec<String>,
}

#[derive(Args)]
struct Solution {
    /// Show it although the exercise is not passed
    #[arg(long)]
    yes: bool,
}

impl Lab {
    pub fn run(self, lab: &LabDir) -> Outcome {
        use std::io::IsTerminal;
        let Some(what) = self.what else {
            let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            return if terminal { watch::watch(lab) } else { score::list(lab, Output { output: None }) };
        };
        let outcome = match what {
            What::List(listing) => score::list(lab, listing.output),
            What::Start(start) => start.run(lab),
            What::Next => start::next(lab),
            What::Page(which) => page::show(lab, which.exercise.as_deref()),
            What::Check(check) => check.run(lab),
            What::Answer(reply) => reply.run(lab),
            What::Hint => help(lab),
            What::Solution(solution) => solution.run(lab),
            What::Reset(reset) => reset.run(lab),
            What::Status(listing) => score::status(lab, listing.output),
            What::Score(listing) => score::score(lab, listing.output),
            What::Export(export) => export.run(lab),
            What::Import(import) => import.run(lab),
            What::Grade(grade) => grade.run(lab),
        };
        outcome.map_err(advised)
    }
}

/// What to do next about what the course says.
fn advised(mut trouble: Trouble) -> Trouble {
    match trouble.error.downcast_ref::<CourseError>() {
        Some(CourseError::NotStarted) => {
            trouble.answer = Answer::Usage;
            let remedy = "`minilab lab start 0` begins with the tour, `minilab lab list` shows all";
            trouble.remedy = Some(remedy.into());
        }
        Some(CourseError::NoExercise(_) | CourseError::NoQuestion { .. }) => trouble.answer = Answer::Usage,
        Some(_) => trouble.remedy = Some("`minilab lab reset` brings the exercise back".into()),
        None => {}
    }
    trouble
}

/// The exercise that runs, filled in for this learner.
fn current(lab: &LabDir) -> Result<(Progress, Chapter), Trouble> {
    let progress = Progress::read(lab)?;
    let begun = progress.current.as_ref().ok_or(CourseError::NotStarted)?;
    let chapter = Chapter::of(find(&begun.exercise.to_string())?, &progress.learner)?;
    Ok((progress, chapter))
}

/// Looks at everything of the exercise that runs, and keeps it.
fn look(lab: &LabDir) -> Result<(Progress, Chapter, Report), Trouble> {
    current(lab)?;
    if !lab.is_running() {
        let mut trouble = Trouble::not_running(lab);
        trouble.remedy = Some(format!("`{} lab reset` brings lab and exercise back", up::myself(lab)));
        return Err(trouble);
    }
    // Two attacks at once would judge each other; and what is looked at is what runs once nobody else does.
    let lock = lab.lock()?;
    let (mut progress, chapter) = current(lab)?;
    let begun = progress.current.clone().ok_or(CourseError::NotStarted)?;
    let ground = Ground::of(lab, &chapter, begun.clone())?;
    // A lab that does not answer may well be the one.
    if begun.micros == 0 || identity(&ground).is_ok_and(|now| now != begun.lab) {
        return Err(CourseError::OtherLab(chapter.number).into());
    }
    let report = check(&ground, &mut progress)?;
    let checked = progress.marks(chapter.number).clone();
    progress.update(lab, |now| {
        // An exercise that was begun meanwhile is not the one that was looked at.
        if now.current.as_ref() == Some(&begun) {
            now.marks(chapter.number).found(checked);
        }
    })?;
    drop(ground);
    drop(lock);
    Ok((progress, chapter, report))
}

impl Check {
    fn run(self, lab: &LabDir) -> Outcome {
        if let Some(word) = &self.exercise {
            let (wanted, (progress, _)) = (find(word)?, current(lab)?);
            if progress.current.as_ref().map(|begun| begun.exercise) != Some(wanted.number()) {
                let what = format!("exercise {} does not run", wanted.number());
                let remedy = format!("`{} lab start {}`", up::myself(lab), wanted.number());
                return Err(Trouble::new(Answer::Usage, what, remedy));
            }
        }
        if self.watch {
            return watch::watch(lab);
        }
        let (_, _, report) = look(lab)?;
        match self.output.json() {
            true => super::print_json(&report)?,
            false => print!("{}", page::report(&report)),
        }
        Ok(if report.passed { Answer::Done } else { Answer::NotSo })
    }
}

impl Say {
    fn run(self, lab: &LabDir) -> Outcome {
        let (mut progress, chapter) = current(lab)?;
        let text = self.text.join(" ");
        let Some(name) = self.name.filter(|_| !text.trim().is_empty()) else {
            print!("{}", page::questions(&chapter, &mut progress));
            return Ok(Answer::Done);
        };
        let begun = progress.current.clone().ok_or(CourseError::NotStarted)?;
        let ground = if lab.is_running() { Some(Ground::of(lab, &chapter, begun)?) } else { None };
        let reply = answer(ground.as_ref(), &chapter, &mut progress, &name, &text)?;
        let kept = progress.marks(chapter.number).answers.remove(&name);
        progress
            .update(lab, |now| now.marks(chapter.number).answers.extend(kept.map(|kept| (name, kept))))?;
        say(&reply);
        Ok(if reply.right || reply.guess { Answer::Done } else { Answer::NotSo })
    }
}

fn say(reply: &Reply) {
    match (reply.guess, reply.right) {
        (true, true) => println!("A good guess. You will see."),
        (true, false) => println!("Noted. You will see."),
        (false, true) => println!("Right."),
        (false, false) => println!("That is not it. `minilab lab answer` shows the questions."),
    }
    if let Some(because) = &reply.because {
        print!("{}", page::wrapped(because, ""));
    }
}

/// The next level of help for what is missing now.
fn help(lab: &LabDir) -> Outcome {
    let (mut progress, chapter) = match lab.is_running() {
        true => look(lab).map(|(progress, chapter, _)| (progress, chapter))?,
        false => current(lab)?,
    };
    let given = progress.update(lab, |now| {
        let marks = now.marks(chapter.number);
        // Who has passed may look without losing a point.
        if marks.passed() { hint(&chapter, &mut marks.clone()) } else { hint(&chapter, marks) }
    })?;
    match given {
        None => println!("There is no help for this; `minilab lab page` shows the page."),
        Some(given) => {
            print!("{}", page::wrapped(&format!("{}/3  {}", given.level, given.text), "     "));
            if given.last {
                println!("     That was the last level; `minilab lab solution` shows how it goes.");
            }
        }
    }
    Ok(Answer::Done)
}

impl Solution {
    fn run(self, lab: &LabDir) -> Outcome {
        let (mut progress, chapter) = current(lab)?;
        if !progress.marks(chapter.number).passed() && !self.yes {
            let what = "the exercise is not passed yet, and a solution costs ten points";
            return Err(Trouble::new(
                Answer::Usage,
                what,
                "`minilab lab hint` costs one, `--yes` shows it anyway",
            ));
        }
        progress.update(lab, |now| {
            let marks = now.marks(chapter.number);
            marks.solution |= !marks.passed();
        })?;
        print!("{}", chapter.folder.solution);
        Ok(Answer::Done)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        lab: super::Lab,
    }

    #[test]
    fn an_answer_may_have_blanks_and_alone_it_watches() {
        assert!(Words::try_parse_from(["lab", "answer", "who", "the", "API", "server"]).is_ok());
        assert!(Words::try_parse_from(["lab"]).unwrap().lab.what.is_none());
        assert!(Words::try_parse_from(["lab", "grade", "dir", "--class", "x"]).is_ok());
    }
}
