//! Capabilities by name, and giving them up.

use std::io;

/// In the kernel's order: a capability's number is its place.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives a container that asks for nothing.
#[rustfmt::skip]
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    pub fn none() -> Capabilities {
        Capabilities(0)
    }

    pub fn all() -> Capabilities {
        Capabilities((1 << NAMES.len()) - 1)
    }

    pub fn containerd_default() -> Capabilities {
        DEFAULT.iter().fold(Capabilities::none(), |set, name| set.with(name).unwrap_or(set))
    }

    /// With one more, or with `ALL`. `None` for a name that is no capability's.
    pub fn with(self, name: &str) -> Option<Capabilities> {
        Some(Capabilities(self.0 | Capabilities::named(name)?.0))
    }

    /// With one less, or none for `ALL`.
    pub fn without(self, name: &str) -> Option<Capabilities> {
        Some(Capabilities(self.0 & !Capabilities::named(name)?.0))
    }

    pub fn has(self, name: &str) -> bool {
        Capabilities::named(name).is_some_and(|one| self.0 & one.0 == one.0)
    }

    fn named(name: &str) -> Option<Capabilities> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        match NAMES.iter().position(|known| *known == name) {
            Some(number) => Some(Capabilities(1 << number)),
            None => (name == "ALL").then(Capabilities::all),
        }
    }

    /// Gives up, for what this process executes, everything else. Root keeps exactly this set over an exec;
    /// any other user loses all, as containerd has it (no ambient and no inheritable capabilities: root's
    /// exec would take the inheritable ones whatever the bounding set says).
    pub fn bound(self) -> io::Result<()> {
        for number in 0..64u32 {
            if self.0 & (1 << number) != 0 {
                continue;
            }
            // SAFETY: numbers only. EINVAL means past the last one this kernel knows.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::EINVAL) {
                    break;
                }
                return Err(error);
            }
        }
        let mut held = Held::read()?;
        (held.low.inheritable, held.high.inheritable) = (0, 0);
        held.write()
    }

    /// Leaves this process itself with this set, of which it must hold all, at once.
    pub fn set(self) -> io::Result<()> {
        let half = |bits: u64| Half { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
        Held { low: half(self.0), high: half(self.0 >> 32) }.write()
    }
}

/// A process's sets as version 3 of capget and capset has them.
#[repr(C)]
#[derive(Default)]
struct Held {
    low: Half,
    high: Half,
}

#[repr(C)]
#[derive(Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Version 3, this process.
static OWN: Header = Header { version: 0x2008_0522, pid: 0 };

impl Held {
    fn read() -> io::Result<Held> {
        let mut held = Held::default();
        // SAFETY: both have the layout of version 3 and outlive the call; the kernel writes only `held`.
        match unsafe { libc::syscall(libc::SYS_capget, &raw const OWN, &raw mut held) } {
            0 => Ok(held),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ambient capabilities that are no longer inheritable are gone too.
    fn write(&self) -> io::Result<()> {
        // SAFETY: both have the layout of version 3, outlive the call and are only read.
        match unsafe { libc::syscall(libc::SYS_capset, &raw const OWN, &raw const *self) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_with_and_without_prefix_and_in_any_case() {
        let set = Capabilities::none().with("cap_net_admin").and_then(|set| set.with("SYS_TIME"));
        assert_eq!(set, Some(Capabilities(1 << 12 | 1 << 25)));
        assert_eq!(Capabilities::none().with("CAP_EVERYTHING"), None);
    }

    #[test]
    fn the_default_set_is_containerds() {
        assert_eq!(Capabilities::containerd_default(), Capabilities(0xa804_25fb));
        assert_eq!(Capabilities::containerd_default().without("ALL"), Some(Capabilities::none()));
    }
}
