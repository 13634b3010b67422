//! What goes to a running pod: exec, attach, cp, port-forward, logs and debug, by WebSocket and by SPDY,
//! with kubectl in two versions.

mod commands;
mod ends;
mod forward;
mod logs;
mod museum;
mod python;
mod terminals;
mod translated;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::kit::clients::{self, Kubectl};
use crate::kit::{Lab, random};

/// How kubectl talks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wire {
    WebSocket,
    Spdy,
}

const WIRES: [Wire; 2] = [Wire::WebSocket, Wire::Spdy];

fn kubectl(lab: &Lab, kubectl: &Kubectl, wire: Wire) -> Command {
    let mut command = lab.kubectl_command(kubectl);
    if wire == Wire::Spdy {
        command
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
    }
    command
}

/// Runs to the end with this input.
fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command may end before it has read everything.
        let _ = to.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{:?}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Bytes nobody could guess, and every value among them.
fn noise(size: usize) -> Vec<u8> {
    let mut state = random() | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn for_all(lab: &Lab, test: impl Fn(&Lab, &Kubectl, Wire)) {
    for version in clients::both() {
        for wire in WIRES {
            eprintln!("kubectl {} by {wire:?}", version.version);
            test(lab, version, wire);
        }
    }
}
