//! Label and field selectors: what `-l` and `--field-selector` mean and how they fail to parse.
//!
//! Stands for `k8s.io/apimachinery/pkg/{labels,fields}`, with upstream's error texts.

use std::fmt;

use serde_json::Value;

use super::names;

mod fields;

pub use fields::FieldSelector;

/// Why a selector is not one. Displayed texts are upstream's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    #[error("{0}")]
    Syntax(String),
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: {0}")]
    Escape(String),
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One `key operator values`; values are sorted and unique.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

impl Requirement {
    fn new(key: String, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        values.sort();
        values.dedup();
        let fail = |why: String| Err(SelectorError::Requirement(why));
        if let Some(why) = names::qualified_name(&key).first() {
            return fail(format!("<nil>: Invalid value: {key:?}: {why}"));
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(why) = names::label_value(value).first() {
                return fail(format!("values[{index}][{key}]: Invalid value: {value:?}: {why}"));
            }
        }
        if matches!(operator, Operator::GreaterThan | Operator::LessThan)
            && values.iter().any(|value| value.parse::<i64>().is_err())
        {
            return fail(format!(
                "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                values[0]
            ));
        }
        Ok(Self { key, operator, values })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let contained = || value.is_some_and(|value| self.values.iter().any(|own| own == value));
        match self.operator {
            Operator::In | Operator::Equals => contained(),
            Operator::NotIn | Operator::NotEquals => !contained(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let parse = |text: &str| text.parse::<i64>().ok();
                let (Some(left), Some(right)) =
                    (value.and_then(parse), self.values.first().and_then(|text| parse(text)))
                else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { left > right } else { left < right }
            }
        }
    }
}

/// A conjunction of requirements; empty matches everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// A nil `LabelSelector` object: matches nothing.
    nothing: bool,
}

impl LabelSelector {
    /// Reads `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = Parser { tokens: scan(text), at: 0 }.selector()?;
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `metav1.LabelSelector` object. Absent matches nothing, empty matches everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|value| !value.is_null()) else {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        };
        let mut found = Self::from_map(&selector["matchLabels"])?;
        for one in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match one["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            let values = one["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let key = one["key"].as_str().unwrap_or_default().to_owned();
            found.requirements.push(Requirement::new(key, operator, values)?);
        }
        Ok(found)
    }

    /// Reads a plain map, as a Service's selector is. Absent or empty matches everything.
    pub fn from_map(map: &Value) -> Result<Self, SelectorError> {
        let pairs = map.as_object().into_iter().flatten();
        let requirements = pairs
            .map(|(key, value)| {
                let value = value.as_str().unwrap_or_default().to_owned();
                Requirement::new(key.clone(), Operator::Equals, vec![value])
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements, nothing: false })
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// `labels` is `metadata.labels`, absent or null included.
    pub fn matches(&self, labels: &Value) -> bool {
        self.matches_by(|key| labels.get(key).and_then(Value::as_str))
    }

    /// As `matches`, for labels held in another shape.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|one| one.matches(label(&one.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.requirements.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            let (key, values) = (&one.key, one.values.join(","));
            match one.operator {
                Operator::In => write!(out, "{key} in ({values})")?,
                Operator::NotIn => write!(out, "{key} notin ({values})")?,
                Operator::Equals => write!(out, "{key}={values}")?,
                Operator::NotEquals => write!(out, "{key}!={values}")?,
                Operator::Exists => out.write_str(key)?,
                Operator::DoesNotExist => write!(out, "!{key}")?,
                Operator::GreaterThan => write!(out, "{key}>{values}")?,
                Operator::LessThan => write!(out, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

/// Words and the symbols `! = == != ( ) , < >`; `in` and `notin` are words until an operator is expected.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Symbol(symbol) => symbol,
            Self::End => "",
        }
    }
}

fn scan(text: &str) -> Vec<Token> {
    const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"];
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let ends = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
            let (word, tail) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
            tokens.push(Token::Word(word.to_owned()));
            rest = tail;
        }
        rest = rest.trim_start();
    }
    tokens.push(Token::End);
    tokens
}

