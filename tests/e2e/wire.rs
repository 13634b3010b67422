//! TLS secrets in a capture: what Wireshark needs to look inside the lab's own sessions, and only when asked for.

use serde_json::Value;

use crate::kit::Lab;

/// Types of pcapng's blocks, and of TLS key logs among secrets (draft-ietf-opsawg-pcapng).
const PACKET: u32 = 6;
const SECRETS: u32 = 10;
const TLS_KEY_LOG: u32 = 0x544c_534b;

/// A capture's blocks: type and body.
fn blocks(bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let length = word(at + 4) as usize;
        assert_eq!(word(at + length - 4) as usize, length, "a block says its length at both ends");
        found.push((word(at), &bytes[at + 8..at + length - 4]));
        at += length;
    }
    found
}

/// A capture while the API server is asked to dial a kubelet anew, over and over.
fn capture(lab: &Lab, time: &str, more: &[&str]) -> Vec<u8> {
    let file = lab.home.path().join("wire.pcapng");
    let words = [&["wire", "--for", time, "-o", "json", "--pcap", file.to_str().unwrap()], more].concat();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| lab.minilab(&words).ok());
        while !watching.is_finished() {
            lab.on("control", &["attacker", "http", "https://192.0.2.11:10250/healthz"]);
            lab.kubectl(&["logs", "web"]);
        }
        for line in watching.join().unwrap().lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
    });
    std::fs::read(file).unwrap()
}

/// The randoms of ClientHellos in packets, in hex: record, handshake, version 1.2, then 32 bytes.
fn hellos(blocks: &[(u32, &[u8])]) -> Vec<String> {
    let packets = blocks.iter().filter(|(kind, _)| *kind == PACKET);
    let hello = |(_, body): &(u32, &[u8])| {
        let at = body
            .windows(11)
            .position(|part| part[..3] == [0x16, 3, 1] && part[5] == 1 && part[9..] == [3, 3])?
            + 11;
        Some(body.get(at..at + 32)?.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    packets.filter_map(hello).collect()
}

#[test]
fn a_capture_holds_the_secrets_of_the_sessions_in_it_when_they_are_asked_for_and_else_none() {
    let lab = Lab::up();
    lab.run("web", "echo real; exec sleep 600");
    let bytes = capture(&lab, "7s", &["--with-keys"]);
    let all = blocks(&bytes);
    let secrets: String = all
        .iter()
        .filter(|(kind, body)| *kind == SECRETS && body[..4] == TLS_KEY_LOG.to_le_bytes())
        .map(|(_, body)| {
            let length = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
            String::from_utf8(body[8..8 + length].to_vec()).unwrap()
        })
        .collect();
    let seen = hellos(&all);
    let opened = |random: &String| {
        ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"]
            .iter()
            .all(|label| secrets.contains(&format!("{label} {random} ")))
    };
    assert!(seen.iter().any(opened), "{seen:?}\n{secrets}");
    let without = capture(&lab, "4s", &[]);
    let without = blocks(&without);
    assert!(!hellos(&without).is_empty(), "sessions were seen");
    assert!(without.iter().all(|(kind, _)| *kind != SECRETS));
}
