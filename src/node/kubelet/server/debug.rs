//! `/debug/pprof/` and `/debug/flags/v`.
//!
//! The command line and the index are as in Go; profiles are a Go runtime's, which this is not, and are
//! unknown here. The verbosity is klog's number: 4 and more shows what this program calls debug.

use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::call::{Call, http_error};
use crate::logging;

/// Longer than any number is.
const LONGEST: usize = 64;

pub fn profile(below: &[String]) -> Response {
    match below {
        [] => index(),
        [name] if name == "cmdline" => {
            let words: Vec<String> = std::env::args().collect();
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], words.join("\0")).into_response()
        }
        [name] if name == "symbol" => {
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "num_symbols: 0\n").into_response()
        }
        _ => http_error(StatusCode::NOT_FOUND, "Unknown profile"),
    }
}

fn index() -> Response {
    let page = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<br>\n\
                <p>Set debug=1 as a query parameter to export in legacy text format</p>\n<br>\n\
                Types of profiles available:\n<table>\n<thead><td>Count</td><td>Profile</td></thead>\n\
                <tr><td>0</td><td><a href='cmdline?debug=1'>cmdline</a></td></tr>\n</table>\n</body>\n</html>\n";
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

/// `PUT /debug/flags/v` with a number.
pub async fn verbosity(call: &Call, body: Body) -> Response {
    let plain = |status, text: String| {
        (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text + "\n").into_response()
    };
    if call.parts.method != Method::PUT {
        return plain(StatusCode::NOT_ACCEPTABLE, "unsupported http method".into());
    }
    let body = match to_bytes(body, LONGEST).await {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) => {
            return plain(StatusCode::BAD_REQUEST, format!("error reading request body: {error}"));
        }
    };
    let Ok(level) = body.parse::<i32>() else {
        let why = format!("strconv.ParseInt: parsing {body:?}: invalid syntax");
        return plain(StatusCode::BAD_REQUEST, format!("failed set klog.logging.verbosity {body}: {why}"));
    };
    logging::verbosity(level);
    plain(StatusCode::OK, format!("successfully set klog.logging.verbosity to {body}"))
}
