//! Lists of addresses in DNS: those whose mail is not wanted, and those that are vouched for (RFC 5782).
//!
//! A list is asked only while it keeps the standard's promise about the test addresses (section 5): one that lists nobody is
//! dead, one that lists everybody is worse. That is tried at start and from time to time, and its loss said loudly. An answer outside
//! the wanted codes is none, and one of 127.255.255.0/24 says that the list does not serve us. No answer is held against nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use serde::{Deserialize, Serialize};

use super::{Facts, Observation, Seeing, Tools, join};
use crate::config::{CheckName, DnsList, ListAction};
use crate::deliver::dns::Dns;
use crate::events::Events;

/// How often the lists are tried,
const AGAIN: Duration = Duration::from_hours(1);
/// and where one is broken.
const SOONER: Duration = Duration::from_mins(5);
/// Wait for one list, less than the time of the whole check, so that one that is silent does not silence the others.
const ANSWER: Duration = Duration::from_secs(4);
/// Wait at start, for all lists together: mail is not kept waiting by a list that does not answer.
const AT_START: Duration = Duration::from_secs(5);
/// Section 5: this is on every list of IPv4 addresses,
const LISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// and this on none;
const UNLISTED: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// of IPv6 addresses likewise.
const LISTED6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 2));
const UNLISTED6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1));

/// What the lists say of a client.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Listing {
    /// A list that vouches for it; then the others do not count.
    pub allowed: Option<String>,
    /// Lists that have it, and what the site does about that.
    pub hits: Vec<Hit>,
    /// Lists that did not answer.
    pub silent: Vec<String>,
}

/// A list that has the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The list.
    pub zone: String,
    /// What it answered.
    pub code: Ipv4Addr,
    /// What follows.
    pub action: ListAction,
    /// Added to the spam score, where `action` is that.
    pub weight: f64,
}

impl Listing {
    /// What is added to the spam score.
    pub fn weight(&self) -> f64 {
        self.hits.iter().map(|hit| hit.weight).sum()
    }

    /// How it is known, for the trace.
    pub fn evidence(&self) -> String {
        let mut parts: Vec<String> = self
            .allowed
            .iter()
            .map(|zone| format!("vouched for by {zone}"))
            .collect();
        parts.extend(
            self.hits
                .iter()
                .map(|hit| format!("on {} ({})", hit.zone, hit.code)),
        );
        parts.extend(self.silent.iter().map(|why| format!("no answer: {why}")));
        if parts.is_empty() {
            "on no list".to_owned()
        } else {
            parts.join("; ")
        }
    }
}

/// All lists of one process.
pub struct Lists {
    lists: Vec<List>,
    dns: Dns,
}

struct List {
    config: DnsList,
    /// Whether it kept its promise when it was tried last, for IPv4 and IPv6.
    works: [AtomicBool; 2],
    /// Whether its state has been said.
    said: AtomicBool,
}

/// One address on one list.
enum Answer {
    No,
    Yes(Vec<Ipv4Addr>),
    Silent(String),
}

/// The row of the table.
pub fn see<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        if facts.listed {
            return Vec::new();
        }
        let listing = tools.lists.look(facts.peer).await;
        let evidence = listing.evidence();
        vec![(CheckName::DnsLists, Observation::Lists(listing), evidence)]
    })
}

impl Lists {
    /// Lists that have not been tried yet, and are not asked before.
    pub fn new(configured: &[DnsList], dns: Dns) -> Self {
        let lists = configured.iter().map(|config| List {
            config: config.clone(),
            works: Default::default(),
            said: AtomicBool::new(false),
        });
        Self {
            lists: lists.collect(),
            dns,
        }
    }

    /// Tries all lists, for a few seconds at most; [`Self::keep_trying`] says more.
    pub async fn try_at_start(&self, events: &Events) {
        let _ = tokio::time::timeout(AT_START, self.try_all(events)).await;
    }

    /// Tries them every hour, for as long as the process lives; those that did not answer at start, at once.
    pub async fn keep_trying(&self, events: &Events) {
        while !self.lists.is_empty() {
            let works = |list: &List| list.works[0].load(Ordering::Relaxed);
            if self.lists.iter().all(|list| list.said.load(Ordering::Relaxed)) {
                tokio::time::sleep(if self.lists.iter().all(works) {
                    AGAIN
                } else {
                    SOONER
                })
                .await;
            }
            self.try_all(events).await;
        }
    }

    async fn try_all(&self, events: &Events) {
        join(
            self.lists
                .iter()
                .map(|list| list.try_out(&self.dns, events))
                .collect(),
        )
        .await;
    }

