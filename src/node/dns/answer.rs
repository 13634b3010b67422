//! From a question's bytes to an answer's: one message, no I/O but what it asks to be forwarded.

use simple_dns::rdata::{A, CNAME, NS, PTR, RData, SOA, SRV, TXT};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE, header_buffer,
};

use super::corefile::{Block, is_below};
use super::zone::{Data, Found, Index, Wanted};

/// What a client without EDNS can take over UDP.
const SMALLEST: usize = 512;
/// What we send at most over UDP, whatever a client says it takes.
const LARGEST: usize = 1232;
/// A question may bring one OPT record and perhaps a signature, nothing more.
const MOST_ADDITIONAL: u16 = 2;
/// An alias within the cluster that leads to an alias, and so on, is followed this far.
const MOST_ALIASES: usize = 8;

/// How an answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What is to be done with a message.
pub enum Reply {
    /// Send this; the text is what the log plugin says of it.
    Answer { bytes: Vec<u8>, rcode: RCODE, asked: String, logged: bool },
    /// Ask somebody else with the same bytes; if nobody answers, send `failure`.
    Forward { failure: Vec<u8>, to: Vec<String>, asked: String, logged: bool },
    /// Not a question: silence.
    Nothing,
}

/// Answers one message.
pub fn answer(blocks: &[Block], index: &Index, bytes: &[u8], transport: Transport) -> Reply {
    let Ok(id) = header_buffer::id(bytes) else { return Reply::Nothing };
    if header_buffer::has_flags(bytes, PacketFlag::RESPONSE).unwrap_or(true) {
        return Reply::Nothing;
    }
    let Some(query) = read(bytes) else { return plain(id, RCODE::FormatError, "") };
    if query.opcode() != OPCODE::StandardQuery {
        return plain(id, RCODE::NotImplemented, "");
    }
    let Some(question) = query.questions.first() else { return plain(id, RCODE::FormatError, "") };
    let name = question.qname.to_string();
    let asked = format!("\"IN {name}. {}\"", if transport == Transport::Udp { "udp" } else { "tcp" });
    let lower = name.to_ascii_lowercase();
    let block = blocks
        .iter()
        .filter_map(|block| {
            let zones = block.zones.iter().filter(|zone| is_below(&lower, zone));
            Some((zones.map(String::len).max()?, block))
        })
        .max_by_key(|(length, _)| *length);
    let Some((_, block)) = block else { return plain(id, RCODE::Refused, &asked) };
    let (wanted, internet) =
        (wanted(question.qtype), matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY));
    let found = match &block.kubernetes {
        Some(plugin) if internet => index.find(plugin, &lower, wanted),
        _ => Found::Elsewhere,
    };
    if found == Found::Elsewhere {
        let logged = block.log;
        let Some(to) = &block.forward else { return with_log(plain(id, RCODE::Refused, &asked), logged) };
        let Reply::Answer { bytes: failure, .. } = plain_for(&query, RCODE::ServerFailure) else {
            return Reply::Nothing;
        };
        return Reply::Forward { failure, to: to.clone(), asked, logged };
    }
    let reply = Draft { query: &query, block, index, wanted, transport }.write(&name, found, &asked);
    with_log(reply, block.log)
}

/// Reads a question whose counts are what a question's are, so that reading allocates little.
fn read(bytes: &[u8]) -> Option<Packet<'_>> {
    let counts = (
        header_buffer::questions(bytes).ok()?,
        header_buffer::answers(bytes).ok()?,
        header_buffer::name_servers(bytes).ok()?,
    );
    let additional = header_buffer::additional_records(bytes).ok()?;
    if counts != (1, 0, 0) || additional > MOST_ADDITIONAL {
        return None;
    }
    Packet::parse(bytes).ok()
}

fn wanted(asked: QTYPE) -> Wanted {
    match asked {
        QTYPE::TYPE(TYPE::A) => Wanted::A,
        QTYPE::TYPE(TYPE::SRV) => Wanted::Srv,
        QTYPE::TYPE(TYPE::PTR) => Wanted::Ptr,
        QTYPE::TYPE(TYPE::TXT) => Wanted::Txt,
        QTYPE::TYPE(TYPE::NS) => Wanted::Ns,
        QTYPE::TYPE(TYPE::CNAME) => Wanted::Cname,
        _ => Wanted::Other,
    }
}

fn with_log(reply: Reply, log: bool) -> Reply {
    match reply {
        Reply::Answer { bytes, rcode, asked, .. } => Reply::Answer { bytes, rcode, asked, logged: log },
        other => other,
    }
}

/// An answer that is only a code.
fn plain(id: u16, rcode: RCODE, asked: &str) -> Reply {
    let mut reply = Packet::new_reply(id);
    *reply.rcode_mut() = rcode;
    finished(&reply, asked)
}

fn plain_for(query: &Packet<'_>, rcode: RCODE) -> Reply {
    let mut reply = start(query);
    *reply.rcode_mut() = rcode;
    finished(&reply, "")
}

fn finished(reply: &Packet<'_>, asked: &str) -> Reply {
    match reply.build_bytes_vec_compressed() {
        Ok(bytes) => Reply::Answer { bytes, rcode: reply.rcode(), asked: asked.to_owned(), logged: false },
        Err(_) => Reply::Nothing,
    }
}

