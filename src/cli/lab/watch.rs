//! `minilab lab` alone: looks again whenever something changes, with rustlings' keys.
//!
//! What changes is told from files: the lab's settings, what administrators edit in the hosts, attacks that were
//! run, answers that were given, and what the audit trail says kubectl has written.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::{Answer, Outcome, Trouble};
use super::{current, look, page, score, start};
use crate::course::Progress;
use crate::lab::plan::Plan;
use crate::lab::state::LabDir;
use crate::sys::terminal::Raw;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_millis(500);
const KEYS: &str = "n:next  h:hint  a:questions  p:page  l:list  r:look again  x:reset  q:quit";

/// What a key asks for.
enum Key {
    Next,
    Hint,
    Questions,
    Page,
    List,
    Again,
    Reset,
    Quit,
}

pub fn watch(lab: &LabDir) -> Outcome {
    if Progress::read(lab)?.current.is_none() {
        start::next(lab)?;
    }
    show(lab);
    let mut seen = fingerprint(lab);
    loop {
        let key = match key()? {
            None if fingerprint(lab) == seen => continue,
            None => Key::Again,
            Some(key) => key,
        };
        let outcome = match key {
            Key::Quit => return Ok(Answer::Done),
            Key::Again => {
                show(lab);
                Ok(Answer::Done)
            }
            Key::Next => next(lab),
            Key::Hint => super::help(lab),
            Key::Questions => questions(lab),
            Key::Page => page::show(lab, None),
            Key::List => score::list(lab, super::Output { output: None }),
            Key::Reset => reset(lab),
        };
        if let Err(trouble) = outcome {
            trouble.print();
        }
        println!("\n{KEYS}");
        seen = fingerprint(lab);
    }
}

fn show(lab: &LabDir) {
    match look(lab) {
        Ok((_, _, report)) => print!("\n{}", page::report(&report)),
        Err(trouble) => trouble.print(),
    }
    println!("\n{KEYS}");
}

/// On to the next one, once this one is passed.
fn next(lab: &LabDir) -> Outcome {
    let (progress, chapter) = current(lab)?;
    if progress.exercises.get(&chapter.number).is_some_and(crate::course::Marks::passed) {
        return start::next(lab);
    }
    println!("This one is not passed yet; `minilab lab start N` goes to another one.");
    Ok(Answer::NotSo)
}

fn questions(lab: &LabDir) -> Outcome {
    let (mut progress, chapter) = current(lab)?;
    print!("{}", page::questions(&chapter, &mut progress));
    Ok(Answer::Done)
}

fn reset(lab: &LabDir) -> Outcome {
    println!("Begin the exercise again? y: yes, any other key: no");
    match pressed(Duration::from_secs(30))? {
        Some(b'y' | b'Y') => {
            let progress = Progress::read(lab)?;
            let number = progress.current.as_ref().map_or(0, |begun| begun.exercise);
            start::to(lab, progress, &number.to_string(), false)
        }
        _ => Ok(Answer::Done),
    }
}

/// A key that means something, within a period.
fn key() -> Result<Option<Key>, Trouble> {
    Ok(match pressed(PERIOD)? {
        Some(b'n') => Some(Key::Next),
        Some(b'h') => Some(Key::Hint),
        Some(b'a' | b'?') => Some(Key::Questions),
        Some(b'p') => Some(Key::Page),
        Some(b'l') => Some(Key::List),
        Some(b'r' | b'c' | b'\r') => Some(Key::Again),
        Some(b'x') => Some(Key::Reset),
        // Ctrl-C and Ctrl-D are bytes in raw mode; end of input is nobody's.
        Some(b'q' | 3 | 4 | 0) => Some(Key::Quit),
        _ => None,
    })
}

/// One byte of the terminal, which hands on every key only for this moment.
fn pressed(limit: Duration) -> Result<Option<u8>, Trouble> {
    std::io::stdout().flush()?;
    let input = std::io::stdin();
    let _raw = Raw::enter(std::io::stdin())?;
    let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut waiting, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
        Ok(_) => {}
        Err(errno) => return Err(std::io::Error::from(errno).into()),
    }
    let mut byte = [0];
    let count = input.lock().read(&mut byte)?;
    Ok(Some(if count == 0 { 0 } else { byte[0] }))
}

/// Everything whose change could change an answer, as one number.
fn fingerprint(lab: &LabDir) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut look = |path: std::path::PathBuf| {
        if let Ok(meta) = std::fs::metadata(&path) {
            let when = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            (path, meta.len(), when).hash(&mut hasher);
        }
    };
    look(lab.state.join("lab.yaml"));
    look(lab.state.join("attacks.jsonl"));
    let plan = std::fs::read(lab.plan_file()).ok();
    let plan: Option<Plan> = plan.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    for host in plan.iter().flat_map(|plan| &plan.hosts) {
        for file in &host.files {
            look(lab.host(&host.name).join(file.path.strip_prefix("/").unwrap_or(&file.path)));
        }
    }
    let answers = Progress::read(lab).map(|progress| {
        let number = progress.current.as_ref().map_or(0, |begun| begun.exercise);
        let marks = progress.exercises.get(&number).cloned().unwrap_or_default();
        (number, marks.answers.len(), marks.answers.values().filter(|answer| answer.right).count())
    });
    answers.ok().hash(&mut hasher);
    hasher.finish()
}
