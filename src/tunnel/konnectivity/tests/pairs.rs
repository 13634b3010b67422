//! Our server with our agent: whole tunnels by both frontends, and credits that keep everybody apart.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::kit::{PATIENCE, Place, Server, eventually};
use crate::net::{BoxStream, Dial, RoadSigns};

/// The road of an egress configuration that names this server's socket.
async fn road(place: &Place, protocol: &str) -> std::sync::Arc<dyn Dial> {
    let (file, socket) = (place.path("egress.yaml"), place.path("frontend.socket"));
    let text = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  \
         connection:\n    proxyProtocol: {protocol}\n    transport: {{uds: {{udsName: {}}}}}\n",
        socket.display()
    );
    std::fs::write(&file, text).unwrap();
    let signs = RoadSigns { egress: Some(file), ..RoadSigns::default() };
    crate::tunnel::roads(&signs).unwrap().to(crate::net::Egress::Cluster)
}

/// Server, agent and a road, for each frontend.
async fn paired(place: &Place, protocol: &str) -> (Server, std::sync::Arc<dyn Dial>) {
    let mode = if protocol == "GRPC" { "grpc" } else { "http-connect" };
    let server = place.server(&format!("--mode={mode}")).await;
    place.agent(server.port).await;
    server.has_agents(1).await;
    let road = road(place, protocol).await;
    (server, road)
}

async fn dialled(road: &std::sync::Arc<dyn Dial>, to: &TcpListener) -> (BoxStream, TcpStream) {
    let port = to.local_addr().unwrap().port();
    let (near, far) = tokio::join!(road.dial("127.0.0.1", port), to.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_whole_and_in_order_by_either_frontend() {
    for protocol in ["GRPC", "HTTPConnect"] {
        let place = Place::new();
        let (server, road) = paired(&place, protocol).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = dialled(&road, &listener).await;
        let sent: Vec<u8> = (0..12usize << 20).map(|at| (at % 251) as u8).collect();
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let (mut far_read, mut far_write) = far.into_split();
        let mut up = vec![0; sent.len()];
        let mut down = vec![0; sent.len()];
        let (first, second, third, fourth) = tokio::join!(
            near_write.write_all(&sent),
            far_read.read_exact(&mut up),
            far_write.write_all(&sent),
            near_read.read_exact(&mut down),
        );
        assert!(first.is_ok() && second.is_ok() && third.is_ok() && fourth.is_ok(), "{protocol}");
        assert!(up == sent && down == sent, "{protocol}");
        drop((near_read, near_write));
        // Cancelling is heard at the far end at once.
        assert_eq!(tokio::time::timeout(PATIENCE, far_read.read(&mut up)).await.unwrap().unwrap_or(0), 0);
        server.shows("konnectivity_network_proxy_server_established_connections 0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_speaks_first_is_heard_by_either_frontend() {
    for protocol in ["GRPC", "HTTPConnect"] {
        let place = Place::new();
        let (_server, road) = paired(&place, protocol).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"SSH-2.0-first\r\n").await;
            }
        });
        for _ in 0..100 {
            let mut near = road.dial("127.0.0.1", port).await.unwrap();
            let mut greeting = String::new();
            near.read_to_string(&mut greeting).await.unwrap();
            assert_eq!(greeting, "SSH-2.0-first\r\n", "{protocol}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_client_nor_a_destination_that_stops_reading_is_felt_by_others() {
    for protocol in ["GRPC", "HTTPConnect"] {
        let place = Place::new();
        let (_server, road) = paired(&place, protocol).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (deaf_client, mut talking) = dialled(&road, &listener).await;
        let (mut talker, deaf_destination) = dialled(&road, &listener).await;
        let talking = tokio::spawn(async move { talking.write_all(&vec![0; 64 << 20]).await });
        let talker = tokio::spawn(async move { talker.write_all(&vec![0; 64 << 20]).await });
        // Let both run into the wall.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        for _ in 0..50 {
            let (mut near, mut far) = dialled(&road, &listener).await;
            near.write_all(b"ping").await.unwrap();
            let mut read = [0; 4];
            far.read_exact(&mut read).await.unwrap();
            far.write_all(b"pong").await.unwrap();
            near.read_exact(&mut read).await.unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "{protocol}");
        assert!(!talking.is_finished() && !talker.is_finished(), "{protocol}: both still stand at the wall");
        drop((deaf_client, deaf_destination));
        assert!(tokio::time::timeout(PATIENCE, talking).await.unwrap().unwrap().is_err());
        assert!(tokio::time::timeout(PATIENCE, talker).await.unwrap().unwrap().is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_dial_are_told_as_upstream_tells_them() {
    let place = Place::new();
    let (server, road) = paired(&place, "GRPC").await;
    let error = |outcome: Result<BoxStream, crate::net::DialError>| outcome.err().unwrap().to_string();
    assert_eq!(error(road.dial("127.0.0.1", 1).await), "dial tcp 127.0.0.1:1: connect: connection refused");
    drop(server);
    let place = Place::new();
    let _server = place.server("").await;
    let own = self::road(&place, "GRPC").await;
    assert_eq!(error(own.dial("127.0.0.1", 1).await), "No agent available");
    let place = Place::new();
    let _server = place.server("--mode=http-connect").await;
    let own = self::road(&place, "HTTPConnect").await;
    let text = error(own.dial("127.0.0.1", 1).await);
    assert!(text.contains("while dialing 127.0.0.1:1, code 500: 500 Internal Server Error"), "{text}");
    let place = Place::new();
    let own = self::road(&place, "GRPC").await;
    let text = error(own.dial("127.0.0.1", 1).await);
    assert!(text.starts_with("dial unix ") && text.contains("no such file"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cancelled_tunnels_leave_nothing() {
    let place = Place::new();
    let (server, road) = paired(&place, "GRPC").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while stream.write_all(b"line\n").await.is_ok() {} });
        }
    });
    for _ in 0..10 {
        let dials = (0..10).map(|_| road.dial("127.0.0.1", port));
        for stream in futures_util::future::join_all(dials).await {
            let mut line = [0; 5];
            stream.unwrap().read_exact(&mut line).await.unwrap();
        }
    }
    server.shows("konnectivity_network_proxy_server_established_connections 0").await;
    eventually("every frontend is gone", || {
        server.shared.metrics().contains("grpc_connections{service_method=\"Proxy\"} 0")
    })
    .await;
}
