//! `serviceaccounts/token`: a short-lived token for one account, bound to a pod, Secret or node
//! (`pkg/registry/core/serviceaccount/storage/token.go`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::authn::ServiceAccounts;
use super::super::lookup::{object, text};
use super::strings;
use crate::api::status::{Cause, Result, Status};
use crate::control::store::Store;

const GROUP: &str = "authentication.k8s.io";
const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
/// What the ServiceAccount admission plugin asks for; with it a token lives a year, and later use is told.
const WARN_ONLY: i64 = 3607;
const YEAR: i64 = 365 * 24 * 3600;

/// A request for a token of one account.
pub struct TokenFor<'a> {
    pub store: &'a Store,
    pub accounts: &'a ServiceAccounts,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl TokenFor<'_> {
    /// The request's checks that come before admission: defaults and plain validation.
    pub fn prepare(&self, request: &mut Value) -> Result<()> {
        // The account is looked up before anything else.
        object(self.store, "", "serviceaccounts", self.namespace, self.name)
            .ok_or_else(|| Status::not_found("", "serviceaccounts", self.name))?;
        let meta = &request["metadata"];
        for (field, wanted) in [("name", self.name), ("namespace", self.namespace)] {
            if meta[field].as_str().is_some_and(|given| !given.is_empty() && given != wanted) {
                return Err(Status::bad_request(format!("must match service account {field}")));
            }
        }
        let spec = &mut request["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        spec["expirationSeconds"] = json!(seconds);
        let why = match seconds {
            ..SHORTEST => "may not specify a duration less than 10 minutes",
            seconds if seconds > LONGEST => "may not specify a duration larger than 2^32 seconds",
            _ => return Ok(()),
        };
        let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), why);
        Err(Status::invalid(GROUP, "TokenRequest", "", &[cause]))
    }

    /// Makes the token; `request` is prepared and admitted. Returns the answer's body.
    pub fn issue(&self, mut request: Value) -> Result<Value> {
        let account = object(self.store, "", "serviceaccounts", self.namespace, self.name)
            .ok_or_else(|| Status::not_found("", "serviceaccounts", self.name))?;
        let mut own = json!({
            "namespace": self.namespace,
            "serviceaccount": {"name": self.name, "uid": text(&account, "/metadata/uid")},
        });
        let reference = &request["spec"]["boundObjectRef"];
        if reference.is_object() {
            self.bind(reference, &mut own)?;
        }
        // Only now: admission must see what was asked for, and a kubelet asks for "" by default.
        if strings(&request["spec"]["audiences"]).is_empty() {
            request["spec"]["audiences"] = json!(self.accounts.audiences());
        }
        let audiences = strings(&request["spec"]["audiences"]);
        let mut seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        if self.accounts.longest() > 0 && seconds > self.accounts.longest() {
            seconds = self.accounts.longest();
            request["spec"]["expirationSeconds"] = json!(seconds);
        }
        let now = Timestamp::now().as_second();
        let mut life = seconds;
        let for_us = audiences.iter().all(|audience| self.accounts.audiences().contains(audience));
        if self.accounts.extends() && seconds == WARN_ONLY && for_us && own.get("pod").is_some() {
            own["warnafter"] = json!(now + seconds);
            life = YEAR;
        }
        let claims = json!({
            "aud": audiences,
            "exp": now + life,
            "iat": now,
            "iss": self.accounts.issuer(),
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": own,
            "nbf": now,
            "sub": format!("system:serviceaccount:{}:{}", self.namespace, self.name),
        });
        let token = self
            .accounts
            .sign(&claims)
            .map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
        let written =
            |seconds: i64| Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
        request["kind"] = json!("TokenRequest");
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        request["metadata"] =
            json!({"name": self.name, "namespace": self.namespace, "creationTimestamp": written(now)});
        request["status"] = json!({"token": token, "expirationTimestamp": written(now + seconds)});
        Ok(request)
    }

    /// Looks up what the token is to be bound to, and writes it into the claims.
    fn bind(&self, reference: &Value, own: &mut Value) -> Result<()> {
        let (kind, name) = (text(reference, "/kind"), text(reference, "/name"));
        let (plural, claim) = match (text(reference, "/apiVersion"), kind) {
            ("v1" | "", "Pod") => ("pods", "pod"),
            ("v1" | "", "Secret") => ("secrets", "secret"),
            ("v1" | "", "Node") => ("nodes", "node"),
            (version, _) => {
                let what = format!("{version}, Kind={kind}");
                return Err(Status::bad_request(format!("cannot bind token to object of type {what}")));
            }
        };
        let namespace = if plural == "nodes" { "" } else { self.namespace };
        let found = object(self.store, "", plural, namespace, name);
        let found = found.ok_or_else(|| Status::not_found("", plural, name))?;
        let uid = text(&found, "/metadata/uid");
        let wanted = text(reference, "/uid");
        if !wanted.is_empty() && wanted != uid {
            return Err(Status::conflict(
                "",
                plural,
                name,
                &format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
                ),
            ));
        }
        if plural == "pods" {
            if text(&found, "/spec/serviceAccountName") != self.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    self.name
                )));
            }
            let node = text(&found, "/spec/nodeName");
            if !node.is_empty() {
                own["node"] = json!({"name": node});
                if let Some(known) = object(self.store, "", "nodes", "", node) {
                    own["node"]["uid"] = known["metadata"]["uid"].clone();
                }
            }
        }
        own[claim] = json!({"name": name, "uid": uid});
        Ok(())
    }
}
