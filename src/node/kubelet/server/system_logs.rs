//! `/logs/`: the node's /var/log, as Go's file server shows it (`enableSystemLogHandler`, on by default).

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LAST_MODIFIED, LOCATION};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio_util::io::ReaderStream;

use super::Kubelet;
use super::call::{Call, http_error};
use super::log_query::LogQuery;
use super::routes::not_found;

const ROOT: &str = "/var/log";
/// A line longer than this is cut, so that no file can fill the memory.
const LONGEST_LINE: u64 = 1 << 20;

pub async fn answer(me: &Kubelet, call: &Call) -> Response {
    let root = Path::new(ROOT);
    let path = call.path.strip_prefix("/logs/").unwrap_or_default();
    if !me.config.handlers.system_log_query {
        return file(root, path).await;
    }
    let query = match LogQuery::read(call) {
        Ok(None) => return file(root, path).await,
        Ok(Some(query)) => query,
        Err(wrong) => return http_error(StatusCode::BAD_REQUEST, wrong),
    };
    if !path.is_empty() {
        return http_error(StatusCode::NOT_ACCEPTABLE, "path not allowed in query mode");
    }
    if let Some(wrong) = query.complaint(root) {
        return http_error(StatusCode::NOT_ACCEPTABLE, wrong);
    }
    match query.files.first() {
        Some(name) => file(root, name).await,
        None => services(query).await,
    }
}

/// The logs of services, by upstream's guesses at their names.
async fn services(query: LogQuery) -> Response {
    let found = tokio::task::spawn_blocking(move || {
        let mut out = String::new();
        for service in &query.services {
            let names = [service.clone(), format!("{service}.log"), format!("{service}/{service}.log")];
            let paths = names.iter().filter_map(|name| inside(Path::new(ROOT), name));
            match paths.into_iter().find(|path| path.is_file()) {
                Some(path) => out += &chosen(&path, &query),
                None => out += &format!("\nlog not found for {service}\n"),
            }
        }
        out
    });
    let text = found.await.unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// The lines of a file that are asked for.
fn chosen(path: &Path, query: &LogQuery) -> String {
    let Ok(file) = std::fs::File::open(path) else { return String::new() };
    let mut kept = VecDeque::new();
    let most = query.tail.unwrap_or(usize::MAX);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while let Ok(1..) = Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        if query.pattern.as_ref().is_some_and(|pattern| !text.contains(pattern.as_str())) {
            continue;
        }
        kept.push_back(text);
        if kept.len() > most {
            kept.pop_front();
        }
    }
    kept.into_iter().collect()
}

async fn file(root: &Path, path: &str) -> Response {
    // Links are followed, but only to what is below the root as well.
    let Some(target) = inside(root, path) else { return not_found() };
    if target.is_dir() {
        // Links in a listing are relative, so a directory's address must end in a slash.
        if !path.is_empty() && !path.ends_with('/') {
            let name = path.rsplit('/').next().unwrap_or_default();
            return (StatusCode::MOVED_PERMANENTLY, [(LOCATION, format!("{name}/"))]).into_response();
        }
        let html = [(CONTENT_TYPE, "text/html; charset=utf-8")];
        return (html, listing(&target)).into_response();
    }
    match tokio::fs::File::open(&target).await {
        Ok(file) => {
            let plain =
                [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (LAST_MODIFIED, modified(&target))];
            (plain, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Err(_) => not_found(),
    }
}

fn modified(path: &Path) -> String {
    let time = path.metadata().and_then(|meta| meta.modified()).ok();
    let time = time.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    let target = root.join(path.trim_start_matches('/')).canonicalize().ok()?;
    (target.starts_with(&root) && (target.is_dir() || target.is_file())).then_some(target)
}

/// As Go's http.FileServer writes a directory.
fn listing(dir: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
    };
    let rows: String = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escape(name))).collect();
    format!("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{rows}</pre>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_root_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(root.join("a"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        assert!(inside(&root, "a").is_some() && inside(&root, "").is_some());
        assert!(inside(&root, "out").is_none() && inside(&root, "../secret").is_none());
        assert!(listing(&root).contains("<a href=\"a\">a</a>"));
    }

    #[test]
    fn a_query_chooses_lines_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.log");
        std::fs::write(&path, "one\ntwo x\nthree x\n").unwrap();
        let query = |tail, pattern: Option<&str>| LogQuery {
            tail,
            pattern: pattern.map(str::to_owned),
            ..LogQuery::default()
        };
        assert_eq!(chosen(&path, &query(Some(1), None)), "three x\n");
        assert_eq!(chosen(&path, &query(None, Some("x"))), "two x\nthree x\n");
    }
}
