//! Container output as CRI log lines: `2026-11-22T07:12:54.123456789Z stdout F text`.
//!
//! A line longer than 16 KiB is written in parts tagged `P`, as containerd does; so is what a program
//! printed last without a newline. The kubelet rotates: it moves the file and asks for it to be opened anew.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const LONGEST_PART: usize = 16 * 1024;

/// Where a piece of output came from. Of a terminal everything is `stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// One container's log file.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    rest: [Vec<u8>; 2],
}

impl Log {
    /// Opens the file, making its directory.
    pub fn open(path: &Path) -> io::Result<Log> {
        Ok(Log { path: path.to_owned(), file: append(path)?, rest: Default::default() })
    }

    /// Opens the file at the same path anew.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        Ok(())
    }

    /// Writes the whole lines among what arrived and keeps the rest for later.
    pub fn write(&mut self, source: Source, bytes: &[u8], now: &str) -> io::Result<()> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let rest = &mut self.rest[source as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    rest.extend_from_slice(end);
                    parts(&mut out, source, rest, now);
                    line(&mut out, source, "F", rest, now);
                    rest.clear();
                }
                None => {
                    rest.extend_from_slice(piece);
                    parts(&mut out, source, rest, now);
                }
            }
        }
        self.file.write_all(&out)
    }

    /// Writes what has no newline yet: nothing more will come.
    pub fn finish(&mut self, now: &str) -> io::Result<()> {
        let mut out = Vec::new();
        for source in [Source::Stdout, Source::Stderr] {
            let rest = std::mem::take(&mut self.rest[source as usize]);
            if !rest.is_empty() {
                line(&mut out, source, "P", &rest, now);
            }
        }
        self.file.write_all(&out)
    }
}

/// Moves full parts from `rest` to `out`; a line of exactly the longest length is one full line.
fn parts(out: &mut Vec<u8>, source: Source, rest: &mut Vec<u8>, now: &str) {
    while rest.len() > LONGEST_PART {
        let part: Vec<u8> = rest.drain(..LONGEST_PART).collect();
        line(out, source, "P", &part, now);
    }
}

fn line(out: &mut Vec<u8>, source: Source, tag: &str, text: &[u8], now: &str) {
    let source = match source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
    };
    out.extend_from_slice(format!("{now} {source} {tag} ").as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::options().create(true).append(true).open(path)
}

/// The time as log lines and statuses have it.
pub fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[(Source, &[u8])]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c/0.log");
        let mut log = Log::open(&path).unwrap();
        for (source, piece) in pieces {
            log.write(*source, piece, "T").unwrap();
        }
        log.finish("T").unwrap();
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_split_over_reads_are_joined_and_streams_kept_apart() {
        let text = written(&[
            (Source::Stdout, b"one\ntw"),
            (Source::Stderr, b"oops\n"),
            (Source::Stdout, b"o\n\nend"),
        ]);
        assert_eq!(text, "T stdout F one\nT stderr F oops\nT stdout F two\nT stdout F \nT stdout P end\n");
    }

    #[test]
    fn a_long_line_becomes_parts_of_16_kib() {
        let text = written(&[(Source::Stdout, &[b'x'; 40_000]), (Source::Stdout, b"\n")]);
        let lengths: Vec<(usize, &str)> =
            text.lines().map(|line| (line.len() - "T stdout P ".len(), &line[9..10])).collect();
        assert_eq!(lengths, [(16_384, "P"), (16_384, "P"), (7_232, "F")]);
    }

    #[test]
    fn times_have_nine_digits_after_the_second() {
        assert_eq!(now().len(), "2026-11-22T07:12:54.123456789Z".len());
    }
}
