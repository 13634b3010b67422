//! Which strings may be names, labels and keys, with the texts upstream refuses others with.
//!
//! Stands for `k8s.io/apimachinery/pkg/util/validation`. Each function answers the reasons a text is
//! not valid; none means it is.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation \
    is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
    or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
    is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with \
    an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used \
    for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' \
    or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
    regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other \
    than '='";

fn too_long(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} bytes"))
}

/// Non-empty, ends on `edge`, everything between is `edge` or one of `middle`.
fn shaped(text: &str, edge: fn(char) -> bool, middle: &str) -> bool {
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || middle.contains(c))
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// A namespace, container or volume name.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let shape = (!shaped(text, lower, "-")).then(|| LABEL.to_owned());
    too_long(text, 63).into_iter().chain(shape).collect()
}

/// Most objects' names.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let good = text.split('.').all(|part| shaped(part, lower, "-"));
    too_long(text, 253).into_iter().chain((!good).then(|| SUBDOMAIN.to_owned())).collect()
}

/// A service's name.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let good = shaped(text, lower, "-") && text.starts_with(|c: char| c.is_ascii_lowercase());
    too_long(text, 63).into_iter().chain((!good).then(|| LABEL_1035.to_owned())).collect()
}

/// RBAC names: anything that fits in one path segment.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => {
            let found = ["/", "%"].into_iter().filter(|bad| text.contains(bad));
            found.map(|bad| format!("may not contain '{bad}'")).collect()
        }
    }
}

/// A label or annotation key: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                reasons.push("prefix part must be non-empty".to_owned());
            } else {
                reasons.extend(dns1123_subdomain(prefix).iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
    };
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else {
        reasons.extend(too_long(name, 63).map(|why| format!("name part {why}")));
    }
    if !shaped(name, alphanumeric, "-_.") {
        reasons.push(format!("name part {QUALIFIED}"));
    }
    reasons
}

pub fn label_value(text: &str) -> Vec<String> {
    let good = text.is_empty() || shaped(text, alphanumeric, "-_.");
    too_long(text, 63).into_iter().chain((!good).then(|| LABEL_VALUE.to_owned())).collect()
}

/// A key in a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let good = !text.is_empty() && text.chars().all(|c| alphanumeric(c) || "-_.".contains(c));
    let mut reasons: Vec<String> = too_long(text, 253).into_iter().collect();
    reasons.extend((!good).then(|| CONFIG_KEY.to_owned()));
    match text {
        "." => reasons.push("must not be '.'".to_owned()),
        ".." => reasons.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => reasons.push("must not start with '..'".to_owned()),
        _ => {}
    }
    reasons
}

/// An environment variable's name, by the relaxed rule that is default since 1.34.
pub fn env_name(text: &str) -> Vec<String> {
    let good = !text.is_empty() && text.chars().all(|c| (' '..='~').contains(&c) && c != '=');
    (!good).then(|| ENV_NAME.to_owned()).into_iter().collect()
}

/// A port's name (IANA_SVC_NAME).
pub fn port_name(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if text.len() > 15 {
        reasons.push("must be no more than 15 characters".to_owned());
    }
    if !text.chars().all(|c| lower(c) || c == '-') {
        reasons.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        reasons.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        reasons.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        reasons.push("must not begin or end with a hyphen".to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused_as_upstream_does() {
        assert!(dns1123_subdomain("web-1.example").is_empty());
        assert_eq!(dns1123_subdomain("Web")[0], SUBDOMAIN);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(qualified_name("example.com/My.Name").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
        assert!(path_segment("system:node").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
    }
}
