//! Small facts about this process.

/// Restores the default for SIGPIPE, which Rust's start-up ignores, so that `minilab x | head` ends quietly.
pub fn default_sigpipe() {
    // SAFETY: called first thing in main, before any thread; SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
