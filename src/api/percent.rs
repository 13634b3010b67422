//! Percent escapes in URLs and header names, undone as Go undoes them.

/// The text that percent escapes stand for; bytes that are no UTF-8 become U+FFFD.
pub fn unescape(text: &str) -> String {
    String::from_utf8(unescape_bytes(text.as_bytes()))
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The bytes that percent escapes stand for, whatever they are; a broken escape stays as it is.
pub fn unescape_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |index: usize| bytes.get(index).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_bytes_and_broken_ones_stay() {
        assert_eq!(unescape("a%20b%2Fc"), "a b/c");
        assert_eq!(unescape("100%, %zz, %4"), "100%, %zz, %4");
        assert_eq!(unescape_bytes(b"%ff%00"), [255, 0]);
    }
}
