//! Which user and group ids a lab has.
//!
//! Inside, root is the lab's owner; for a lab of root's own, an id apart, so that no lab's root is the
//! machine's: that one may write `/proc/sys/vm` and `/proc/sys/kernel` in whatever namespace it is. Where the machine lets us (by root, or by newuidmap and the ranges of
//! `/etc/subuid`) 65,536 more ids follow, so that pods can have users of their own; else that one id is all.

use std::fs;
use std::io;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use crate::sys::container::Ids;

/// More ids than the owner's own: what a distribution gives a user.
const MORE: u32 = 65_536;
/// The first of them when root maps and no range is noted for the owner.
const USUAL_START: u32 = 100_000;

/// Where the ids of root's own labs start: systemd's table of ids, which most distributions follow, leaves
/// 1879048192 to 2147483647 unused.
pub const APART: u32 = 0x7000_0000;

/// Whether root may give a lab those ids: not inside a container that has only some of the machine's.
pub fn can_be_apart() -> bool {
    ["uid_map", "gid_map"]
        .iter()
        .all(|file| Ids::own(file).is_ok_and(|ids| ids.contains(APART) && ids.contains(APART + MORE)))
}

/// The ids of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    uid: u32,
    gid: u32,
    /// Where the further uids and gids start.
    more: Option<(u32, u32)>,
}

impl IdMap {
    /// What this process may map for the lab's owner.
    pub fn choose(uid: u32, gid: u32) -> IdMap {
        if uid == APART {
            return IdMap { uid, gid, more: Some((APART + 1, APART + 1)) };
        }
        let range = |path: &str| fs::read_to_string(path).ok().and_then(|text| subordinate(&text, uid));
        let more = match (range("/etc/subuid"), range("/etc/subgid"), geteuid().is_root()) {
            (Some(uids), Some(gids), _) => Some((uids, gids)),
            (_, _, true) => Some((USUAL_START, USUAL_START)),
            _ => None,
        };
        IdMap { uid, gid, more }
    }

    /// Writes the maps of a process that waits in a new user namespace.
    pub fn write(self, pid: i32) -> io::Result<()> {
        if let Some((uids, gids)) = self.more {
            let written = match geteuid().is_root() || acts_for_another() {
                true => direct(pid, "uid_map", &lines(self.uid, uids))
                    .and_then(|()| direct(pid, "gid_map", &lines(self.gid, gids))),
                false => helper("newuidmap", pid, self.uid, uids)
                    .and_then(|()| helper("newgidmap", pid, self.gid, gids)),
            };
            match written {
                Ok(()) => return Ok(()),
                // Root that is confined may not; an ordinary user lacks the helper or the range is refused.
                Err(error) => tracing::info!(%error, "Only one id is mapped"),
            }
        }
        direct(pid, "setgroups", "deny")?;
        direct(pid, "uid_map", &format!("0 {} 1", self.uid))?;
        direct(pid, "gid_map", &format!("0 {} 1", self.gid))
    }
}

/// Root at heart, see [`crate::sys::process::act_for`].
fn acts_for_another() -> bool {
    nix::unistd::getresuid().is_ok_and(|ids| ids.real.is_root())
}

fn lines(own: u32, start: u32) -> String {
    format!("0 {own} 1\n1 {start} {MORE}\n")
}

fn direct(pid: i32, file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/{file}"), text)
}

fn helper(name: &str, pid: i32, own: u32, start: u32) -> io::Result<()> {
    let numbers = [pid as u32, 0, own, 1, 1, start, MORE].map(|number| number.to_string());
    let output = Command::new(name).args(numbers).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// The start of the first range of at least [`MORE`] ids noted for a user, by name or number.
fn subordinate(text: &str, uid: u32) -> Option<u32> {
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let (user, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        let theirs = Some(user) == name.as_deref() || user == uid.to_string();
        (theirs && count.parse::<u32>().ok()? >= MORE).then(|| start.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_range_is_found_by_number_and_too_small_ones_are_passed_over() {
        let text = "someone:1:65536\n4242:5:10\n4242:300000:65536\n";
        assert_eq!(subordinate(text, 4242), Some(300_000));
        assert_eq!(subordinate(text, 4243), None);
        assert_eq!(subordinate("broken\n4242:x:65536\n", 4242), None);
    }
}
