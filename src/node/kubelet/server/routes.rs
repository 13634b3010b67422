//! Which paths a kubelet's port answers, and how it refuses the others.
//!
//! `pkg/kubelet/server/server.go`: some paths are registered with Go's mux (any method), others are services
//! of go-restful with routes of their own. What is on no list is 404 before anybody asks who calls; a wrong
//! method, or a wrong path below a known root, is refused after.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::call::{http_error, text};
use crate::api::go_path;
use crate::node::kubelet::config::{Config, Handlers};

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// All checks, or the named one.
    Health(Option<&'static str>),
    Metrics(Family),
    Pods,
    Stats,
    Run,
    Exec,
    Attach,
    PortForward,
    ContainerLogs,
    RunningPods,
    Checkpoint,
    SystemLogs,
    Profiles,
    Verbosity,
    Configz,
    Flagz,
    Statusz,
    /// Switched off; says so.
    Off(&'static str),
}

/// The five pages of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Kubelet,
    Cadvisor,
    Resource,
    Probes,
    Slis,
}

/// A service's routes: how many parts below its root, and which methods.
type Routes = &'static [(Depth, &'static [Method])];

#[derive(Debug, Clone, Copy)]
enum Depth {
    Exactly(&'static [usize]),
    Named(&'static str),
    Any,
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const BOTH: &[Method] = &[Method::GET, Method::POST];

impl Service {
    /// The root of a go-restful service and its routes; nothing for what takes any method.
    fn restful(self) -> Option<(&'static str, Routes)> {
        use Depth::{Any, Exactly, Named};
        Some(match self {
            Self::Pods => ("/pods", &[(Exactly(&[0]), GET)]),
            Self::Stats => ("/stats", &[(Named("summary"), BOTH)]),
            Self::Run => ("/run", &[(Exactly(&[3, 4]), POST)]),
            Self::Exec => ("/exec", &[(Exactly(&[3, 4]), BOTH)]),
            Self::Attach => ("/attach", &[(Exactly(&[3, 4]), BOTH)]),
            Self::PortForward => ("/portForward", &[(Exactly(&[2, 3]), BOTH)]),
            Self::ContainerLogs => ("/containerLogs", &[(Exactly(&[3]), GET)]),
            Self::RunningPods => ("/runningpods/", &[(Exactly(&[0]), GET)]),
            Self::Checkpoint => ("/checkpoint", &[(Exactly(&[3]), POST)]),
            Self::SystemLogs => ("/logs/", &[(Any, GET)]),
            Self::Profiles => ("/debug/pprof/", &[(Any, GET)]),
            _ => return None,
        })
    }

    /// The service's root in a path.
    pub fn root(self) -> &'static str {
        self.restful().map_or("/", |(root, _)| root)
    }

    /// go-restful's refusal, where no route fits.
    pub fn refusal(self, method: &Method, below: &[String]) -> Option<Response> {
        let (_, routes) = self.restful()?;
        let fits = |depth: &Depth| match depth {
            Depth::Any => true,
            Depth::Exactly(counts) => counts.contains(&below.len()),
            Depth::Named(name) => below == [*name],
        };
        let Some((_, methods)) = routes.iter().find(|(depth, _)| fits(depth)) else {
            return Some(text(StatusCode::NOT_FOUND, "404: Page Not Found"));
        };
        if methods.contains(method) {
            return None;
        }
        let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let body = "405: Method Not Allowed";
        Some((StatusCode::METHOD_NOT_ALLOWED, [("allow", allowed.join(", "))], body).into_response())
    }
}

/// A port's registered paths, as Go's ServeMux holds them.
#[derive(Debug, Clone)]
pub struct Mux(Vec<(&'static str, Service)>);

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Service(Service),
    /// The same with a slash at its end, or without dots and doubled slashes.
    Elsewhere(String),
    Nothing,
}

/// Paths that say what is switched off, on the read-only port and without `enableDebuggingHandlers`.
const DEBUGGING: &[&str] = &[
    "/run/",
    "/exec/",
    "/attach/",
    "/portForward/",
    "/containerLogs/",
    "/runningpods/",
    "/debug/pprof/",
    "/logs/",
];

impl Mux {
    /// The paths of :10250.
    pub fn secure(config: &Config) -> Self {
        let mut mux = Self::common();
        match config.handlers.debugging {
            true => mux.debugging(config),
            false => mux.disabled(),
        }
        mux
    }

    /// The paths of the read-only port.
    pub fn read_only() -> Self {
        let mut mux = Self::common();
        mux.disabled();
        mux
    }

    /// What :10248 has.
    pub fn health() -> Self {
        Self(vec![("/healthz", Service::Health(None)), ("/healthz/ping", Service::Health(Some("ping")))])
    }

    /// What both ports have.
    fn common() -> Self {
        let mut mux = Self(vec![
            ("/healthz", Service::Health(None)),
            ("/healthz/ping", Service::Health(Some("ping"))),
            ("/healthz/log", Service::Health(Some("log"))),
            ("/healthz/syncloop", Service::Health(Some("syncloop"))),
            ("/metrics", Service::Metrics(Family::Kubelet)),
            ("/metrics/cadvisor", Service::Metrics(Family::Cadvisor)),
            ("/metrics/resource", Service::Metrics(Family::Resource)),
            ("/metrics/probes", Service::Metrics(Family::Probes)),
            ("/metrics/slis", Service::Metrics(Family::Slis)),
        ]);
        mux.add(Service::Pods, &["/pods", "/pods/"]);
        mux.add(Service::Stats, &["/stats", "/stats/"]);
        mux
    }

    fn debugging(&mut self, config: &Config) {
        let Handlers { profiling, debug_flags, system_log, .. } = config.handlers;
        let switch = |on: bool, service, why| if on { service } else { Service::Off(why) };
        self.add(switch(system_log, Service::SystemLogs, "logs endpoint is disabled."), &["/logs/"]);
        let profiles = switch(profiling, Service::Profiles, "profiling endpoint is disabled.");
        self.add(profiles, &["/debug/pprof/"]);
        let verbosity = switch(debug_flags, Service::Verbosity, "flags endpoint is disabled.");
        self.add(verbosity, &["/debug/flags/v"]);
        self.add(Service::Run, &["/run", "/run/"]);
        self.add(Service::Exec, &["/exec", "/exec/"]);
        self.add(Service::Attach, &["/attach", "/attach/"]);
        self.add(Service::PortForward, &["/portForward", "/portForward/"]);
        self.add(Service::ContainerLogs, &["/containerLogs", "/containerLogs/"]);
        self.add(Service::Configz, &["/configz"]);
        self.add(Service::RunningPods, &["/runningpods/"]);
        if config.gates.on("ContainerCheckpoint") {
            self.add(Service::Checkpoint, &["/checkpoint", "/checkpoint/"]);
        }
        if config.gates.on("ComponentFlagz") {
            self.add(Service::Flagz, &["/flagz"]);
        }
        if config.gates.on("ComponentStatusz") {
            self.add(Service::Statusz, &["/statusz"]);
        }
    }

    fn disabled(&mut self) {
        self.add(Service::Off("Debug endpoints are disabled."), DEBUGGING);
    }

    fn add(&mut self, service: Service, patterns: &[&'static str]) {
        self.0.extend(patterns.iter().map(|pattern| (*pattern, service)));
    }

    /// The registered paths that are pages of their own, as `/statusz` lists them.
    pub fn listed(&self) -> Vec<&'static str> {
        let mut paths: Vec<&str> =
            self.0.iter().filter(|(_, service)| service.restful().is_none()).map(|(path, _)| *path).collect();
        paths.sort_unstable();
        paths
    }

    /// Go's rule: the exact path, else the longest registered tree it is in.
    pub fn find(&self, path: &str) -> Found {
        let clean = clean(path);
        if clean != path {
            return Found::Elsewhere(clean);
        }
        let all = self.0.iter();
        let best = all
            .filter(|(pattern, _)| *pattern == path || (pattern.ends_with('/') && path.starts_with(pattern)))
            .max_by_key(|(pattern, _)| pattern.len());
        match best {
            Some((_, service)) => Found::Service(*service),
            None if self.0.iter().any(|(pattern, _)| pattern.strip_suffix('/') == Some(path)) => {
                Found::Elsewhere(format!("{path}/"))
            }
            None => Found::Nothing,
        }
    }
}

/// A path without `.`, `..` and doubled slashes (`path.Clean`, with the last slash kept).
fn clean(path: &str) -> String {
    let mut out = go_path::clean(path);
    if path.ends_with('/') && out.len() > 1 {
        out.push('/');
    }
    out
}

/// Go's answer for what is not registered.
pub fn not_found() -> Response {
    http_error(StatusCode::NOT_FOUND, "404 page not found")
}

/// Go's answer for a path that is elsewhere.
pub fn moved(to: &str, query: Option<&str>, method: &Method) -> Response {
    let target = query.map_or_else(|| to.to_owned(), |query| format!("{to}?{query}"));
    let body = match *method == Method::GET {
        true => format!("<a href=\"{}\">Moved Permanently</a>.\n\n", target.replace('"', "&#34;")),
        false => String::new(),
    };
    (StatusCode::MOVED_PERMANENTLY, [("location", target)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(service: Service, method: Method, below: &[&str]) -> Option<u16> {
        let below: Vec<String> = below.iter().map(|part| (*part).to_owned()).collect();
        service.refusal(&method, &below).map(|response| response.status().as_u16())
    }

    #[test]
    fn routes_are_refused_as_go_restful_refuses_them() {
        assert_eq!(status(Service::Exec, Method::GET, &["a", "b", "c"]), None);
        assert_eq!(status(Service::Exec, Method::POST, &["a", "b", "uid", "c"]), None);
        assert_eq!(status(Service::Exec, Method::PUT, &["a", "b", "c"]), Some(405));
        assert_eq!(status(Service::Exec, Method::GET, &["a", "b"]), Some(404));
        assert_eq!(status(Service::Run, Method::GET, &["a", "b", "c"]), Some(405));
        assert_eq!(status(Service::Pods, Method::HEAD, &[]), Some(405));
        assert_eq!(status(Service::Stats, Method::POST, &["summary"]), None);
        assert_eq!(status(Service::Stats, Method::GET, &["other"]), Some(404));
        assert_eq!(status(Service::Health(None), Method::PUT, &[]), None);
    }

    #[test]
    fn paths_are_found_as_gos_mux_finds_them() {
        let mux = Mux::read_only();
        let off = Found::Service(Service::Off("Debug endpoints are disabled."));
        assert_eq!(mux.find("/exec/a/b/c"), off);
        assert_eq!(mux.find("/exec"), Found::Elsewhere("/exec/".into()));
        assert_eq!(mux.find("/configz"), Found::Nothing);
        assert_eq!(mux.find("/metrics/cadvisor"), Found::Service(Service::Metrics(Family::Cadvisor)));
        assert_eq!(mux.find("/metrics/other"), Found::Nothing);
        assert_eq!(mux.find("/stats/../exec/a"), Found::Elsewhere("/exec/a".into()));
        assert_eq!(mux.find("//pods"), Found::Elsewhere("/pods".into()));
        assert_eq!(mux.find("/"), Found::Nothing);
    }
}
