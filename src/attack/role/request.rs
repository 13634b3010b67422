//! What came back of one question, as it travels from the attacker to whoever judges it.

use serde::{Deserialize, Serialize};

/// An answer, or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// The HTTP status.
    pub status: Option<u16>,
    /// What was looked for is in the body.
    pub found: bool,
    /// The body, or the part of it around what was found.
    pub body: String,
    /// In Go's words, where no answer came.
    pub error: String,
}

/// More of a body is never needed: it fits a pod's termination message.
const LONGEST: usize = 1200;

impl Answer {
    pub fn of(status: u16, body: &[u8], marker: Option<&str>) -> Answer {
        let text = String::from_utf8_lossy(body);
        let at = marker.and_then(|marker| text.find(marker));
        let start = at.unwrap_or_default().saturating_sub(LONGEST / 2);
        let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        let end = (start + LONGEST).min(text.len());
        let end = (start..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(start);
        Answer {
            status: Some(status),
            found: at.is_some(),
            body: text[start..end].into(),
            ..Answer::default()
        }
    }

    /// As a terminal shows it: the status and the body, or the error.
    pub fn plain(&self) -> String {
        match self.status {
            Some(status) => format!("HTTP {status}\n{}", self.body.trim_end()).trim_end().to_owned(),
            None => self.error.clone(),
        }
    }

    /// What a person reads of it: the status and the first line, or the error.
    pub fn line(&self) -> String {
        match self.status {
            Some(status) => {
                // What Kubernetes says in a Status is its message.
                let said: Option<serde_json::Value> = serde_json::from_str(&self.body).ok();
                let said = said.and_then(|tree| Some(tree.get("message")?.as_str()?.to_owned()));
                let text = said.unwrap_or_else(|| self.body.clone());
                let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                format!("{status} {}", first.chars().take(400).collect::<String>()).trim_end().to_owned()
            }
            None => self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_for_is_in_the_part_that_is_kept() {
        let body = "é".repeat(4000) + "marker" + &"y".repeat(4000);
        let answer = Answer::of(200, body.as_bytes(), Some("marker"));
        assert!(answer.found && answer.body.contains("marker") && answer.body.len() <= LONGEST);
        let answer = Answer::of(403, b"Forbidden\n", Some("marker"));
        assert_eq!((answer.found, answer.line().as_str()), (false, "403 Forbidden"));
        assert_eq!(answer.plain(), "HTTP 403\nForbidden");
    }
}
