//! `--token-auth-file`: tokens in a CSV file that never change while the server runs
//! (`authentication/token/tokenfile`).

use std::collections::{BTreeMap, HashMap};

use super::super::user::UserInfo;

/// Owners by token.
pub(super) struct StaticTokens(HashMap<String, UserInfo>);

impl StaticTokens {
    /// Reads lines of `token,user,uid[,"group,group"]`.
    ///
    /// # Errors
    /// Upstream's text for a line with less than three columns.
    pub(super) fn from_csv(text: &str, path: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fields = fields(line);
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(format!(
                    "token file '{path}' must have at least 3 columns (token, user name, user uid), found {}",
                    fields.len()
                ));
            };
            if token.is_empty() {
                tracing::warn!(path, line = at + 1, "empty token has been found in token file");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim);
            let user = UserInfo {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                extra: BTreeMap::new(),
            };
            if tokens.insert(token.clone(), user).is_some() {
                tracing::warn!(path, line = at + 1, "duplicate token has been found in token file");
            }
        }
        Ok(Self(tokens))
    }

    pub(super) fn owner(&self, token: &str) -> Option<&UserInfo> {
        self.0.get(token)
    }
}

/// One line of CSV; quotes around a field are doubled inside it.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields.into_iter().map(|field| field.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_token_user_uid_and_groups() {
        let text = "abc,jane,7,\"devs, ops\"\n\n,nobody,1\ndef,joe,8\n";
        let tokens = StaticTokens::from_csv(text, "t.csv").unwrap();
        assert_eq!(tokens.owner("abc").unwrap().groups, ["devs", "ops"]);
        assert_eq!((tokens.owner("def").unwrap().uid.as_str(), tokens.owner("")), ("8", None));
        let error = StaticTokens::from_csv("abc,jane\n", "t.csv").err().unwrap();
        assert!(error.contains("at least 3 columns"), "{error}");
    }
}
