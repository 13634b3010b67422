//! Our server between an upstream agent and an upstream client: packet for packet.

use super::kit::{Place, data, dial};
use crate::tunnel::konnectivity::packet::{DialRequest, Message};

fn closed(id: i64, error: &str) -> Message {
    Message::CloseResponse { id, error: error.into() }
}

#[tokio::test]
async fn a_dial_goes_through_unchanged_and_bytes_follow_both_ways_until_the_frontend_closes() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    server.has_agents(1).await;
    let mut frontend = place.frontend().await;
    frontend.say(dial(77, "10.0.0.1:80")).await;
    assert_eq!(agent.hears().await, dial(77, "10.0.0.1:80"));
    agent.say(Message::dialled(77, 1)).await;
    assert_eq!(frontend.hears().await, Message::dialled(77, 1));
    frontend.say(data(1, "question")).await;
    assert_eq!(agent.hears().await, data(1, "question"));
    agent.say(data(1, "answer")).await;
    assert_eq!(frontend.hears().await, data(1, "answer"));
    server.shows("konnectivity_network_proxy_server_established_connections 1").await;
    frontend.say(Message::CloseRequest { id: 1 }).await;
    assert_eq!(agent.hears().await, Message::CloseRequest { id: 1 });
    // What the agent had read before still arrives.
    agent.say(data(1, "rest")).await;
    agent.say(closed(1, "")).await;
    assert_eq!(frontend.hears().await, data(1, "rest"));
    assert_eq!(frontend.hears().await, closed(1, ""));
    server.shows("konnectivity_network_proxy_server_established_connections 0").await;
}

#[tokio::test]
async fn a_destination_that_speaks_first_loses_nothing() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    for id in 1..50 {
        let mut frontend = place.frontend().await;
        frontend.say(dial(id, "a:22")).await;
        agent.hears().await;
        agent.say(Message::dialled(id, id)).await;
        agent.say(data(id, "SSH-2.0")).await;
        agent.say(closed(id, "")).await;
        assert_eq!(frontend.hears().await, Message::dialled(id, id));
        assert_eq!(frontend.hears().await, data(id, "SSH-2.0"));
        assert_eq!(frontend.hears().await, closed(id, ""));
    }
}

#[tokio::test]
async fn a_refused_dial_carries_the_agents_words() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let mut frontend = place.frontend().await;
    frontend.say(dial(5, "10.0.0.1:1")).await;
    agent.hears().await;
    let refused = Message::not_dialled(5, "dial tcp 10.0.0.1:1: connect: connection refused");
    agent.say(refused.clone()).await;
    assert_eq!(frontend.hears().await, refused);
    server.shows("konnectivity_network_proxy_server_dial_failure_count{reason=\"error_response\"} 1").await;
}

#[tokio::test]
async fn without_an_agent_the_answer_is_upstreams_and_the_stream_stays() {
    let place = Place::new();
    let server = place.server("").await;
    let mut frontend = place.frontend().await;
    frontend.say(dial(5, "a:1")).await;
    assert_eq!(frontend.hears().await, Message::not_dialled(5, "No agent available"));
    frontend.hears_nothing().await;
    server.shows("konnectivity_network_proxy_server_dial_failure_count{reason=\"no_agent\"} 1").await;
}

#[tokio::test]
async fn a_frontend_that_goes_closes_the_far_end_at_once() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let mut frontend = place.frontend().await;
    frontend.say(dial(5, "a:1")).await;
    agent.hears().await;
    agent.say(Message::dialled(5, 3)).await;
    frontend.hears().await;
    drop(frontend);
    assert_eq!(agent.hears().await, Message::CloseRequest { id: 3 });
    // One that goes while it still dials is told to the agent, and its late answer is closed.
    let frontend = place.frontend().await;
    frontend.say(dial(6, "a:1")).await;
    agent.hears().await;
    drop(frontend);
    assert_eq!(agent.hears().await, Message::CloseDial { random: 6 });
    agent.say(Message::dialled(6, 4)).await;
    assert_eq!(agent.hears().await, Message::CloseRequest { id: 4 });
}

#[tokio::test]
async fn a_dial_called_off_is_forgotten() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let frontend = place.frontend().await;
    frontend.say(dial(6, "a:1")).await;
    agent.hears().await;
    server.shows("konnectivity_network_proxy_server_pending_backend_dials 1").await;
    frontend.say(Message::CloseDial { random: 6 }).await;
    assert_eq!(agent.hears().await, Message::CloseDial { random: 6 });
    server.shows("konnectivity_network_proxy_server_pending_backend_dials 0").await;
    server.shows("konnectivity_network_proxy_server_dial_failure_count{reason=\"frontend_close\"} 1").await;
}

#[tokio::test]
async fn an_agent_may_call_a_dial_off() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let mut frontend = place.frontend().await;
    frontend.say(dial(6, "a:1")).await;
    agent.hears().await;
    agent.say(Message::CloseDial { random: 6 }).await;
    assert!(
        matches!(frontend.hears().await, Message::DialResponse(answer) if answer.random == 6 && !answer.error.is_empty())
    );
    server.shows("konnectivity_network_proxy_server_dial_failure_count{reason=\"backend_close\"} 1").await;
}

#[tokio::test]
async fn an_agents_end_ends_its_tunnels_and_its_dials() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let mut open = place.frontend().await;
    open.say(dial(5, "a:1")).await;
    agent.hears().await;
    agent.say(Message::dialled(5, 3)).await;
    open.hears().await;
    let mut dialling = place.frontend().await;
    dialling.say(dial(6, "a:1")).await;
    agent.hears().await;
    drop(agent);
    assert_eq!(open.hears().await, closed(3, ""));
    assert!(matches!(dialling.hears().await, Message::DialResponse(answer) if !answer.error.is_empty()));
    server.has_agents(0).await;
}

