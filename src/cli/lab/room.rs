//! `minilab lab export`, `import`, `grade`: results that travel, and a room that is judged by them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::super::{Answer, Outcome, Output, table};
use crate::course::{Chapter, Progress, Results, find, grade, killercoda};
use crate::lab::state::LabDir;

/// No file of results is longer.
const LONGEST: u64 = 4 << 20;

#[derive(Args)]
pub struct Export {
    /// Where to write them instead of to standard output
    file: Option<PathBuf>,
    /// Write this exercise as a killercoda scenario into a directory instead
    #[arg(long, value_name = "EXERCISE", requires = "file")]
    killercoda: Option<String>,
}

#[derive(Args)]
pub struct Import {
    file: PathBuf,
}

#[derive(Args)]
pub struct Grade {
    /// A directory of exported results
    dir: PathBuf,
    /// The word the room was given
    #[arg(long, value_name = "SEED")]
    class: String,
    #[command(flatten)]
    output: Output,
}

impl Export {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let progress = Progress::read(lab)?;
        if let (Some(word), Some(dir)) = (&self.killercoda, &self.file) {
            let chapter = Chapter::of(find(word)?, "killercoda")?;
            std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
            for (name, text) in killercoda(&chapter) {
                let path = dir.join(name);
                std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            }
            return Ok(Answer::Done);
        }
        let results = Results::of(&progress);
        if results.signature.is_empty() {
            eprintln!("note: not signed; a class's word signs them: `minilab lab start N --class SEED`");
        }
        let mut text = serde_json::to_string_pretty(&results)?;
        text.push('\n');
        match &self.file {
            None => std::io::stdout().write_all(text.as_bytes())?,
            Some(path) => {
                std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
            }
        }
        Ok(Answer::Done)
    }
}

fn read(path: &Path) -> anyhow::Result<Results> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("read {}", path.display()))?;
    file.take(LONGEST).read_to_end(&mut text)?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no results file", path.display()))
}

impl Import {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let mut progress = Progress::read(lab)?;
        let theirs = read(&self.file)?;
        println!("{}: {} points taken over", theirs.name, theirs.points);
        progress.update(lab, |now| theirs.into(now))?;
        Ok(Answer::Done)
    }
}

impl Grade {
    pub fn run(self, _: &LabDir) -> Outcome {
        let entries = std::fs::read_dir(&self.dir).with_context(|| format!("read {}", self.dir.display()))?;
        let mut files = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match read(&path) {
                Ok(results) => files.push((name, results)),
                Err(error) => eprintln!("left out: {error:#}"),
            }
        }
        let (standings, stumbled) = grade(&files, &self.class);
        let genuine = standings.iter().all(|one| one.genuine);
        if self.output.json() {
            let most: Vec<_> =
                stumbled.iter().map(|(check, count)| json!({"check": check, "learners": count})).collect();
            super::super::print_json(&json!({"learners": standings, "stumbled": most}))?;
        } else {
            let lines = standings.iter().map(|one| {
                let sign = if one.genuine { "yes" } else { "NO" };
                let next = one.next.map_or("-".to_owned(), |next| next.to_string());
                vec![
                    one.name.clone(),
                    sign.into(),
                    one.passed.to_string(),
                    one.points.to_string(),
                    next,
                    one.file.clone(),
                ]
            });
            table::print(&["NAME", "GENUINE", "PASSED", "POINTS", "NEXT", "FILE"], lines)?;
            for (check, count) in stumbled.iter().take(5) {
                println!("stumbling block: exercise {check} ({count})");
            }
        }
        Ok(if genuine { Answer::Done } else { Answer::NotSo })
    }
}
