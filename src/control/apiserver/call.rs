//! One request on its way: who asks, what for, with what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::request::{Query, RequestInfo, ResourceRequest};
use super::server::Api;
use super::user::UserInfo;

/// A request that was authenticated and authorized.
pub struct Call {
    pub api: Arc<Api>,
    pub user: UserInfo,
    /// Which listener it came in by: each has its own door.
    pub listener: &'static str,
    pub info: RequestInfo,
    pub method: Method,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub notes: Arc<Notes>,
}

/// What is said about a request on its way: to the audit log, and to the client.
#[derive(Default)]
pub struct Notes {
    annotations: Mutex<BTreeMap<String, String>>,
    warnings: Mutex<Vec<String>>,
}

impl Notes {
    /// For the audit log; what was said first stays.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut all = self.annotations.lock().expect("nothing panics while holding the lock");
        all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// For the client: `Warning: …`; each once, since a write may be tried several times.
    pub fn warn(&self, warning: String) {
        let mut all = self.warnings.lock().expect("nothing panics while holding the lock");
        if !all.contains(&warning) {
            all.push(warning);
        }
    }

    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().expect("nothing panics while holding the lock").clone()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().expect("nothing panics while holding the lock").clone()
    }
}

impl Call {
    /// The call for what outlives it: a watch keeps it to know the shape its client wants.
    pub fn without_body(&self) -> Self {
        Self {
            api: self.api.clone(),
            user: self.user.clone(),
            listener: self.listener,
            info: self.info.clone(),
            method: self.method.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            body: Bytes::new(),
            notes: self.notes.clone(),
        }
    }

    /// The resource asked for; handlers of resources are only called with one.
    pub fn asked(&self) -> &ResourceRequest {
        static NONE: ResourceRequest = ResourceRequest {
            group: String::new(),
            version: String::new(),
            namespace: String::new(),
            resource: String::new(),
            subresource: String::new(),
            name: String::new(),
            rest: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
        };
        self.info.resource.as_ref().unwrap_or(&NONE)
    }
}