#[tokio::test]
async fn protocol_errors_are_answered_as_upstream_answers_them() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let mut frontend = place.frontend().await;
    frontend.say(data(9, "too soon")).await;
    assert_eq!(frontend.hears().await, closed(9, "backend not initialized"));
    frontend.say(dial(5, "a:1")).await;
    agent.hears().await;
    agent.say(Message::dialled(5, 3)).await;
    frontend.hears().await;
    // Without an id it is dropped; with another's, both are closed.
    frontend.say(data(0, "x")).await;
    frontend.say(data(4, "x")).await;
    assert_eq!(agent.hears().await, Message::CloseRequest { id: 3 });
    assert_eq!(agent.hears().await, Message::CloseRequest { id: 4 });
    assert_eq!(frontend.hears().await, closed(3, "mismatched connection IDs"));
    assert_eq!(frontend.hears().await, closed(4, "mismatched connection IDs"));
    // The agent's for a tunnel nobody has.
    agent.say(data(8, "x")).await;
    assert_eq!(agent.hears().await, Message::CloseRequest { id: 8 });
    agent.say(data(0, "x")).await;
    agent.say(Message::Unknown).await;
    agent.say(Message::CloseResponse { id: 99, error: String::new() }).await;
    agent.hears_nothing().await;
    server.has_agents(1).await;
}

#[tokio::test]
async fn two_frontends_may_choose_the_same_number() {
    let place = Place::new();
    let server = place.server("").await;
    let mut agent = place.upstream_agent(server.port, "a", "").await;
    let (mut first, mut second) = (place.frontend().await, place.frontend().await);
    first.say(dial(5, "a:1")).await;
    let Message::DialRequest(one) = agent.hears().await else { panic!("a dial") };
    second.say(dial(5, "b:1")).await;
    let Message::DialRequest(other) = agent.hears().await else { panic!("a dial") };
    assert!(one.random == 5 && other.random != 5 && other.address == "b:1");
    agent.say(Message::dialled(other.random, 2)).await;
    agent.say(Message::dialled(5, 1)).await;
    assert_eq!(second.hears().await, Message::dialled(5, 2));
    assert_eq!(first.hears().await, Message::dialled(5, 1));
}

#[tokio::test]
async fn two_streams_of_one_agent_do_not_mix_their_numbers() {
    let place = Place::new();
    let server = place.server("--proxy-strategies=destHost").await;
    let mut older = place.upstream_agent(server.port, "same", "host=a").await;
    let mut younger = place.upstream_agent(server.port, "same", "host=b").await;
    let (mut to_a, mut to_b) = (place.frontend().await, place.frontend().await);
    to_a.say(dial(1, "a:1")).await;
    to_b.say(dial(2, "b:1")).await;
    older.hears().await;
    younger.hears().await;
    older.say(Message::dialled(1, 1)).await;
    younger.say(Message::dialled(2, 1)).await;
    to_a.hears().await;
    to_b.hears().await;
    older.say(data(1, "from a")).await;
    younger.say(data(1, "from b")).await;
    assert_eq!(to_a.hears().await, data(1, "from a"));
    assert_eq!(to_b.hears().await, data(1, "from b"));
}

#[tokio::test]
async fn a_draining_agent_is_the_last_resort() {
    let place = Place::new();
    let server = place.server("").await;
    let mut draining = place.upstream_agent(server.port, "a", "").await;
    draining.say(Message::Drain).await;
    server.shows("konnectivity_network_proxy_server_stream_packets_total{segment=\"from_agent\",packet_type=\"DRAIN\"} 1").await;
    let frontend = place.frontend().await;
    frontend.say(dial(1, "a:1")).await;
    assert_eq!(draining.hears().await, dial(1, "a:1"));
    let mut other = place.upstream_agent(server.port, "b", "").await;
    server.has_agents(2).await;
    for random in 2..12 {
        let frontend = place.frontend().await;
        frontend.say(dial(random, "a:1")).await;
        assert!(
            matches!(other.hears().await, Message::DialRequest(DialRequest { random: own, .. }) if own == random)
        );
        drop(frontend);
        other.hears().await;
    }
}

#[tokio::test]
async fn a_pod_is_reached_through_its_own_nodes_agent() {
    let place = Place::new();
    let server = place.server("--proxy-strategies=destHost,cidr,default").await;
    let mut one = place.upstream_agent(server.port, "1", "ipv4=192.0.2.11&cidr=10.244.1.0/24").await;
    let mut two = place.upstream_agent(server.port, "2", "ipv4=192.0.2.12&cidr=10.244.2.0/24").await;
    server.has_agents(2).await;
    for (address, agent) in
        [("10.244.1.7:80", 1), ("10.244.2.7:80", 2), ("192.0.2.11:10250", 1), ("192.0.2.12:1", 2)]
    {
        let frontend = place.frontend().await;
        frontend.say(dial(9, address)).await;
        let heard = if agent == 1 { one.hears().await } else { two.hears().await };
        assert_eq!(heard, dial(9, address));
        drop(frontend);
        let agent = if agent == 1 { &mut one } else { &mut two };
        assert_eq!(agent.hears().await, Message::CloseDial { random: 9 });
    }
}

#[tokio::test]
async fn one_that_says_nothing_of_itself_is_no_agent() {
    let place = Place::new();
    let server = place.server("").await;
    let port = server.port;
    let joining = tokio::spawn(async move { place.upstream_agent(port, "a", "a;b").await });
    assert!(joining.await.is_err(), "identifiers that cannot be read are refused");
    server.has_agents(0).await;
}
