//! What is answered to which question.

use super::super::corefile;
use super::super::zone::tests::{index, plugin};
use super::*;
use simple_dns::Question;

fn blocks() -> Vec<Block> {
    let mut blocks = corefile::parse("Corefile", ".:53 {\n forward . 192.0.2.53\n}\n").unwrap();
    blocks[0].kubernetes = Some(plugin());
    blocks
}

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(7);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap();
    query.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    query.build_bytes_vec().unwrap()
}

fn ask(name: &str, kind: TYPE) -> Vec<u8> {
    match answer(&blocks(), &index(), &query(name, kind), Transport::Udp) {
        Reply::Answer { bytes, .. } => bytes,
        _ => panic!("no answer"),
    }
}

#[test]
fn an_answer_is_authoritative_and_keeps_the_questions_spelling() {
    let bytes = ask("WEB.default.svc.Cluster.local", TYPE::A);
    let reply = Packet::parse(&bytes).unwrap();
    assert_eq!((reply.id(), reply.rcode(), reply.answers.len()), (7, RCODE::NoError, 1));
    assert!(reply.has_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_DESIRED));
    assert_eq!(reply.answers[0].name.to_string(), "WEB.default.svc.Cluster.local");
    assert_eq!(reply.answers[0].ttl, 30);
}

#[test]
fn what_is_not_there_comes_with_the_zones_authority() {
    let bytes = ask("nosuch.default.svc.cluster.local", TYPE::A);
    let reply = Packet::parse(&bytes).unwrap();
    assert_eq!((reply.rcode(), reply.answers.len(), reply.name_servers.len()), (RCODE::NameError, 0, 1));
    let bytes = ask("web.default.svc.cluster.local", TYPE::AAAA);
    let reply = Packet::parse(&bytes).unwrap();
    assert_eq!((reply.rcode(), reply.name_servers.len()), (RCODE::NoError, 1));
}

#[test]
fn a_zones_authority_is_an_answer_and_other_classes_are_refused() {
    let bytes = ask("cluster.local", TYPE::SOA);
    let reply = Packet::parse(&bytes).unwrap();
    assert_eq!((reply.answers.len(), reply.name_servers.len()), (1, 0));
    let mut chaos = query("version.bind", TYPE::TXT);
    let class = chaos.len() - 1;
    chaos[class] = 3;
    let Reply::Answer { rcode, .. } = answer(&blocks(), &index(), &chaos, Transport::Udp) else { panic!() };
    assert_eq!(rcode, RCODE::Refused);
}

#[test]
fn an_alias_out_of_the_cluster_is_followed_by_whoever_knows_it() {
    let service = serde_json::json!({"metadata": {"name": "ext", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.com"}});
    let service = serde_json::from_value(service).unwrap();
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": "default"}})).unwrap();
    let none = std::iter::empty;
    let index =
        Index::new(std::iter::once(&namespace), std::iter::once(&service), none(), std::iter::empty());
    let asked = query("ext.default.svc.cluster.local", TYPE::A);
    let reply = answer(&blocks(), &index, &asked, Transport::Udp);
    let Reply::Chase { alias, question, to, .. } = reply else { panic!("not followed") };
    let outside = Packet::parse(&question).unwrap();
    assert_eq!((outside.questions[0].qname.to_string(), to.len()), ("example.com".into(), 1));
    let mut theirs = Packet::new_reply(7);
    theirs.answers.extend(record("example.com", &Data::A([1, 2, 3, 4].into()), 60));
    let theirs = theirs.build_bytes_vec().unwrap();
    let both = joined(alias.clone(), &theirs, Transport::Udp);
    let kinds = |bytes: &[u8]| -> Vec<TYPE> {
        Packet::parse(bytes).unwrap().answers.iter().map(|one| one.rdata.type_code()).collect()
    };
    assert_eq!(kinds(&both), [TYPE::CNAME, TYPE::A]);
    assert_eq!(kinds(&joined(alias, b"nonsense", Transport::Udp)), [TYPE::CNAME]);
}

#[test]
fn ports_come_with_addresses_and_aliases_with_their_targets() {
    let bytes = ask("_sql._tcp.db.default.svc.cluster.local", TYPE::SRV);
    let reply = Packet::parse(&bytes).unwrap();
    assert_eq!((reply.answers.len(), reply.additional_records.len()), (2, 2));
    let bytes = ask("out.default.svc.cluster.local", TYPE::A);
    let reply = Packet::parse(&bytes).unwrap();
    let kinds: Vec<_> = reply.answers.iter().map(|one| one.rdata.type_code()).collect();
    assert_eq!(kinds, [TYPE::CNAME, TYPE::A]);
}

#[test]
fn other_names_are_forwarded_and_nonsense_is_refused_or_met_with_silence() {
    let reply = answer(&blocks(), &index(), &query("example.com", TYPE::A), Transport::Udp);
    let Reply::Forward { failure, to, .. } = reply else { panic!("not forwarded") };
    assert_eq!(
        (Packet::parse(&failure).unwrap().rcode(), to),
        (RCODE::ServerFailure, vec!["192.0.2.53".to_owned()])
    );
    let mut crowded = query("example.com", TYPE::A);
    crowded[6..8].copy_from_slice(&[0xff, 0xff]);
    let Reply::Answer { rcode, .. } = answer(&blocks(), &index(), &crowded, Transport::Udp) else { panic!() };
    assert_eq!(rcode, RCODE::FormatError);
    let mut response = query("example.com", TYPE::A);
    response[2] |= 0x80;
    for nonsense in [&response[..], &[1, 2, 3], &[]] {
        assert!(matches!(answer(&blocks(), &index(), nonsense, Transport::Udp), Reply::Nothing));
    }
}

#[test]
fn no_cut_or_flipped_question_makes_it_panic() {
    let good = query("_sql._tcp.db.default.svc.cluster.local", TYPE::SRV);
    for end in 0..good.len() {
        let _ = answer(&blocks(), &index(), &good[..end], Transport::Udp);
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[end] ^= 1 << bit;
            let _ = answer(&blocks(), &index(), &bad, Transport::Tcp);
        }
    }
}

/// A question with an OPT record: version, DO, size.
fn extended(name: &str, version: u8, wants_signatures: bool, size: u16) -> Vec<u8> {
    let mut bytes = query(name, TYPE::A);
    bytes[11] = 1;
    bytes.extend([0, 0, 41]);
    bytes.extend(size.to_be_bytes());
    bytes.extend([0, version, if wants_signatures { 0x80 } else { 0 }, 0, 0, 0]);
    bytes
}

fn answered(index: &Index, question: &[u8]) -> Vec<u8> {
    match answer(&blocks(), index, question, Transport::Udp) {
        Reply::Answer { bytes, .. } => bytes,
        _ => panic!("no answer"),
    }
}

#[test]
fn another_version_of_edns_is_refused_and_its_flag_and_size_are_echoed() {
    let name = "web.default.svc.cluster.local";
    let bytes = answered(&index(), &extended(name, 1, false, 1400));
    let reply = Packet::parse(&bytes).unwrap();
    // The upper bits of BADVERS (16) stand in the OPT record, the lower four in the header.
    assert_eq!((bytes[bytes.len() - 6], bytes[3] & 15, reply.answers.len()), (1, 0, 0));
    for wants in [true, false] {
        let bytes = answered(&index(), &extended(name, 0, wants, 1400));
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.answers.len(), reply.opt().unwrap().udp_packet_size), (1, 1400));
        let flags = bytes.len() - 4;
        assert_eq!(bytes[flags] & 0x80 != 0, wants, "the record is the last one");
    }
}

