//! The exercises that are in this binary: `labs/NN-slug/`, put in by build.rs, read and filled in for a learner.
//! Who writes exercises has them read from a directory instead: `MINILAB_LABS=DIR`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::CourseError;
use super::schema::Exercise;
use super::seed;

include!(concat!(env!("OUT_DIR"), "/labs.rs"));

/// A folder of `labs/` as it is in the binary.
#[derive(Debug)]
pub struct Folder {
    /// `00-tour`
    pub name: &'static str,
    pub readme: &'static str,
    pub yaml: &'static str,
    pub solution: &'static str,
}

/// An exercise, filled in for one learner.
#[derive(Debug)]
pub struct Chapter {
    pub number: u8,
    pub folder: &'static Folder,
    pub exercise: Exercise,
    pub random: BTreeMap<String, String>,
}

/// Every folder, in order.
pub fn folders() -> &'static [Folder] {
    static READ: OnceLock<Vec<Folder>> = OnceLock::new();
    match std::env::var_os("MINILAB_LABS") {
        None => LABS,
        Some(dir) => READ.get_or_init(|| written(Path::new(&dir))),
    }
}

/// The folders of a directory as they are now. They are read once and live as long as the program.
fn written(dir: &Path) -> Vec<Folder> {
    let keep = |path: PathBuf| -> &'static str {
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| format!("# {}: {error}\n", path.display())).leak()
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    let folder = |dir: PathBuf| Folder {
        name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned().leak(),
        readme: keep(dir.join("README.md")),
        yaml: keep(dir.join("lab.yaml")),
        solution: keep(dir.join("solution.sh")),
    };
    dirs.into_iter().map(folder).collect()
}

impl Folder {
    pub fn number(&self) -> u8 {
        self.name.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(u8::MAX)
    }

    pub fn slug(&self) -> &'static str {
        self.name.split_once('-').map_or(self.name, |(_, slug)| slug)
    }
}

/// The exercise a word means: `3`, `03`, `birth`, `03-birth`.
pub fn find(word: &str) -> Result<&'static Folder, CourseError> {
    let number = word.parse::<u8>().ok();
    let mut folders = folders().iter();
    folders
        .find(|folder| Some(folder.number()) == number || folder.name == word || folder.slug() == word)
        .ok_or_else(|| CourseError::NoExercise(word.to_owned()))
}

impl Chapter {
    /// Reads an exercise with this learner's values in it.
    pub fn of(folder: &'static Folder, learner: &str) -> Result<Chapter, CourseError> {
        let failed = |source| CourseError::Parse { name: folder.name, source };
        let plain = read(folder.yaml).map_err(failed)?;
        let number = folder.number();
        let random: BTreeMap<String, String> = plain
            .random
            .iter()
            .map(|(name, word)| (name.clone(), seed::value(learner, number, name, *word)))
            .collect();
        let exercise = read(&fill(folder.yaml, &random)).map_err(failed)?;
        Ok(Chapter { number, folder, exercise, random })
    }

    /// `Exercise 3`, for people.
    pub fn title(&self) -> String {
        format!("{}. {}", self.number, self.exercise.title)
    }

    pub fn readme(&self) -> String {
        fill(self.folder.readme, &self.random)
    }

    /// The objects it puts into the API, labelled as its own.
    pub fn objects(&self) -> Result<Vec<Value>, CourseError> {
        let failed = |source| CourseError::Parse { name: self.folder.name, source };
        let mut objects = Vec::new();
        for document in serde_yaml_ng::Deserializer::from_str(&self.exercise.objects) {
            let mut object: Value = serde::Deserialize::deserialize(document).map_err(failed)?;
            if object.is_null() {
                continue;
            }
            object["metadata"]["labels"][LABEL] = format!("{:02}", self.number).into();
            objects.push(object);
        }
        Ok(objects)
    }
}

/// On everything an exercise puts into the API.
pub const LABEL: &str = "minilab.dev/exercise";

/// By way of JSON's tree, in which `{random: gold}` is a variant with its value.
fn read(text: &str) -> Result<Exercise, serde_yaml_ng::Error> {
    let tree: Value = serde_yaml_ng::from_str(text)?;
    serde_json::from_value(tree).map_err(serde::de::Error::custom)
}

fn fill(text: &str, random: &BTreeMap<String, String>) -> String {
    random.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::course::schema::{From, Probe};
    use crate::lab::paths;

    fn chapters() -> Vec<Chapter> {
        LABS.iter().map(|folder| Chapter::of(folder, "somebody").unwrap()).collect()
    }

    #[test]
    fn every_exercise_can_be_read_and_names_what_there_is() {
        for chapter in chapters() {
            let (exercise, name) = (&chapter.exercise, chapter.folder.name);
            for word in exercise.settings.keys().chain(&exercise.repairs) {
                assert!(paths::meant(word).is_ok(), "{name}: {word}");
            }
            assert!(exercise.path == "all" || paths::meant(&exercise.path).is_ok(), "{name}");
            assert!(!exercise.exploit.is_empty() || !exercise.harden.is_empty(), "{name} checks nothing");
            let names: Vec<&str> =
                exercise.exploit.iter().chain(&exercise.harden).map(|one| &*one.name).collect();
            let names: Vec<&str> =
                names.into_iter().chain(exercise.questions.iter().map(|one| &*one.name)).collect();
            assert_eq!(
                names.iter().collect::<BTreeSet<_>>().len(),
                names.len(),
                "{name}: a name comes twice"
            );
            for hint in &exercise.hints {
                for word in hint.when.holds.iter().chain(&hint.when.fails) {
                    assert!(names.contains(&word.as_str()), "{name}: a hint waits for {word}");
                }
            }
            chapter.objects().unwrap();
        }
    }

    #[test]
    fn attacks_that_are_checked_exist_and_questions_can_be_answered() {
        for chapter in chapters() {
            let checks = chapter.exercise.exploit.iter().chain(&chapter.exercise.harden);
            for check in checks {
                if let Probe::Attack { setting, .. } | Probe::Attacked { setting, .. } = &check.probe {
                    assert!(paths::find(setting).is_ok(), "{}: {setting}", chapter.folder.name);
                }
            }
            for question in &chapter.exercise.questions {
                assert_ne!(
                    question.choices.is_empty(),
                    question.answer_from.is_none(),
                    "{}: {} has choices or an answer, not both",
                    chapter.folder.name,
                    question.name
                );
                if let Some(From::Random(name)) = &question.answer_from {
                    assert!(chapter.random.contains_key(name), "{}: {name}", chapter.folder.name);
                }
            }
        }
    }

    #[test]
    fn no_hint_gives_a_command_of_the_solution_away() {
        for chapter in chapters() {
            let commands = chapter.folder.solution.lines().map(str::trim).filter(|line| line.len() > 15);
            let commands: Vec<&str> = commands.filter(|line| !line.starts_with('#')).collect();
            for level in chapter.exercise.hints.iter().flat_map(|hint| &hint.levels) {
                let gives = commands.iter().any(|command| level.contains(command));
                let hardens = level.contains("minilab harden ") || level.contains("minilab attack ");
                assert!(!gives && !hardens, "{}: {level}", chapter.folder.name);
            }
        }
    }

    #[test]
    fn a_word_finds_an_exercise_by_number_or_name() {
        for word in ["0", "00", "tour", "00-tour"] {
            assert_eq!(find(word).unwrap().number(), 0);
        }
        assert!(find("99").is_err());
        let numbers: Vec<u8> = LABS.iter().map(Folder::number).collect();
        assert!(numbers.is_sorted() && numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len());
    }
}
