//! Time zones by name, from the machine's own tables (`/usr/share/zoneinfo`).

use std::fs;
use std::path::{Component, Path};

use jiff::tz::TimeZone;

const TABLES: &str = "/usr/share/zoneinfo";

/// The zone of this name, `UTC` always, others as far as the machine has them.
pub fn named(name: &str) -> Option<TimeZone> {
    if matches!(name, "UTC" | "Etc/UTC") {
        return Some(TimeZone::UTC);
    }
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain {
        return None;
    }
    TimeZone::tzif(name, &fs::read(Path::new(TABLES).join(name)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_tables() {
        assert!(named("UTC").is_some());
        assert!(
            named("../../../etc/localtime").is_none()
                && named("/etc/localtime").is_none()
                && named("").is_none()
        );
        assert!(named("Nowhere/Never").is_none());
    }
}
