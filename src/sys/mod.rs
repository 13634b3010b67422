//! The only place with system calls and `unsafe`: namespaces, mounts, netlink, nftables, children.
#![allow(unsafe_code, reason = "system calls have no safe form; every block says why it is sound")]

pub mod capabilities;
pub mod child;
pub mod conntrack;
pub mod container;
pub mod inherit;
pub mod mount;
pub mod mountfd;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod packet;
pub mod process;
pub mod ready;
pub mod seccomp;
pub mod terminal;
pub mod zone;
