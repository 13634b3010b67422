//! Pod addresses from the node's podCIDR: the `host-local` address plugin, with its files.
//!
//! One file an address under `/var/lib/cni/networks/minilab`, holding the pod's uid; `last_reserved_ip.0`
//! makes addresses go round, so that one is not reused at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ipnet::Ipv4Net;

use super::PodError;

const LAST: &str = "last_reserved_ip.0";

/// The addresses of this node's pods.
pub struct Addresses {
    dir: PathBuf,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    by_pod: BTreeMap<String, Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Addresses {
    /// Reads what was given out before.
    pub fn load(dir: &Path) -> Result<Self, PodError> {
        let failed = |source| PodError::Io { what: "keep pod addresses in", path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut taken = Taken::default();
        for entry in std::fs::read_dir(dir).map_err(failed)?.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.parse().ok()) {
                Some(address) => {
                    taken.by_pod.insert(text.trim().to_owned(), address);
                }
                None if name == LAST => taken.last = text.trim().parse().ok(),
                None => {}
            }
        }
        Ok(Self { dir: dir.to_owned(), taken: Mutex::new(taken) })
    }

    /// The pod's address; the same one when asked again.
    pub fn allocate(&self, range: Ipv4Net, pod_uid: &str) -> Result<Ipv4Addr, PodError> {
        let mut taken = self.taken.lock().expect("nothing panics while holding the lock");
        if let Some(address) = taken.by_pod.get(pod_uid).copied().filter(|address| range.contains(address)) {
            return Ok(address);
        }
        let used: BTreeSet<Ipv4Addr> = taken.by_pod.values().copied().collect();
        let address = next(range, taken.last, &used).ok_or(PodError::NoAddress { range })?;
        let write = |name: &str, text: &str| {
            let path = self.dir.join(name);
            std::fs::write(&path, text).map_err(|source| PodError::Io {
                what: "keep a pod address in",
                path,
                source,
            })
        };
        write(&address.to_string(), pod_uid)?;
        write(LAST, &address.to_string())?;
        taken.by_pod.insert(pod_uid.to_owned(), address);
        taken.last = Some(address);
        Ok(address)
    }

    /// Gives a pod's address back.
    pub fn release(&self, pod_uid: &str) {
        let mut taken = self.taken.lock().expect("nothing panics while holding the lock");
        if let Some(address) = taken.by_pod.remove(pod_uid) {
            // Gone already is as good.
            let _ = std::fs::remove_file(self.dir.join(address.to_string()));
        }
    }

    /// Gives back what belongs to pods that are no more.
    pub fn retain(&self, living: impl Fn(&str) -> bool) {
        let pods: Vec<String> = {
            let taken = self.taken.lock().expect("nothing panics while holding the lock");
            taken.by_pod.keys().filter(|uid| !living(uid)).cloned().collect()
        };
        pods.iter().for_each(|uid| self.release(uid));
    }
}

/// The next free address after `last`, from the second on (the first is the gateway by convention).
fn next(range: Ipv4Net, last: Option<Ipv4Addr>, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()) + 2;
    let end = u32::from(range.broadcast());
    let start =
        last.map(|last| u32::from(last) + 1).filter(|next| (first..end).contains(next)).unwrap_or(first);
    (start..end).chain(first..start).map(Ipv4Addr::from).find(|address| !used.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_survive_a_restart_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let range: Ipv4Net = "10.244.1.0/29".parse().unwrap();
        let addresses = Addresses::load(dir.path()).unwrap();
        let first = addresses.allocate(range, "a").unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(addresses.allocate(range, "a").unwrap(), first);
        addresses.release("a");
        assert_eq!(addresses.allocate(range, "b").unwrap(), Ipv4Addr::new(10, 244, 1, 3));
        let again = Addresses::load(dir.path()).unwrap();
        assert_eq!(again.allocate(range, "b").unwrap(), Ipv4Addr::new(10, 244, 1, 3));
        for pod in ["c", "d", "e", "f"] {
            again.allocate(range, pod).unwrap();
        }
        assert!(matches!(again.allocate(range, "g"), Err(PodError::NoAddress { .. })));
        again.retain(|uid| uid != "c");
        assert!(again.allocate(range, "g").is_ok());
    }
}
