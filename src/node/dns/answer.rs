//! From a question's bytes to an answer's: one message, no I/O but what it asks to be forwarded.

use simple_dns::rdata::{A, CNAME, NS, OPT, PTR, RData, SOA, SRV, TXT};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE, header_buffer,
};

use super::corefile::{Block, is_below};
use super::edns;
use super::zone::{Data, Found, Index, Wanted};

/// What a client without EDNS can take over UDP.
const SMALLEST: usize = 512;
/// A question may bring one OPT record and perhaps a signature, nothing more.
const MOST_ADDITIONAL: u16 = 2;
/// An alias within the cluster that leads to an alias, and so on, is followed this far.
const MOST_ALIASES: usize = 8;
/// Transfers of whole zones, which CoreDNS leaves to a plugin of its own (IXFR, AXFR).
const TRANSFERS: [u16; 2] = [251, 252];

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
    /// An alias that leads out of the cluster: ask somebody else for where it leads, and add what they say.
    Chase { alias: Vec<u8>, question: Vec<u8>, to: Vec<String>, asked: String, logged: bool },
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
        return unknown_operation(&query);
    }
    if edns::version(bytes).is_some_and(|version| version != 0) {
        return edns::bad_version(&start(&query), bytes);
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
    // Only the Internet's class is served, as in CoreDNS, and no zone as a whole.
    let whole = TRANSFERS.contains(&u16::from(question.qtype));
    if whole || !matches!(question.qclass, QCLASS::CLASS(CLASS::IN)) {
        return with_log(plain(id, RCODE::Refused, &asked), block.log);
    }
    let wanted = wanted(question.qtype);
    let found = match &block.kubernetes {
        Some(plugin) => index.find(plugin, &lower, wanted),
        None => Found::Elsewhere,
    };
    if found == Found::Elsewhere {
        let logged = block.log;
        let Some(to) = &block.forward else { return with_log(plain(id, RCODE::Refused, &asked), logged) };
        let Reply::Answer { bytes: failure, .. } = plain_for(&query, RCODE::ServerFailure) else {
            return Reply::Nothing;
        };
        return Reply::Forward { failure, to: to.clone(), asked, logged };
    }
    let draft = Draft { query: &query, block, index, wanted, transport };
    let outside = draft.leads_outside(&found);
    let reply = edns::echo(draft.write(&name, found, &asked), bytes);
    match (reply, outside.zip(block.forward.clone())) {
        (Reply::Answer { bytes, asked, .. }, Some((question, to))) => {
            Reply::Chase { alias: bytes, question, to, asked, logged: block.log }
        }
        (reply, _) => with_log(reply, block.log),
    }
}

/// The alias, and after it the addresses somebody else gave for where it leads; the alias alone when they
/// gave none, or more than there is room for.
pub fn joined(alias: Vec<u8>, theirs: &[u8], transport: Transport) -> Vec<u8> {
    let taken = Packet::parse(&alias).ok().and_then(|reply| reply.opt().map(|opt| opt.udp_packet_size));
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => taken.map_or(SMALLEST, usize::from),
    };
    let whole = || {
        let mut reply = Packet::parse(&alias).ok()?;
        let more = Packet::parse(theirs).ok()?;
        reply.answers.extend(more.answers);
        let bytes = reply.build_bytes_vec_compressed().ok().filter(|bytes| bytes.len() <= limit)?;
        Some(edns::keep_flags(bytes, &alias))
    };
    whole().unwrap_or_else(|| alias.clone())
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

pub fn finished(reply: &Packet<'_>, asked: &str) -> Reply {
    match reply.build_bytes_vec_compressed() {
        Ok(bytes) => Reply::Answer { bytes, rcode: reply.rcode(), asked: asked.to_owned(), logged: false },
        Err(_) => Reply::Nothing,
    }
}

