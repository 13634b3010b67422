//! `/logs/`: the node's /var/log, as a file server shows it (`enableSystemLogHandler`, on by default).

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;

const ROOT: &str = "/var/log";

pub async fn root() -> Response {
    answer(Path::new(ROOT), "").await
}

pub async fn file(extract::Path(path): extract::Path<String>) -> Response {
    answer(Path::new(ROOT), &path).await
}

async fn answer(root: &Path, path: &str) -> Response {
    let missing = || (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    // Links are followed, but only to what is below the root as well.
    let Some(target) = inside(root, path) else { return missing() };
    if target.is_dir() {
        let html = [(CONTENT_TYPE, "text/html; charset=utf-8")];
        return (html, listing(&target)).into_response();
    }
    match tokio::fs::File::open(&target).await {
        Ok(file) => {
            let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            (plain, Body::from_stream(ReaderStream::new(file))).into_response()
        }
        Err(_) => missing(),
    }
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
}