    /// Asks all lists that work, side by side.
    async fn look(&self, peer: IpAddr) -> Listing {
        let family = usize::from(peer.is_ipv6());
        let working = self
            .lists
            .iter()
            .filter(|list| list.works[family].load(Ordering::Relaxed));
        let asked = working.map(|list| async move { (&list.config, list.look(&self.dns, peer).await) });
        let mut listing = Listing::default();
        for (list, answer) in join(asked.collect()).await {
            let code = match answer {
                Answer::No => continue,
                Answer::Silent(why) => {
                    listing.silent.push(format!("{} ({why})", list.zone));
                    continue;
                }
                Answer::Yes(codes) => codes.into_iter().find(|code| list.wants(*code)),
            };
            match code {
                None => {}
                Some(_) if list.action == ListAction::Allow => listing.allowed = Some(list.zone.clone()),
                Some(code) => listing.hits.push(Hit {
                    zone: list.zone.clone(),
                    code,
                    action: list.action,
                    weight: list.weight.unwrap_or_default(),
                }),
            }
        }
        if listing.allowed.is_some() {
            listing.hits.clear();
        }
        listing
    }
}

impl List {
    /// The list must keep the other half of its promise at this moment too: between two trials it may have begun to list
    /// everybody.
    async fn look(&self, dns: &Dns, peer: IpAddr) -> Answer {
        let answer = self.ask(dns, peer).await;
        if !matches!(answer, Answer::Yes(_)) {
            return answer;
        }
        let unlisted = if peer.is_ipv4() { UNLISTED } else { UNLISTED6 };
        match self.ask(dns, unlisted).await {
            Answer::No => answer,
            Answer::Yes(_) => Answer::Silent(format!("it lists {unlisted}, and so perhaps everybody")),
            silent @ Answer::Silent(_) => silent,
        }
    }

    async fn ask(&self, dns: &Dns, address: IpAddr) -> Answer {
        let Ok(name) = Name::from_ascii(format!("{}.{}.", reversed(address), self.config.zone)) else {
            return Answer::Silent("its name is too long".to_owned());
        };
        let answer = match tokio::time::timeout(ANSWER, dns.ask(name, RecordType::A)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Answer::Silent(error),
            Err(_) => return Answer::Silent(format!("none in {} s", ANSWER.as_secs())),
        };
        let codes: Vec<Ipv4Addr> = answer
            .data
            .into_iter()
            .filter_map(|data| match data {
                RData::A(address) => Some(address.0),
                _ => None,
            })
            .collect();
        match codes.iter().find(|code| !is_listing(**code)) {
            _ if codes.is_empty() => Answer::No,
            Some(code) => Answer::Silent(format!("it answers {code}, which lists nobody")),
            None => Answer::Yes(codes),
        }
    }

    /// Tries the test addresses, and says what changed.
    async fn try_out(&self, dns: &Dns, events: &Events) {
        let ask = |address| self.ask(dns, address);
        let answers = join(vec![ask(LISTED), ask(UNLISTED), ask(LISTED6), ask(UNLISTED6)]).await;
        let [listed, unlisted, listed6, unlisted6] = &answers[..] else {
            return;
        };
        let fault = fault(listed, unlisted);
        let works6 = matches!((listed6, unlisted6), (Answer::Yes(_), Answer::No));
        // Not every list knows IPv6 addresses: then it is not asked about them.
        self.works[1].store(fault.is_none() && works6, Ordering::Relaxed);
        let worked = self.works[0].swap(fault.is_none(), Ordering::Relaxed);
        let said = self.said.swap(true, Ordering::Relaxed);
        let zone = &self.config.zone;
        match fault {
            Some(fault) if worked || !said => events.warn(format!(
                "THE DNS LIST {zone} IS BROKEN AND IGNORED: {fault} (RFC 5782 section 5); it is tried again every few minutes. \
                 See what its operator says about your resolver, or take it out of the site"
            )),
            None if !worked && said => events.warn(format!("the DNS list {zone} works again, and is asked")),
            _ => {}
        }
    }
}

fn fault(listed: &Answer, unlisted: &Answer) -> Option<String> {
    match (listed, unlisted) {
        (Answer::Yes(_), Answer::No) => None,
        (Answer::Silent(why), _) | (_, Answer::Silent(why)) => Some(why.clone()),
        (Answer::No, _) => Some("it does not list its test address 127.0.0.2".to_owned()),
        (_, Answer::Yes(_)) => Some("it lists 127.0.0.1, and so perhaps everybody".to_owned()),
    }
}

/// Answers lie in 127.0.0.0/8 (section 2.1); large lists say in 127.255.255.0/24 why they do not answer.
fn is_listing(code: Ipv4Addr) -> bool {
    code.is_loopback() && !code.octets().starts_with(&[127, 255, 255])
}

