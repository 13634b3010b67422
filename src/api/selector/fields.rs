//! Field selectors: `status.phase=Running,spec.nodeName!=node-1`.

use super::SelectorError;

/// One `field=value` or `field!=value`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    pub negated: bool,
}

/// A conjunction of field terms; empty matches everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads `spec.nodeName=node-1,status.phase!=Running`; `\` escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let operator = term.char_indices().find_map(|(at, _)| {
                ["!=", "==", "="].into_iter().find(|symbol| term[at..].starts_with(symbol)).map(|s| (at, s))
            });
            let Some((at, symbol)) = operator else {
                return Err(SelectorError::Term { selector: text.to_owned(), term: term.to_owned() });
            };
            let value = unescape(&term[at + symbol.len()..])?;
            terms.push(FieldTerm { field: term[..at].to_owned(), value, negated: symbol == "!=" });
        }
        Ok(Self { terms })
    }

    /// The value a field must have, when the selector pins it (`metadata.name=web`).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.field == field && !term.negated).map(|term| term.value.as_str())
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// `field` answers a selectable field's value; an unknown one compares as empty.
    pub fn matches(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) != term.negated)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let (mut out, mut chars) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError::Escape(format!("invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                return Err(SelectorError::Escape(format!("unescaped character in value: {}", c as u32)));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_compare_unescape_and_refuse() {
        let selector = FieldSelector::parse("spec.nodeName=node-1,status.phase!=Failed").unwrap();
        assert_eq!(selector.exact("spec.nodeName"), Some("node-1"));
        assert!(selector.matches(|field| (field == "spec.nodeName").then(|| "node-1".into())));
        assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().terms[0].value, "b,c");
        let text = FieldSelector::parse("nonsense").expect_err("no operator").to_string();
        assert_eq!(text, "invalid selector: 'nonsense'; can't understand 'nonsense'");
    }
}
