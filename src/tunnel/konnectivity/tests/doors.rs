//! Who is let in: agents by certificate, frontends by mutual TLS; and several servers and agents at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::kit::{PATIENCE, Place, eventually};
use crate::net::{Egress, RoadSigns};
use crate::pki::{Authority, LeafSpec};
use crate::tunnel::konnectivity::server;

/// Two clients' certificates of the authority `clients.crt`, and one of a stranger's.
fn clients(place: &Place) {
    let (own, stranger) = (Authority::new("clients").unwrap(), Authority::new("stranger").unwrap());
    std::fs::write(place.path("clients.crt"), own.cert_pem()).unwrap();
    for (name, authority) in [("known", &own), ("unknown", &stranger)] {
        let leaf = authority.issue(&LeafSpec::client(name, &[])).unwrap();
        std::fs::write(place.path(&format!("{name}.crt")), leaf.cert_pem).unwrap();
        std::fs::write(place.path(&format!("{name}.key")), leaf.key_pem).unwrap();
    }
}

/// The flags of an agent that shows this certificate.
fn shows(place: &Place, name: &str) -> String {
    let dir = place.dir.path().display();
    format!("--agent-cert={dir}/{name}.crt --agent-key={dir}/{name}.key")
}

#[tokio::test]
async fn with_a_client_authority_only_its_own_are_agents() {
    let place = Place::new();
    clients(&place);
    let server = place.server(&format!("--cluster-ca-cert={}", place.path("clients.crt").display())).await;
    let (stranger, nobody) = (shows(&place, "unknown"), String::new());
    let refused =
        [place.agent_with(server.port, &stranger).await, place.agent_with(server.port, &nobody).await];
    let taken = place.agent_with(server.port, &shows(&place, "known")).await;
    server.has_agents(1).await;
    // The others have tried again and again by now.
    sleep(Duration::from_millis(200)).await;
    assert_eq!((taken.connected(), refused.map(|agent| agent.connected())), (1, [0, 0]));
    server.has_agents(1).await;
}

#[tokio::test]
async fn a_frontend_on_tcp_is_who_its_certificate_says_or_nobody() {
    let place = Place::new();
    clients(&place);
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let dir = place.dir.path().display().to_string();
    let line = format!(
        "--mode=http-connect --server-port={port} --server-bind-address=127.0.0.1 --server-cert={dir}/s.crt \
         --server-key={dir}/s.key --server-ca-cert={dir}/clients.crt --cluster-cert={dir}/s.crt \
         --cluster-key={dir}/s.key --agent-port=0 --agent-bind-address=127.0.0.1 --health-port=0 \
         --health-bind-address=127.0.0.1 --admin-port=0"
    );
    let flags = server::Flags::read(line.split_whitespace().map(str::to_owned).collect()).unwrap();
    let stop = CancellationToken::new();
    let serving = server::serve(&flags, &stop).await.unwrap();
    let agent = place.agent(serving.agents.port()).await;
    eventually("the agent joins", || agent.connected() == 1).await;
    let road = |name: &str| {
        let text = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
             - name: controlplane\n  connection:\n    proxyProtocol: HTTPConnect\n    transport:\n      tcp:\n        \
             url: https://127.0.0.1:{port}\n        tlsConfig:\n          caBundle: {dir}/ca.crt\n          \
             clientCert: {dir}/{name}.crt\n          clientKey: {dir}/{name}.key\n"
        );
        let file = place.path(&format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        let signs = RoadSigns { egress: Some(file), ..RoadSigns::default() };
        crate::tunnel::roads(&signs).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().port();
    let known = road("known");
    let egress = known.to(Egress::ControlPlane);
    let (near, far) = tokio::join!(egress.dial("127.0.0.1", to), listener.accept());
    let (mut near, mut far) = (near.unwrap(), far.unwrap().0);
    far.write_all(b"through").await.unwrap();
    let mut heard = [0; 7];
    timeout(PATIENCE, near.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"through");
    let error = road("unknown").to(Egress::ControlPlane).dial("127.0.0.1", to).await.err().unwrap();
    assert!(error.to_string().contains("tls: "), "{error}");
    // What the file does not name goes its usual way.
    let usual = known.to(Egress::Cluster);
    let (direct, _) = tokio::join!(usual.dial("127.0.0.1", to), listener.accept());
    direct.unwrap();
    stop.cancel();
}

/// One address that leads to each of these ports in turn.
async fn balancer(ports: Vec<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let next = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = ports[next.fetch_add(1, Ordering::Relaxed) / 2 % ports.len()];
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn an_agent_finds_every_server_behind_one_address_and_the_one_that_comes_back() {
    let (first, second) = (Place::new(), Place::new());
    // Both answer by the same names.
    for name in ["ca.crt", "s.crt", "s.key"] {
        std::fs::copy(first.path(name), second.path(name)).unwrap();
    }
    let one = first.server("--server-count=2 --server-id=one").await;
    let two = second.server("--server-count=2 --server-id=two").await;
    let agent = first.agent(balancer(vec![one.port, two.port]).await).await;
    eventually("both are found", || agent.connected() == 2).await;
    let port = two.port;
    drop(two);
    eventually("one is left", || agent.connected() == 1).await;
    let flags = format!("--server-count=2 --server-id=two --agent-port={port}");
    let two = second.server(&flags).await;
    eventually("it is found again", || agent.connected() == 2).await;
    two.has_agents(1).await;
    one.has_agents(1).await;
}

#[tokio::test]
async fn of_several_agents_on_a_node_another_takes_over() {
    let place = Place::new();
    let server = place.server("--proxy-strategies=destHost").await;
    let node = "--agent-identifiers=ipv4=127.0.0.1";
    let first = place.upstream_agent(server.port, "first", "ipv4=127.0.0.1").await;
    server.has_agents(1).await;
    let second = place.agent_with(server.port, node).await;
    eventually("the second joins", || second.connected() == 1).await;
    drop(first);
    server.has_agents(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().port();
    let file = place.path("egress.yaml");
    let text = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  \
         connection: {{proxyProtocol: GRPC, transport: {{uds: {{udsName: {}}}}}}}\n",
        place.path("frontend.socket").display()
    );
    std::fs::write(&file, text).unwrap();
    let roads = crate::tunnel::roads(&RoadSigns { egress: Some(file), ..RoadSigns::default() }).unwrap();
    let (near, far) = tokio::join!(roads.cluster.dial("127.0.0.1", to), listener.accept());
    assert!(near.is_ok() && far.is_ok());
}
