//! Paths as Go's `path` package writes them.

/// `path.Clean` below the root: no empty parts, no dots, no way up past the root, no slash at the end.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        for (path, want) in [
            ("", "/"),
            ("/a//b/./c/", "/a/b/c"),
            ("../../etc", "/etc"),
            ("/a/../..", "/"),
            ("a/..b", "/a/..b"),
        ] {
            assert_eq!(clean(path), want);
        }
    }
}