/// An operation that is no question keeps its number in the refusal.
fn unknown_operation(query: &Packet<'_>) -> Reply {
    let mut reply = Packet::new_reply(query.id());
    *reply.opcode_mut() = query.opcode();
    *reply.rcode_mut() = RCODE::NotImplemented;
    finished(&reply, "")
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
        // The client's own size, as CoreDNS says it.
        let udp_packet_size = opt.udp_packet_size.max(SMALLEST as u16);
        *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
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
            Found::Records(data) => match self.aliases(name, &data) {
                Some(chain) => self.fill(&mut reply, name, &data, chain, ttl),
                // Going round in a circle leads nowhere.
                None => reply.name_servers.extend(self.authority(name, ttl)),
            },
            Found::NoName => {
                *reply.rcode_mut() = RCODE::NameError;
                reply.name_servers.extend(self.authority(name, ttl));
            }
            // A zone's own record of authority is an answer at its top.
            Found::NoData if self.asks_for_the_zone(name) => reply.answers.extend(self.authority(name, ttl)),
            Found::NoData | Found::Elsewhere => reply.name_servers.extend(self.authority(name, ttl)),
        }
        self.fit(reply, asked)
    }

    /// The question to ask elsewhere, when a service's alias is of no name of the cluster.
    fn leads_outside(&self, found: &Found) -> Option<Vec<u8>> {
        let Found::Records(data) = found else { return None };
        let target = only_alias(data).filter(|_| self.wanted == Wanted::A)?;
        let plugin = self.block.kubernetes.as_ref()?;
        if self.index.find(plugin, &target.to_ascii_lowercase(), self.wanted) != Found::Elsewhere {
            return None;
        }
        let mut query = Packet::new_query(self.query.id());
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = owned(&target)?;
        let question = simple_dns::Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false);
        query.questions.push(question);
        query.build_bytes_vec().ok()
    }

    fn asks_for_the_zone(&self, name: &str) -> bool {
        let soa =
            matches!(self.query.questions.first().map(|asked| asked.qtype), Some(QTYPE::TYPE(TYPE::SOA)));
        let zones = self.block.kubernetes.iter().flat_map(|plugin| &plugin.zones);
        soa && zones.into_iter().any(|zone| zone.eq_ignore_ascii_case(name))
    }

    /// What an alias within the cluster leads to, name by name; nothing when it leads back.
    fn aliases(&self, name: &str, data: &[Data]) -> Option<Vec<(String, Vec<Data>)>> {
        let (mut chain, mut seen) = (Vec::<(String, Vec<Data>)>::new(), vec![name.to_ascii_lowercase()]);
        let mut alias = only_alias(data);
        while let Some(target) = alias.take() {
            let lower = target.to_ascii_lowercase();
            if seen.contains(&lower) || chain.len() == MOST_ALIASES {
                return None;
            }
            seen.push(lower.clone());
            let plugin = self.block.kubernetes.as_ref().filter(|_| self.wanted == Wanted::A);
            let Some(Found::Records(more)) =
                plugin.map(|plugin| self.index.find(plugin, &lower, self.wanted))
            else {
                break;
            };
            alias = only_alias(&more);
            chain.push((target, more));
        }
        Some(chain)
    }

    fn fill(
        &self,
        reply: &mut Packet<'_>,
        name: &str,
        data: &[Data],
        chain: Vec<(String, Vec<Data>)>,
        ttl: u32,
    ) {
        let mut answers: Vec<_> = data.iter().filter_map(|data| record(name, data, ttl)).collect();
        // An alias within the cluster comes with what it leads to.
        for (target, more) in &chain {
            answers.extend(more.iter().filter_map(|data| record(target, data, ttl)));
        }
        if self.block.loadbalance && answers.len() > 1 && only_alias(data).is_none() {
            let turn = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % answers.len();
            answers.rotate_left(turn);
        }
        let mut hosts: Vec<(String, Data)> = data
            .iter()
            .filter_map(|data| match data {
                Data::Srv { target, address, .. } => Some((target.clone(), Data::A(*address))),
                Data::Ns { name, address } => Some((name.clone(), Data::A((*address)?))),
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
            (Transport::Udp, Some(opt)) => usize::from(opt.udp_packet_size).max(SMALLEST),
        };
        let fits = |reply: &Packet<'_>| match finished(reply, asked) {
            Reply::Answer { bytes, .. } => bytes.len() <= limit,
            _ => false,
        };
        if !fits(&reply) && !reply.additional_records.is_empty() {
            reply.additional_records.clear();
        }
        if !fits(&reply) {
            reply.set_flags(PacketFlag::TRUNCATION);
            let all = std::mem::take(&mut reply.answers);
            // As many of them as there is room for.
            let (mut least, mut most) = (0, all.len());
            while least < most {
                let middle = (least + most).div_ceil(2);
                reply.answers = all[..middle].to_vec();
                (least, most) = if fits(&reply) { (middle, most) } else { (least, middle - 1) };
            }
            reply.answers = all[..least].to_vec();
        }
        finished(&reply, asked)
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
        Data::Ns { name, .. } => RData::NS(NS(owned(name)?)),
        Data::Txt(text) => RData::TXT(TXT::new().with_string(text).ok()?.into_owned()),
    };
    Some(ResourceRecord::new(owned(name)?, CLASS::IN, ttl, data))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
