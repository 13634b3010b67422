//! One HTTP question as the attacker is told to ask it.

use serde_json::Value;

/// The question: a URL and what more there is to say.
#[derive(Debug, Default, Clone)]
pub struct Question {
    url: String,
    more: Vec<String>,
}

impl Question {
    pub fn get(url: impl Into<String>) -> Question {
        Question { url: url.into(), more: Vec::new() }
    }

    pub fn method(self, method: &str) -> Question {
        self.with("--method", method)
    }

    /// Looks for this in the answer.
    pub fn find(self, what: &str) -> Question {
        self.with("--find", what)
    }

    pub fn json(self, kind: &str, body: &Value) -> Question {
        self.with("--content-type", kind).with("--data", &body.to_string())
    }

    /// Shows a client certificate; the file is the host's.
    pub fn identity(self, path: &str) -> Question {
        self.with("--identity", path)
    }

    /// Asks again for some seconds while nobody answers.
    pub fn patient(mut self) -> Question {
        self.more.push("--patient".into());
        self
    }

    /// Types this, once it is a WebSocket.
    pub fn typing(self, text: &str) -> Question {
        self.websocket().with("--data", text)
    }

    /// By WebSocket, as `kubectl exec` does.
    pub fn websocket(mut self) -> Question {
        self.more.push("--websocket".into());
        self
    }

    fn with(mut self, flag: &str, value: &str) -> Question {
        self.more.push(format!("{flag}={value}"));
        self
    }

    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["attacker".to_owned(), "http".into(), self.url.clone()];
        words.extend(self.more.iter().cloned());
        words
    }
}
