//! Reading CRI log files: `TIME STREAM TAG TEXT` lines to what `kubectl logs` shows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use jiff::Timestamp;

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<&'static str>,
}

/// Adds a CRI line's text to the output; nothing of a line that is not wanted or broken. `fresh`: what was
/// added last ended its line, so that this begins one and has its time in front (`logWriter.write`).
pub fn render(line: &[u8], wanted: &Wanted, fresh: &mut bool, out: &mut Vec<u8>) -> Option<()> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if wanted.stream.is_some_and(|only| only.as_bytes() != stream) {
        return None;
    }
    if let Some(since) = wanted.since
        && std::str::from_utf8(time).ok()?.parse::<Timestamp>().ok()? < since
    {
        return None;
    }
    if wanted.timestamps && *fresh {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    let partial = tag.first() == Some(&b'P') && matches!(tag.get(1), None | Some(b':'));
    out.extend_from_slice(text.strip_suffix(b"\n").unwrap_or(text));
    if !partial {
        out.push(b'\n');
    }
    *fresh = !partial;
    Some(())
}

/// Where the last `lines` lines of a file begin. A last line without an end counts.
pub fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 4096;
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let (mut at, mut left) = (end, lines);
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(4096)];
    while at > 0 {
        let size = at.min(BLOCK);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        let block = &mut block[..usize::try_from(size).unwrap_or_default()];
        file.read_exact(block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = at + u64::try_from(index).unwrap_or_default();
            // The newline that ends the file ends the last line; it begins none.
            if *byte == b'\n' && position + 1 < end {
                left -= 1;
                if left == 0 {
                    return Ok(position + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_with_and_without_their_time_and_partial_ones_are_joined() {
        let render = |line: &[u8], wanted: &Wanted| {
            let mut out = Vec::new();
            super::render(line, wanted, &mut true, &mut out).map(|()| out)
        };
        let plain = Wanted::default();
        let line = b"2026-11-22T07:06:37.123456789Z stdout F hello  world\n";
        assert_eq!(render(line, &plain).unwrap(), b"hello  world\n");
        let stamped = Wanted { timestamps: true, ..Wanted::default() };
        assert_eq!(render(line, &stamped).unwrap(), b"2026-11-22T07:06:37.123456789Z hello  world\n");
        assert_eq!(render(b"2026-11-22T07:06:37Z stderr P abc\n", &plain).unwrap(), b"abc");
        assert_eq!(render(b"2026-11-22T07:06:37Z stdout F \n", &plain).unwrap(), b"\n");
        assert_eq!(render(b"broken", &plain), None);
        let late = Wanted { since: Some("2026-11-22T07:06:38Z".parse().unwrap()), ..Wanted::default() };
        assert_eq!(render(line, &late), None);
        let errors = Wanted { stream: Some("stderr"), ..Wanted::default() };
        assert_eq!(render(line, &errors), None);
    }

    #[test]
    fn a_long_line_in_parts_has_its_time_once() {
        let (stamped, mut fresh) = (Wanted { timestamps: true, ..Wanted::default() }, true);
        let mut out = Vec::new();
        for line in [&b"T1 stdout P aa\n"[..], b"T2 stdout P bb\n", b"T3 stdout F cc\n", b"T4 stdout F dd\n"]
        {
            render(line, &stamped, &mut fresh, &mut out).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "T1 aabbcc\nT4 dd\n");
    }

    #[test]
    fn the_tail_begins_where_the_last_lines_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut text = "x".repeat(5000);
        text.push_str("\nsecond\nthird\n");
        std::fs::write(&path, &text).unwrap();
        let start = |lines| tail_start(&mut File::open(&path).unwrap(), lines).unwrap();
        assert_eq!(start(1), 5008);
        assert_eq!(start(2), 5001);
        assert_eq!((start(3), start(9)), (0, 0));
        assert_eq!(start(0), u64::try_from(text.len()).unwrap());
    }
}
