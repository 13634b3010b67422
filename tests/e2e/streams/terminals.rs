//! A person at a terminal: `kubectl exec -it` and `kubectl run -it` on a real one, with sizes and Ctrl-C.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Wire, for_all};
use crate::kit::clients::Kubectl;
use crate::kit::{Lab, eventually};

/// A command on a terminal of its own, and everything it has shown.
struct Screen {
    child: Child,
    keys: File,
    inner: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    /// Starts kubectl on a new terminal.
    fn start(lab: &Lab, version: &Kubectl, wire: Wire, arguments: &[&str]) -> Screen {
        let pair = nix::pty::openpty(None, None).unwrap();
        let copy = || pair.slave.try_clone().unwrap();
        // It makes its standard input its controlling terminal.
        let mut command = Command::new("setsid");
        let kubectl = super::kubectl(lab, version, wire);
        command.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env_remove("KUBECONFIG").env("TERM", "vt100");
        command.args(["--ctty", "--wait"]).arg(&version.path).args(arguments);
        let screen = Screen {
            child: command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap(),
            keys: File::from(pair.master),
            inner: pair.slave,
            shown: Arc::default(),
        };
        let (mut from, shown) = (screen.keys.try_clone().unwrap(), Arc::clone(&screen.shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = from.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        screen
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something is shown, and forgets what was shown up to there.
    fn shows(&self, what: &str) {
        eventually(Duration::from_secs(20), what, || {
            let mut shown = self.shown.lock().unwrap();
            match shown.find(what) {
                Some(at) => {
                    shown.drain(..at + what.len());
                    Ok(())
                }
                None => Err(format!("the screen shows {shown:?}")),
            }
        });
    }

    fn resize(&self, rows: &str, columns: &str) {
        let copy = self.inner.try_clone().unwrap();
        let resized = Command::new("stty").args(["rows", rows, "cols", columns]).stdin(copy).status();
        assert!(resized.unwrap().success());
    }

    fn ends_with(mut self, code: i32) {
        let ended = eventually(Duration::from_secs(60), "kubectl comes back", || {
            self.child.try_wait().unwrap().ok_or_else(|| self.shown.lock().unwrap().clone())
        });
        assert_eq!(ended.code(), Some(code), "{:?}", self.shown.lock().unwrap());
    }
}

/// Changes the size until the shell on the screen sees it.
fn resized(screen: &mut Screen) {
    screen.resize("33", "101");
    eventually(Duration::from_secs(30), "the size arrives", || {
        screen.press("stty size\r");
        std::thread::sleep(Duration::from_millis(100));
        let shown = screen.shown.lock().unwrap().clone();
        if shown.contains("33 101") { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn exec_on_a_terminal_has_its_size_its_keys_and_its_exit_code() {
    let lab = Lab::up();
    lab.run("web", "exec sleep 1000");
    for_all(&lab, |lab, version, wire| {
        let mut screen = Screen::start(lab, version, wire, &["exec", "-it", "web", "--", "sh"]);
        screen.shows("# ");
        resized(&mut screen);
        screen.press("echo is-$TERM; tty\r");
        screen.shows("is-xterm");
        screen.shows("/dev/pts/");
        // Said by the process that is to be interrupted: a shell that has forked it and not yet run it
        // loses the signal.
        screen.press("sh -c \"echo sl''eeps; exec sleep 1000\"\r");
        screen.shows("sleeps");
        screen.press("\x03");
        screen.shows("# ");
        screen.press("echo code $((100 + $?))\r");
        screen.shows("code 230");
        screen.press("exit 7\r");
        screen.ends_with(7);
    });
}

#[test]
fn a_shell_on_a_terminal_leaves_what_runs_behind_it() {
    let lab = Lab::up();
    lab.run("web", "exec sleep 1000");
    for_all(&lab, |lab, version, wire| {
        let mut screen = Screen::start(lab, version, wire, &["exec", "-it", "web", "--", "bash"]);
        screen.shows("# ");
        screen.press("sleep 2345 & disown; echo sta''rted\r");
        screen.shows("started");
        screen.press("exit 4\r");
        screen.ends_with(4);
        let left =
            lab.kubectl(&["exec", "web", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).ok();
        assert!(left.contains("sleep 2345"), "{left}");
    });
}

#[test]
fn a_container_with_a_terminal_is_attached_to_and_removed_by_run() {
    let lab = Lab::up();
    for_all(&lab, |lab, version, wire| {
        let run = ["run", "-it", "--rm", "--restart=Never", "--image=minilab/toolbox", "box", "--", "sh"];
        let mut screen = Screen::start(lab, version, wire, &run);
        screen.shows("If you don't see a command prompt");
        screen.press("\r");
        screen.shows("# ");
        resized(&mut screen);
        screen.press("tty; echo he''re\r");
        screen.shows("/dev/pts/0");
        screen.shows("here");
        screen.press("echo sl''eeps; sleep 1000\r");
        screen.shows("sleeps");
        screen.press("\x03");
        screen.press("exit 0\r");
        screen.shows("pod \"box\" deleted");
        screen.ends_with(0);
        assert!(lab.kubectl(&["get", "pod", "box"]).fails_with(1).contains("NotFound"));
    });
}

#[test]
fn debug_on_a_terminal_sees_its_targets_processes() {
    let lab = Lab::up();
    lab.run("web", "exec sleep 4321");
    for_all(&lab, |lab, version, wire| {
        let debug = ["debug", "-it", "web", "--image=minilab/toolbox", "--target=web", "--", "sh"];
        let mut screen = Screen::start(lab, version, wire, &debug);
        screen.shows("If you don't see a command prompt");
        screen.press("\r");
        screen.shows("# ");
        screen.press("tr '\\0' ' ' < /proc/1/cmdline; echo; tty\r");
        screen.shows("sleep 4321");
        screen.shows("/dev/pts/");
        screen.press("exit\r");
        screen.ends_with(0);
    });
}