/// The question's own id, flags, question and EDNS, as every answer has them.
fn start<'a>(query: &Packet<'a>) -> Packet<'a> {
    let mut reply = Packet::new_reply(query.id());
    for flag in [PacketFlag::RECURSION_DESIRED, PacketFlag::CHECKING_DISABLED] {
        if query.has_flags(flag) {
            reply.set_flags(flag);
        }
    }
    reply.questions.clone_from(&query.questions);
    if let Some(opt) = query.opt() {
        let size = (opt.udp_packet_size as usize).clamp(SMALLEST, LARGEST) as u16;
        *reply.opt_mut() =
            Some(simple_dns::rdata::OPT { opt_codes: Vec::new(), udp_packet_size: size, version: 0 });
    }
    reply
}

/// An answer from the cluster's own zones on its way.
struct Draft<'a> {
    query: &'a Packet<'a>,
    block: &'a Block,
    index: &'a Index,
    wanted: Wanted,
    transport: Transport,
}

impl Draft<'_> {
    fn write(&self, name: &str, found: Found, asked: &str) -> Reply {
        let mut reply = start(self.query);
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let ttl = self.block.kubernetes.as_ref().map_or(5, |plugin| plugin.ttl);
        match found {
            Found::Records(data) => self.fill(&mut reply, name, &data, ttl),
            Found::NoName => {
                *reply.rcode_mut() = RCODE::NameError;
                reply.name_servers.extend(self.authority(name, ttl));
            }
            Found::NoData | Found::Elsewhere => reply.name_servers.extend(self.authority(name, ttl)),
        }
        self.fit(reply, asked)
    }

    fn fill(&self, reply: &mut Packet<'_>, name: &str, data: &[Data], ttl: u32) {
        let mut answers: Vec<_> = data.iter().filter_map(|data| record(name, data, ttl)).collect();
        // An alias within the cluster comes with what it leads to.
        let mut alias = only_alias(data);
        for _ in 0..MOST_ALIASES {
            let (Some(target), true) = (alias.take(), self.wanted == Wanted::A) else { break };
            let Some(plugin) = &self.block.kubernetes else { break };
            let Found::Records(more) = self.index.find(plugin, &target, self.wanted) else { break };
            answers.extend(more.iter().filter_map(|data| record(&target, data, ttl)));
            alias = only_alias(&more);
        }
        if self.block.loadbalance && answers.len() > 1 && only_alias(data).is_none() {
            let turn = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % answers.len();
            answers.rotate_left(turn);
        }
        let mut hosts: Vec<(String, Data)> = data
            .iter()
            .filter_map(|data| match data {
                Data::Srv { target, address, .. } => Some((target.clone(), Data::A(*address))),
                _ => None,
            })
            .collect();
        hosts.sort();
        hosts.dedup();
        reply.answers = answers;
        reply.additional_records = hosts.iter().filter_map(|(name, data)| record(name, data, ttl)).collect();
    }

    /// The zone's SOA: who says that there is nothing, and for how long.
    fn authority(&self, name: &str, ttl: u32) -> Option<ResourceRecord<'static>> {
        let zones = &self.block.kubernetes.as_ref()?.zones;
        let lower = name.to_ascii_lowercase();
        let zone = zones.iter().filter(|zone| is_below(&lower, zone)).max_by_key(|zone| zone.len())?;
        let soa = SOA {
            mname: owned(&format!("ns.dns.{zone}"))?,
            rname: owned(&format!("hostmaster.{zone}"))?,
            serial: jiff::Timestamp::now().as_second() as u32,
            refresh: 7200,
            retry: 1800,
            expire: 86400,
            minimum: ttl,
        };
        Some(ResourceRecord::new(owned(zone)?, CLASS::IN, ttl, RData::SOA(soa)))
    }

    /// Over UDP, cut to what the client takes, and then marked as cut.
    fn fit(&self, mut reply: Packet<'_>, asked: &str) -> Reply {
        let limit = match (self.transport, self.query.opt()) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => SMALLEST,
            (Transport::Udp, Some(opt)) => (opt.udp_packet_size as usize).clamp(SMALLEST, LARGEST),
        };
        loop {
            let Reply::Answer { bytes, rcode, .. } = finished(&reply, asked) else { return Reply::Nothing };
            if bytes.len() <= limit {
                return Reply::Answer { bytes, rcode, asked: asked.to_owned(), logged: false };
            }
            if !reply.additional_records.is_empty() {
                reply.additional_records.clear();
            } else if reply.answers.is_empty() {
                return Reply::Nothing;
            } else {
                reply.set_flags(PacketFlag::TRUNCATION);
                reply.answers.truncate(reply.answers.len() / 2);
            }
        }
    }
}

fn only_alias(data: &[Data]) -> Option<String> {
    match data {
        [Data::Cname(target)] => Some(target.clone()),
        _ => None,
    }
}

fn owned(name: &str) -> Option<Name<'static>> {
    Some(Name::new(name).ok()?.into_owned())
}

/// One record; a name that cannot be written is left out.
fn record(name: &str, data: &Data, ttl: u32) -> Option<ResourceRecord<'static>> {
    let data = match data {
        Data::A(address) => RData::A(A { address: u32::from(*address) }),
        Data::Srv { port, target, .. } => {
            RData::SRV(SRV { priority: 0, weight: 100, port: *port, target: owned(target)? })
        }
        Data::Ptr(name) => RData::PTR(PTR(owned(name)?)),
        Data::Cname(name) => RData::CNAME(CNAME(owned(name)?)),
        Data::Ns(name) => RData::NS(NS(owned(name)?)),
        Data::Txt(text) => RData::TXT(TXT::new().with_string(text).ok()?.into_owned()),
    };
    Some(ResourceRecord::new(owned(name)?, CLASS::IN, ttl, data))
}

#[cfg(test)]
mod tests {
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
        let Reply::Answer { rcode, .. } = answer(&blocks(), &index(), &crowded, Transport::Udp) else {
            panic!()
        };
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
}
