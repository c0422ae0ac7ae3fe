//! A validating resolver for the tests, over UDP on loopback: it follows aliases, sets AD where all of an answer is
//! signed and the question asks for it, as unbound does, and has SERVFAIL for what is bogus.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, MX, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What the resolver knows.
#[derive(Default)]
pub(crate) struct World {
    records: Vec<(Name, RData)>,
    unsigned: Vec<Name>,
    bogus: Vec<(Name, RecordType)>,
}

pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

impl World {
    pub(crate) fn add(&mut self, owner: &str, data: RData) -> &mut Self {
        self.records.push((name(owner), data));
        self
    }

    pub(crate) fn mx(&mut self, domain: &str, preference: u16, host: &str) -> &mut Self {
        self.add(domain, RData::MX(MX::new(preference, name(host))))
    }

    pub(crate) fn address(&mut self, host: &str, address: impl Into<IpAddr>) -> &mut Self {
        self.add(host, address.into().into())
    }

    pub(crate) fn alias(&mut self, owner: &str, target: &str) -> &mut Self {
        self.add(owner, RData::CNAME(CNAME(name(target))))
    }

    pub(crate) fn text(&mut self, owner: &str, text: &str) -> &mut Self {
        self.add(owner, RData::TXT(TXT::new(vec![text.to_owned()])))
    }

    /// Everything at and below this name is in no signed zone.
    pub(crate) fn unsigned(&mut self, zone: &str) -> &mut Self {
        self.unsigned.push(name(zone));
        self
    }

    /// This question cannot be validated.
    pub(crate) fn bogus(&mut self, owner: &str, kind: RecordType) -> &mut Self {
        self.bogus.push((name(owner), kind));
        self
    }

    /// Answers until the test ends.
    pub(crate) fn serve(self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut packet) {
                let question = Message::from_vec(&packet[..length]).unwrap();
                // A lost answer is what UDP may do; the client asks again.
                let _ = socket.send_to(&self.answer(question).to_vec().unwrap(), client);
            }
        });
        address
    }

    fn answer(&self, mut message: Message) -> Message {
        let (mut owner, kind) = (message.queries[0].name().clone(), message.queries[0].query_type());
        message.metadata.message_type = MessageType::Response;
        message.metadata.recursion_available = true;
        let mut signed = true;
        loop {
            signed &= !self.unsigned.iter().any(|zone| zone.zone_of(&owner));
            let here: Vec<&RData> = self
                .records
                .iter()
                .filter(|(name, _)| *name == owner)
                .map(|(_, data)| data)
                .collect();
            let alias = here.iter().find_map(|data| match data {
                RData::CNAME(target) if kind != RecordType::CNAME => Some(target.0.clone()),
                _ => None,
            });
            let wanted = |data: &&RData| data.record_type() == kind || alias.is_some();
            for data in here.iter().copied().filter(wanted) {
                message.add_answer(Record::from_rdata(owner.clone(), 60, data.clone()));
            }
            if self.bogus.contains(&(owner.clone(), kind)) {
                message.answers.clear();
                message.metadata.response_code = ResponseCode::ServFail;
            } else if !self.records.iter().any(|(name, _)| owner.zone_of(name)) {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            match alias {
                Some(target) => owner = target,
                None => break,
            }
        }
        let failed = message.metadata.response_code == ResponseCode::ServFail;
        message.metadata.authentic_data &= signed && !failed;
        message
    }
}
