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
