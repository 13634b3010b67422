//! Lists as Go prints them: `%q` of a slice of strings, `["a" "b"]`, which many API errors contain.

/// A list with its items quoted and separated by blanks.
pub fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn items_are_quoted_and_no_comma_is_between_them() {
        assert_eq!(super::quoted(&["a", "b c"]), "[\"a\" \"b c\"]");
        assert_eq!(super::quoted::<&str>(&[]), "[]");
    }
}
