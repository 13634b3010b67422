//! The seccomp profile `RuntimeDefault`: what containerd's default profile forbids a container.
//!
//! Containerd lists what is allowed; this lists what is not, because a list of the forbidden is short and
//! does not break on a new libc. Left out on purpose: personality's argument list and 32-bit programs.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::capabilities::Capabilities;

/// Forbidden whatever the capabilities.
#[rustfmt::skip]
const NEVER: &[i64] = &[
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_get_mempolicy,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_nfsservctl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// Allowed only to who holds the capability.
#[rustfmt::skip]
const WITH: &[(&str, &[i64])] = &[
    (
        "SYS_ADMIN",
        &[
            libc::SYS_bpf,
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_quotactl,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_pivot_root,
        ],
    ),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_MODULE", &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    ("SYS_PACCT", &[libc::SYS_acct]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    ("SYS_PTRACE", &[libc::SYS_kcmp]),
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    ("SYSLOG", &[libc::SYS_syslog]),
];

/// The clone flags that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

/// A filter ready to be loaded.
pub struct Profile(Vec<BpfProgram>);

impl Profile {
    /// The default profile for a container with these capabilities.
    pub fn runtime_default(held: Capabilities) -> Result<Profile, seccompiler::BackendError> {
        let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> =
            NEVER.iter().map(|call| (*call, Vec::new())).collect();
        for (_, calls) in WITH.iter().filter(|(capability, _)| !held.has(capability)) {
            forbidden.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
        let mut programs = Vec::new();
        if !held.has("SYS_ADMIN") {
            // clone's flags can be looked at, clone3's cannot: libc falls back to clone when told ENOSYS.
            for bit in (0..64).map(|bit| 1u64 << bit).filter(|bit| NAMESPACES & bit != 0) {
                let has_bit =
                    SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?;
                forbidden.entry(libc::SYS_clone).or_default().push(SeccompRule::new(vec![has_bit])?);
            }
            programs.push(compile(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?);
        }
        programs.push(compile(forbidden, libc::EPERM)?);
        Ok(Profile(programs))
    }

    /// Loads it. Needs no-new-privileges or CAP_SYS_ADMIN.
    pub fn load(&self) -> io::Result<()> {
        self.0.iter().try_for_each(load)
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
}

fn load(program: &BpfProgram) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the program has the kernel's layout (repr(C), checked by seccompiler) and is only read.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This process and all it executes can never gain privileges.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}