/// Services named here lead to each other; one more has so many endpoints that they do not fit.
fn crowd() -> Index {
    let typed = |kind: &str, to: &str| -> k8s_openapi::api::core::v1::Service {
        serde_json::from_value(serde_json::json!({"metadata": {"name": kind, "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": format!("{to}.default.svc.cluster.local")}}))
        .unwrap()
    };
    let many = serde_json::json!({"metadata": {"name": "many", "namespace": "default"},
        "spec": {"clusterIP": "None"}});
    let services = [
        typed("one", "two"),
        typed("two", "one"),
        typed("self", "self"),
        serde_json::from_value(many).unwrap(),
    ];
    let endpoints: Vec<_> =
        (1..=100).map(|at| serde_json::json!({"addresses": [format!("10.244.3.{at}")]})).collect();
    let slice = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "many-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "ports": [], "endpoints": endpoints}))
    .unwrap();
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": "default"}})).unwrap();
    Index::new([&namespace].into_iter(), services.iter(), [&slice].into_iter(), [].iter())
}

#[test]
fn aliases_that_lead_back_lead_nowhere() {
    for name in ["one", "self"] {
        let question = query(&format!("{name}.default.svc.cluster.local"), TYPE::A);
        let bytes = answered(&crowd(), &question);
        let reply = Packet::parse(&bytes).unwrap();
        let found = (reply.rcode(), reply.answers.len(), reply.name_servers.len());
        assert_eq!(found, (RCODE::NoError, 0, 1), "{name}");
    }
}

#[test]
fn an_answer_is_cut_where_the_client_takes_no_more() {
    let name = "many.default.svc.cluster.local";
    let plain = answered(&crowd(), &query(name, TYPE::A));
    let reply = Packet::parse(&plain).unwrap();
    assert!(reply.has_flags(PacketFlag::TRUNCATION));
    assert!((497..=512).contains(&plain.len()), "{} bytes: one more of 16 would fit", plain.len());
    let whole = answered(&crowd(), &extended(name, 0, false, 4096));
    let reply = Packet::parse(&whole).unwrap();
    assert!(reply.answers.len() == 100 && !reply.has_flags(PacketFlag::TRUNCATION));
}

#[test]
fn zones_are_not_handed_over_and_operations_keep_their_number() {
    let mut transfer = query("cluster.local", TYPE::A);
    let kind = transfer.len() - 3;
    transfer[kind] = 252;
    assert_eq!(Packet::parse(&answered(&index(), &transfer)).unwrap().rcode(), RCODE::Refused);
    let mut notify = query("cluster.local", TYPE::SOA);
    notify[2] |= 4 << 3;
    let bytes = answered(&index(), &notify);
    assert_eq!((bytes[2] >> 3 & 15, bytes[3] & 15), (4, 4), "NOTIFY, NOTIMP");
}
