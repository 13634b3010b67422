//! Image names, completed as Docker does: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;

use super::ImageError;

/// A complete image name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// With registry: `docker.io/library/nginx`.
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

impl Reference {
    /// Reads and completes a name.
    pub fn parse(name: &str) -> Result<Reference, ImageError> {
        let invalid = |why| ImageError::InvalidName { name: name.to_owned(), why };
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(invalid("")),
            None => (name, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(""));
        }
        let (registry, path) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", path),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid(": repository name must be lowercase"));
        }
        let host = registry.split(':').next().unwrap_or_default();
        if !path.split('/').all(is_component) || !host.split('.').all(is_component) {
            return Err(invalid(""));
        }
        let library = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { repository: format!("{registry}/{library}{path}"), tag, digest })
    }

    /// Whether an image of this tag may be meant.
    pub fn selects(&self, tag: &str) -> bool {
        self.tag.as_deref().is_none_or(|wanted| wanted == tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(out, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(out, "@{digest}"))
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word);
    ends && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("minilab/toolbox", "docker.io/minilab/toolbox:latest"),
            ("docker.io/minilab/toolbox:v1", "docker.io/minilab/toolbox:v1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), full);
        }
    }

    #[test]
    fn names_that_are_none_are_refused_in_upstreams_words() {
        let text = Reference::parse("Nginx").unwrap_err().to_string();
        assert!(text.contains("couldn't parse image name \"Nginx\": invalid reference format"), "{text}");
        for bad in ["", "a b", "a:", "a//b", "a@sha256:12", "../x", "a:b/c:d e"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