/// The labels of an address, last part first (sections 2.1 and 2.4).
fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(address) => {
            let octets = address.octets().into_iter().rev();
            let labels: Vec<String> = octets
                .map(|octet| format!("{:x}.{:x}", octet & 15, octet >> 4))
                .collect();
            labels.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::A;

    use super::*;
    use crate::config::Network;

    #[test]
    fn addresses_are_written_backwards() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192");
        // The example of RFC 5782 section 2.4.
        assert_eq!(
            reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"
        );
    }

    #[test]
    fn a_list_must_keep_its_promise() {
        let yes = || Answer::Yes(vec![Ipv4Addr::new(127, 0, 0, 2)]);
        let silent = || Answer::Silent("refused".into());
        assert_eq!(fault(&yes(), &Answer::No), None);
        for (listed, unlisted) in [
            (Answer::No, Answer::No),
            (yes(), yes()),
            (silent(), Answer::No),
            (yes(), silent()),
        ] {
            assert!(fault(&listed, &unlisted).is_some());
        }
    }

    /// A name server that answers for these owners with 127.0.0.2, and that all others do not exist.
    fn listing(owners: &'static [&str]) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let mut message = Message::from_vec(&packet[..length]).unwrap();
                let name = message.queries[0].name().clone();
                message.metadata.message_type = MessageType::Response;
                if owners.contains(&name.to_ascii().as_str()) {
                    let data = RData::A(A(Ipv4Addr::new(127, 0, 0, 2)));
                    message.add_answer(Record::from_rdata(name, 60, data));
                } else {
                    message.metadata.response_code = ResponseCode::NXDomain;
                }
                socket.send_to(&message.to_vec().unwrap(), from).unwrap();
            }
        });
        Dns::new(address)
    }

    async fn zones_that_list(peer: &str, zones: &[&str], dns: Dns) -> Vec<String> {
        let configured = zones.iter().map(|zone| DnsList {
            zone: (*zone).to_owned(),
            action: ListAction::Reject,
            weight: None,
            codes: vec![Network::try_from("127.0.0.0/8".to_owned()).unwrap()],
        });
        let lists = Lists::new(&configured.collect::<Vec<_>>(), dns);
        let events = Events::to("test", std::io::sink());
        assert_eq!(
            lists.look(peer.parse().unwrap()).await,
            Listing::default(),
            "not before it is tried"
        );
        lists.try_at_start(&events).await;
        let hits = lists.look(peer.parse().unwrap()).await.hits;
        hits.into_iter().map(|hit| hit.zone).collect()
    }

    #[tokio::test]
    async fn each_family_is_asked_where_the_list_knows_it() {
        // `old` knows IPv4 alone and lacks the test address of IPv6: what it has of IPv6 all the same does not count.
        let dns = listing(&[
            "2.0.0.127.old.example.",
            "2.0.0.127.new.example.",
            "1.2.0.192.old.example.",
            "1.2.0.192.new.example.",
            "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.new.example.",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.new.example.",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.old.example.",
        ]);
        let zones = ["old.example", "new.example"];
        assert_eq!(zones_that_list("192.0.2.1", &zones, dns).await, zones);
        assert_eq!(zones_that_list("2001:db8::1", &zones, dns).await, ["new.example"]);
        assert!(zones_that_list("192.0.2.2", &zones, dns).await.is_empty());
    }

    #[tokio::test]
    async fn a_list_that_begins_to_list_everybody_refuses_nobody() {
        let config = DnsList {
            zone: "old.example".to_owned(),
            action: ListAction::Reject,
            weight: None,
            codes: vec![Network::try_from("127.0.0.0/8".to_owned()).unwrap()],
        };
        let good = listing(&["2.0.0.127.old.example.", "1.2.0.192.old.example."]);
        let mut lists = Lists::new(&[config], good);
        lists.try_at_start(&Events::to("test", std::io::sink())).await;
        let peer = "192.0.2.1".parse().unwrap();
        assert_eq!(lists.look(peer).await.hits.len(), 1);
        lists.dns = listing(&[
            "2.0.0.127.old.example.",
            "1.0.0.127.old.example.",
            "1.2.0.192.old.example.",
        ]);
        let seen = lists.look(peer).await;
        assert!(seen.hits.is_empty() && seen.silent.len() == 1, "{seen:?}");
    }

    #[test]
    fn a_message_to_our_resolver_is_no_listing() {
        for (code, is) in [
            ("127.0.0.2", true),
            ("127.255.254.1", true),
            ("127.255.255.254", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(is_listing(code.parse().unwrap()), is, "{code}");
        }
    }
}
