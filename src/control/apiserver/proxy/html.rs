//! The links inside an HTML page (`proxy.Transport.rewriteHTML`).
//!
//! Pages are read tag by tag, as a browser's tokenizer does: comments, and what stands in scripts and
//! styles, are text. Only the values of attributes that hold a link are written anew; upstream, whose
//! library takes tags apart, also writes the rest of each tag in its own spelling.

/// Which attributes of which tags are links (`atomsToAttrs`).
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Between these and their end there are no tags.
const TEXTS: [&str; 9] =
    ["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// The page with every link given to `to`.
pub fn rewrite(page: &[u8], to: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut at = 0;
    while let Some(offset) = find(&page[at..], b"<") {
        let start = at + offset;
        out.extend_from_slice(&page[at..start]);
        let after = &page[start + 1..];
        let end = match after.first() {
            Some(first) if first.is_ascii_alphabetic() => match tag(page, start, &to, &mut out) {
                Some(end) => {
                    at = end;
                    continue;
                }
                None => page.len(),
            },
            Some(b'!') if after.starts_with(b"!--") => past(page, start + 4, b"-->"),
            Some(b'!' | b'?' | b'/') => past(page, start + 1, b">"),
            _ => start + 1,
        };
        out.extend_from_slice(&page[start..end]);
        at = end;
    }
    out.extend_from_slice(&page[at..]);
    out
}

/// One tag that begins at `start`, with the text that belongs to it; nothing when it has no end.
fn tag(page: &[u8], start: usize, to: &impl Fn(&[u8]) -> Vec<u8>, out: &mut Vec<u8>) -> Option<usize> {
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == b'/';
    let mut at = start + 1;
    while !is_space(*page.get(at)?) && page[at] != b'>' {
        at += 1;
    }
    let name = String::from_utf8_lossy(&page[start + 1..at]).to_ascii_lowercase();
    let links = LINKS.iter().find(|(tag, _)| *tag == name).map_or(&[][..], |(_, attributes)| attributes);
    let mut written = Vec::new();
    let mut from = start;
    loop {
        while is_space(*page.get(at)?) {
            at += 1;
        }
        if page[at] == b'>' {
            at += 1;
            break;
        }
        let attribute = attribute(page, at)?;
        at = attribute.end;
        let key = String::from_utf8_lossy(&page[attribute.key.clone()]).to_ascii_lowercase();
        let Some(value) = attribute.value.filter(|_| links.contains(&key.as_str())) else { continue };
        let old = plain(&page[value.clone()]);
        let new = to(&old);
        if new != old {
            written.extend_from_slice(&page[from..attribute.key.end]);
            written.extend_from_slice(b"=\"");
            written.extend(escaped(&new));
            written.push(b'"');
            from = at;
        }
    }
    written.extend_from_slice(&page[from..at]);
    out.extend(written);
    if TEXTS.contains(&name.as_str()) {
        let end = text_end(page, at, &name);
        out.extend_from_slice(&page[at..end]);
        at = end;
    }
    Some(at)
}

struct Attribute {
    key: std::ops::Range<usize>,
    /// Without its quotes.
    value: Option<std::ops::Range<usize>>,
    end: usize,
}

fn attribute(page: &[u8], start: usize) -> Option<Attribute> {
    let ends_key = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>' | b'=');
    // A key may begin with `=`.
    let mut at = start + 1;
    while !ends_key(*page.get(at)?) {
        at += 1;
    }
    let key = start..at;
    let mut next = at;
    while page.get(next)?.is_ascii_whitespace() {
        next += 1;
    }
    if page[next] != b'=' {
        return Some(Attribute { key, value: None, end: at });
    }
    next += 1;
    while page.get(next)?.is_ascii_whitespace() {
        next += 1;
    }
    let value = match page[next] {
        b'>' => return Some(Attribute { key, value: None, end: next }),
        quote @ (b'"' | b'\'') => {
            let length = find(&page[next + 1..], &[quote])?;
            next + 1..next + 1 + length
        }
        _ => {
            let length = page[next..].iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>')?;
            next..next + length
        }
    };
    let end = value.end + usize::from(matches!(page[next], b'"' | b'\''));
    Some(Attribute { key, value: Some(value), end })
}

/// Where the text of a `<script>` and its like ends: at its own end tag.
fn text_end(page: &[u8], start: usize, name: &str) -> usize {
    let mut at = start;
    while let Some(offset) = find(&page[at..], b"</") {
        at += offset;
        let after = page.get(at + 2..at + 2 + name.len());
        let next = page.get(at + 2 + name.len());
        let ends = next.is_none_or(|next| next.is_ascii_whitespace() || matches!(next, b'/' | b'>'));
        if ends && name != "plaintext" && after.is_some_and(|text| text.eq_ignore_ascii_case(name.as_bytes()))
        {
            return at;
        }
        at += 2;
    }
    page.len()
}

fn past(page: &[u8], from: usize, what: &[u8]) -> usize {
    let from = from.min(page.len());
    find(&page[from..], what).map_or(page.len(), |at| from + at + what.len())
}

fn find(page: &[u8], what: &[u8]) -> Option<usize> {
    page.windows(what.len()).position(|window| window == what)
}

/// The references that links have in practice.
const REFERENCES: [(&[u8], u8); 5] =
    [(b"&amp;", b'&'), (b"&lt;", b'<'), (b"&gt;", b'>'), (b"&#34;", b'"'), (b"&#39;", b'\'')];

fn plain(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let found = REFERENCES.iter().find(|(name, _)| value[at..].starts_with(name));
        out.push(found.map_or(value[at], |(_, byte)| *byte));
        at += found.map_or(1, |(name, _)| name.len());
    }
    out
}

