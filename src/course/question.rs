//! Questions whose answers come from the live lab or from the learner's own random values.

use std::path::Path;

use serde_json::Value;

use super::book::Chapter;
use super::ground::Ground;
use super::progress::{Answered, Marks, Progress};
use super::schema::{Field, From, Mark, Question};
use super::{CourseError, seed};
use crate::lab::files::Tree;
use crate::pki::Facts;

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub right: bool,
    /// What an expert would add.
    pub because: Option<String>,
    /// A guess: neither right nor wrong counts.
    pub guess: bool,
}

/// The choices of a question in this learner's order.
pub fn choices<'a>(chapter: &Chapter, learner: &str, question: &'a Question) -> Vec<&'a str> {
    let order = seed::order(learner, chapter.number, &question.name, question.choices.len());
    order.into_iter().map(|place| question.choices[place].as_str()).collect()
}

/// Judges an answer and keeps it.
pub fn answer(
    ground: Option<&Ground<'_>>,
    chapter: &Chapter,
    progress: &mut Progress,
    name: &str,
    text: &str,
) -> Result<Reply, CourseError> {
    let questions = &chapter.exercise.questions;
    let Some(question) = questions.iter().find(|question| question.name == name) else {
        let there: Vec<&str> = questions.iter().map(|question| question.name.as_str()).collect();
        return Err(CourseError::NoQuestion { name: name.to_owned(), there: there.join(", ") });
    };
    let right = match (&question.answer_from, question.choices.first()) {
        (None, Some(first)) => {
            let shown = choices(chapter, &progress.learner, question);
            let picked =
                text.trim().parse::<usize>().ok().and_then(|at| shown.get(at.checked_sub(1)?).copied());
            plain(picked.unwrap_or(text)) == plain(first)
        }
        (Some(from), _) => {
            let wanted = wanted(ground, chapter, from)?;
            wanted.iter().any(|value| plain(value) == plain(text))
        }
        (None, None) => false,
    };
    let marks = progress.marks(chapter.number);
    keep(marks, name, text, right);
    Ok(Reply {
        right,
        because: question.because.clone().filter(|_| right || question.mark == Mark::Predict),
        guess: question.mark == Mark::Predict,
    })
}

/// What was answered right once stays so.
fn keep(marks: &mut Marks, name: &str, text: &str, right: bool) {
    let before = marks.answers.get(name).cloned();
    let tries = before.as_ref().map_or(0, |before| before.tries) + 1;
    let answered = match before {
        Some(before) if before.right && !right => Answered { tries, ..before },
        _ => Answered { text: text.to_owned(), right, tries },
    };
    marks.answers.insert(name.to_owned(), answered);
}

/// Case, colons and blanks are nobody's knowledge; nor are the zeros before a number.
fn plain(text: &str) -> String {
    let kept = text.trim().trim_end_matches('.').chars().filter(|c| !c.is_whitespace() && *c != ':');
    kept.flat_map(char::to_lowercase).collect()
}

fn wanted(ground: Option<&Ground<'_>>, chapter: &Chapter, from: &From) -> Result<Vec<String>, CourseError> {
    let ground = || ground.ok_or(CourseError::NotStarted);
    Ok(match from {
        From::Random(name) => chapter.random.get(name).cloned().into_iter().collect(),
        From::Values(values) => values.clone(),
        From::Certificate { host, file, field } => {
            let bytes = Tree::of(ground()?.lab, host)?.read(Path::new(file))?.unwrap_or_default();
            let facts = Facts::from_pem(&bytes).map_err(|error| CourseError::Spec(error.to_string()))?;
            part(&facts, *field)
        }
        From::Object { path, pointer } => {
            let object = ground()?.get(path).map_err(CourseError::Spec)?.unwrap_or_default();
            match object.pointer(pointer) {
                Some(Value::String(text)) => vec![text.clone()],
                Some(Value::Null) | None => Vec::new(),
                Some(other) => vec![other.to_string()],
            }
        }
        From::Run { on, command } => {
            let ran = ground()?.command(on, command, Vec::new()).map_err(CourseError::Spec)?;
            vec![ran.text.trim().to_owned()]
        }
    })
}

fn part(facts: &Facts, field: Field) -> Vec<String> {
    match field {
        Field::Serial => {
            // openssl writes no zero byte in front of a high bit.
            vec![facts.serial.clone(), facts.serial.trim_start_matches('0').to_owned()]
        }
        Field::Subject => vec![facts.cn.clone(), format!("CN={}", facts.cn)],
        Field::Issuer => vec![facts.issuer_cn.clone(), format!("CN={}", facts.issuer_cn)],
        Field::Sans => facts.dns.iter().cloned().chain(facts.ips.iter().map(ToString::to_string)).collect(),
        Field::NotAfter => {
            let end = i64::try_from(facts.not_after).ok();
            let end = end.and_then(|end| jiff::Timestamp::from_second(end).ok());
            let day = end.map(|end| end.strftime("%Y-%m-%d").to_string());
            end.map(|end| end.to_string()).into_iter().chain(day).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_serial_is_written_does_not_matter() {
        assert_eq!(plain(" 0A:1B:2c "), plain("0a1b2C"));
        let facts = Facts { serial: "00ab12".into(), ..Facts::default() };
        assert!(part(&facts, Field::Serial).contains(&"ab12".to_owned()));
    }

    #[test]
    fn a_choice_is_named_by_its_number_or_its_words_and_a_right_answer_stays() {
        let chapter = Chapter::of(&super::super::folders()[0], "somebody").unwrap();
        let mut progress = Progress { learner: "somebody".into(), ..Progress::default() };
        let question = chapter.exercise.questions.iter().find(|one| !one.choices.is_empty()).unwrap();
        let shown = choices(&chapter, "somebody", question);
        let place = shown.iter().position(|choice| *choice == question.choices[0]).unwrap() + 1;
        let mut say = |text: &str| answer(None, &chapter, &mut progress, &question.name, text).unwrap().right;
        assert!(say(&place.to_string()) && say(&question.choices[0]));
        assert!(!say("99") && !say("0"));
        assert!(progress.marks(chapter.number).answers[&question.name].right);
        assert!(answer(None, &chapter, &mut progress, "nothing", "x").is_err());
    }
}
