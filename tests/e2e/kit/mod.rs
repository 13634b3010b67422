//! What the tests stand on: a lab of one's own, stock clients, waiting, and looking at processes.

pub mod capture;
pub mod clients;
pub mod lab;
pub mod process;
pub mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use lab::Lab;

/// Where this repository is: `MINILAB_TREE` where the one it was built in may not be read.
pub fn tree() -> PathBuf {
    std::env::var_os("MINILAB_TREE").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Tries until it works or `limit` is over; then panics with the last reason.
pub fn eventually<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) if Instant::now() >= deadline => panic!("{what}, within {limit:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// How often a counted loop runs: in full with `MINILAB_SOAK=1`, else a twentieth, at least twice.
pub fn rounds(full: usize) -> usize {
    match std::env::var_os("MINILAB_SOAK") {
        Some(_) => full,
        None => (full / 20).max(2),
    }
}

/// A number nobody chose.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}
