//! DenyServiceExternalIPs: no Service may claim an address that is not its own (CVE-2020-8554).

use super::{Attributes, Operation, list};
use crate::api::status::Result;

pub(super) fn admit(write: &Attributes) -> Result<()> {
    if !write.is("", "services") || write.operation == Operation::Delete {
        return Ok(());
    }
    let Some(service) = &write.object else { return Ok(()) };
    let before = write.old.as_ref().map(|old| list(&old["spec"]["externalIPs"])).unwrap_or_default();
    // Addresses that were there may stay.
    match list(&service["spec"]["externalIPs"]).iter().any(|address| !before.contains(address)) {
        true => Err(write.forbidden("Use of external IPs is denied by admission control")),
        false => Ok(()),
    }
}
