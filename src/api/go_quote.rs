//! Bytes as Go's `%q` prints them, which many of its errors contain.

use std::fmt::Write;

/// `"\x15\x03\x01"`: what is no printable text is escaped.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0b' => out.push_str("\\v"),
                '\x0c' => out.push_str("\\f"),
                control if control.is_ascii_control() => escaped(&mut out, control as u8),
                other => out.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| escaped(&mut out, *byte));
    }
    out.push('"');
    out
}

fn escaped(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_text_is_escaped_as_in_go() {
        assert_eq!(super::quoted(b"\x15\x03\x01\x00\x02\x02F"), r#""\x15\x03\x01\x00\x02\x02F""#);
        assert_eq!(super::quoted(b"a\"b\\\n\xff"), r#""a\"b\\\n\xff""#);
    }
}