fn escaped(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match REFERENCES.iter().find(|(_, plain)| plain == byte) {
            Some((name, _)) => out.extend_from_slice(name),
            None => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(page: &str) -> String {
        let to = |link: &[u8]| match link.starts_with(b"/") {
            true => [b"/proxy".as_slice(), link].concat(),
            false => link.to_owned(),
        };
        String::from_utf8(rewrite(page.as_bytes(), to)).unwrap()
    }

    #[test]
    fn links_are_rewritten_and_nothing_else() {
        for (page, want) in [
            (r#"<a href="/foo">x</a>"#, r#"<a href="/proxy/foo">x</a>"#),
            (r#"<A class=x HREF='/foo?a=1&amp;b' >"#, r#"<A class=x HREF="/proxy/foo?a=1&amp;b" >"#),
            (
                "<img src=/a.png alt=/b><form action = \"/f\">",
                "<img src=\"/proxy/a.png\" alt=/b><form action=\"/proxy/f\">",
            ),
            ("<link href=\"/a.css\"/><br/>", "<link href=\"/proxy/a.css\"/><br/>"),
            (r#"<a href="other" title="/t">"#, r#"<a href="other" title="/t">"#),
            (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/proxy/y">"#),
            (
                r#"<script src="/s.js">if (a<b) '<a href="/x">'</script><a href="/y">"#,
                r#"<script src="/proxy/s.js">if (a<b) '<a href="/x">'</script><a href="/proxy/y">"#,
            ),
            ("1 < 2 <a href=\"/unfinished", "1 < 2 <a href=\"/unfinished"),
            ("<a href>", "<a href>"),
            ("<a href=>", "<a href=>"),
        ] {
            assert_eq!(through(page), want, "{page}");
        }
    }

    #[test]
    fn no_cut_page_makes_it_panic() {
        let page =
            br#"<!doctype html><a href='/x'  b = c><script>x</scr</script><!-- - --><img src=/a.png/>"#;
        for start in 0..page.len() {
            for end in start..page.len() {
                rewrite(&page[start..end], |link| link.to_owned());
            }
        }
    }
}
