//! Our agent under an upstream server: packet for packet.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::kit::{PATIENCE, Peer, Place, bytes_of, data, dial};
use crate::tunnel::konnectivity::packet::{DialResponse, Message};

struct Scene {
    _place: Place,
    server: Peer,
    destination: TcpListener,
    agents: mpsc::Receiver<Peer>,
}

async fn scene() -> Scene {
    let place = Place::new();
    let (port, mut agents) = place.upstream_server().await;
    place.agent(port).await;
    let server = agents.recv().await.unwrap();
    let destination = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Scene { _place: place, server, destination, agents }
}

impl Scene {
    fn address(&self) -> String {
        self.destination.local_addr().unwrap().to_string()
    }

    /// A tunnel with this number, and its destination's end.
    async fn tunnel(&mut self, random: i64) -> (i64, tokio::net::TcpStream) {
        self.server.say(dial(random, &self.address())).await;
        let (stream, _) = self.destination.accept().await.unwrap();
        let Message::DialResponse(DialResponse { error, connect_id, random: own }) =
            self.server.hears().await
        else {
            panic!("an answer")
        };
        assert!(error.is_empty() && own == random, "{error}");
        (connect_id, stream)
    }
}

fn closed(id: i64, error: &str) -> Message {
    Message::CloseResponse { id, error: error.into() }
}

#[tokio::test]
async fn tunnels_are_numbered_from_one_and_carry_bytes_without_a_word_of_credit() {
    let mut scene = scene().await;
    let (first, mut stream) = scene.tunnel(11).await;
    let (second, _kept) = scene.tunnel(12).await;
    assert_eq!((first, second), (1, 2));
    scene.server.say(data(1, "question")).await;
    let mut read = [0; 8];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"question");
    stream.write_all(b"answer").await.unwrap();
    assert_eq!(scene.server.hears().await, data(1, "answer"));
    // More than any window, both ways.
    let reading = tokio::spawn(async move {
        let mut all = vec![0; 5 << 20];
        stream.read_exact(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream
    });
    for _ in 0..(5 << 20) / 4096 {
        scene.server.say(Message::data(1, bytes::Bytes::from_static(&[7; 4096]))).await;
    }
    let mut total = 0;
    while total < 5 << 20 {
        let data = bytes_of(scene.server.hears().await);
        assert!(data.credit == 0 && data.connect_id == 1);
        total += data.data.len();
    }
    assert_eq!(total, 5 << 20);
    drop(reading.await.unwrap());
    assert_eq!(scene.server.hears().await, closed(1, ""));
}

#[tokio::test]
async fn a_close_is_answered_after_what_came_before_it() {
    let mut scene = scene().await;
    let (id, mut stream) = scene.tunnel(1).await;
    scene.server.say(data(id, "last words")).await;
    scene.server.say(Message::CloseRequest { id }).await;
    assert_eq!(scene.server.hears().await, closed(id, ""));
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "last words");
    scene.server.say(Message::CloseRequest { id }).await;
    assert_eq!(scene.server.hears().await, closed(id, "Unknown connectID"));
    scene.server.say(data(id, "late")).await;
    assert_eq!(scene.server.hears().await, closed(id, "unrecognized connectID"));
}

#[tokio::test]
async fn a_destinations_end_is_a_close_response_behind_its_bytes() {
    let mut scene = scene().await;
    let (id, mut stream) = scene.tunnel(1).await;
    stream.write_all(b"bye").await.unwrap();
    drop(stream);
    assert_eq!(scene.server.hears().await, data(id, "bye"));
    assert_eq!(scene.server.hears().await, closed(id, ""));
}

#[tokio::test]
async fn what_cannot_be_dialled_is_told_in_gos_words() {
    let mut scene = scene().await;
    let address = scene.address();
    // Nobody listens there any more.
    scene.destination = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.server.say(dial(3, &address)).await;
    let text = format!("dial tcp {address}: connect: connection refused");
    assert_eq!(scene.server.hears().await, Message::not_dialled(3, text));
    scene.server.say(dial(4, "no port")).await;
    let text = "dial tcp: address no port: missing port in address";
    assert_eq!(scene.server.hears().await, Message::not_dialled(4, text));
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let mut scene = scene().await;
    for message in [data(0, "x"), Message::Unknown, Message::Drain, Message::CloseDial { random: 9 }] {
        scene.server.say(message).await;
    }
    scene.server.say(closed(4, "")).await;
    let (id, mut stream) = scene.tunnel(1).await;
    stream.write_all(b"still here").await.unwrap();
    assert_eq!(scene.server.hears().await, data(id, "still here"));
}

#[tokio::test]
async fn one_destination_that_stands_still_holds_up_nobody() {
    let mut scene = scene().await;
    let (stalled, _kept) = scene.tunnel(1).await;
    let (other, mut stream) = scene.tunnel(2).await;
    // More than queue, spill and any socket's buffer hold: upstream's agent would read no more of anything.
    let chunk = Message::data(stalled, bytes::Bytes::from(vec![0; 256 << 10]));
    let said = scene.server.say_while_heard(&chunk, 400).await;
    assert_eq!(said, 400, "the stream was held up");
    scene.server.say(data(other, "and now")).await;
    let mut read = [0; 7];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"and now");
    let given_up = scene.server.hears().await;
    assert!(
        matches!(&given_up, Message::CloseResponse { id, error } if *id == stalled && error.contains("took nothing")),
        "{given_up:?}"
    );
}

#[tokio::test]
async fn a_lost_server_is_found_again_and_its_tunnels_end() {
    let mut scene = scene().await;
    let (_, mut stream) = scene.tunnel(1).await;
    let Scene { server, mut agents, _place, .. } = scene;
    // The stream's end, as a server's restart has it.
    drop(server);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    let again = tokio::time::timeout(PATIENCE, agents.recv()).await.unwrap();
    assert!(again.is_some(), "the agent comes back");
}