/// Recursive descent over the tokens.
struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut found = Vec::new();
        let starts = |token: &Token| matches!(token, Token::Word(_) | Token::Symbol("!"));
        loop {
            match self.peek() {
                Token::End => return Ok(found),
                token if starts(token) => found.push(self.requirement()?),
                token => {
                    let text = token.text();
                    return Err(SelectorError::Syntax(format!(
                        "found '{text}', expected: !, identifier, or 'end of string'"
                    )));
                }
            }
            match self.take() {
                Token::End => return Ok(found),
                Token::Symbol(",") if starts(self.peek()) => {}
                Token::Symbol(",") => {
                    let text = format!("found '{}', expected: identifier after ','", self.peek().text());
                    return Err(SelectorError::Syntax(text));
                }
                other => {
                    let text = format!("found '{}', expected: ',' or 'end of string'", other.text());
                    return Err(SelectorError::Syntax(text));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = *self.peek() == Token::Symbol("!");
        if absent {
            self.take();
        }
        let key = self.word()?;
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        if let Some(why) = names::qualified_name(&key).first() {
            return Err(SelectorError::Requirement(format!("<nil>: Invalid value: {key:?}: {why}")));
        }
        let operator = self.take();
        let operator = match operator.text() {
            "=" | "==" => Operator::Equals,
            "!=" => Operator::NotEquals,
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            text => {
                let text = format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt");
                return Err(SelectorError::Requirement(text));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            _ if matches!(self.peek(), Token::End | Token::Symbol(",")) => vec![String::new()],
            _ => vec![self.word()?],
        };
        Requirement::new(key, operator, values)
    }

    fn word(&mut self) -> Result<String, SelectorError> {
        match self.take() {
            Token::Word(word) => Ok(word),
            other => {
                Err(SelectorError::Requirement(format!("found '{}', expected: identifier", other.text())))
            }
        }
    }

    /// `(a,b)`; an empty place is the empty value.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        let fail = |text: String| Err(SelectorError::Requirement(text));
        let open = self.take();
        if open != Token::Symbol("(") {
            return fail(format!("found '{}' expected: '('", open.text()));
        }
        let (mut values, mut last) = (Vec::new(), String::new());
        loop {
            match self.take() {
                Token::Word(word) if last.is_empty() => last = word,
                Token::Symbol(",") => values.push(std::mem::take(&mut last)),
                Token::Symbol(")") => {
                    values.push(last);
                    return Ok(values);
                }
                other if last.is_empty() => {
                    return fail(format!("found '{}', expected: ',', ')' or identifier", other.text()));
                }
                other => return fail(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operator_selects_what_upstream_selects() {
        let labels = json!({"app": "web", "tier": "front", "weight": "5", "empty": ""});
        for (text, expect) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, db),tier notin (back)", true),
            ("app notin (web)", false),
            ("missing notin (x)", true),
            ("missing!=x", true),
            ("app", true),
            ("!app", false),
            ("! missing", true),
            ("weight>4,weight<6", true),
            ("weight>5", false),
            ("empty=", true),
            ("empty in ()", true),
            ("app in (,web)", true),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.matches(&labels), expect, "{text}");
        }
    }

    #[test]
    fn malformed_label_selectors_fail_with_upstreams_texts() {
        for (text, expect) in [
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "a^=b",
                "unable to parse requirement: <nil>: Invalid value: \"a^\": name part must consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                 character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(text).expect_err(text).to_string(), expect);
        }
    }

    #[test]
    fn selector_objects_treat_absent_and_empty_differently() {
        let labels = json!({"app": "web"});
        assert!(!LabelSelector::from_object(None).unwrap().matches(&labels));
        assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches(&labels));
        let object = json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_object(Some(&object)).unwrap();
        assert!(selector.matches(&labels));
        assert_eq!(selector.to_string(), "app=web,!tier");
    }
}
