//! Component command lines as Go's pflag reads them.
//!
//! Roles accept the real components' flags. One that upstream has and we do not implement is accepted
//! with a warning, so that a real manifest can be pasted; an unknown word stays an error (clap's).

/// Splits off the real flags a role does not implement.
///
/// `unimplemented` lists their names; a trailing `=` marks one that takes a value. Returns the
/// arguments left for the role's own parser and the names that were dropped, for one warning each.
pub fn sift(argv: Vec<String>, unimplemented: &[&str]) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut dropped) = (Vec::with_capacity(argv.len()), Vec::new());
    let mut words = argv.into_iter();
    while let Some(word) = words.next() {
        let body = word.trim_start_matches('-');
        let name = body.split('=').next().unwrap_or_default();
        let known =
            unimplemented.iter().find(|flag| word.starts_with('-') && flag.trim_end_matches('=') == name);
        match known {
            None => kept.push(word),
            Some(flag) => {
                if flag.ends_with('=') && !body.contains('=') {
                    words.next();
                }
                dropped.push(format!("--{name}"));
            }
        }
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_but_unimplemented_flags_are_dropped_with_their_values() {
        let argv = ["--v=2", "--profiling", "--max-requests", "9", "--known=x"].map(String::from).to_vec();
        let (kept, dropped) = sift(argv, &["v=", "profiling", "max-requests="]);
        assert_eq!(kept, ["--known=x"]);
        assert_eq!(dropped, ["--v", "--profiling", "--max-requests"]);
    }
}
