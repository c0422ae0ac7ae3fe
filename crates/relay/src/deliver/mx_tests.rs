//! The choice of hosts, and the questions to a real resolver over UDP: a small server of the test on loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::net::UdpSocket;

use super::*;

fn names(hosts: Result<Vec<Host>, Reply>) -> Vec<String> {
    hosts.unwrap().iter().map(|host| host.name().to_owned()).collect()
}

fn mx(records: &[(u16, &str)]) -> Result<Vec<Host>, Reply> {
    let records = records
        .iter()
        .map(|(preference, host)| (*preference, (*host).to_owned()))
        .collect();
    choose("d.example", records, "mx1.example.org")
}

#[test]
fn hosts_are_ordered_by_preference() {
    assert_eq!(
        names(mx(&[(20, "b.example."), (10, "A.example."), (30, "c.example.")])),
        ["a.example", "b.example", "c.example"]
    );
}

#[test]
fn equal_hosts_share_the_load() {
    let first: BTreeSet<String> = (0..100)
        .map(|_| names(mx(&[(10, "a.example."), (10, "b.example."), (20, "c.example.")])).remove(0))
        .collect();
    assert_eq!(first.into_iter().collect::<Vec<_>>(), ["a.example", "b.example"]);
}

#[test]
fn only_better_hosts_than_ourselves_count() {
    let hosts = mx(&[
        (10, "a.example."),
        (20, "MX1.example.org."),
        (20, "b.example."),
        (30, "c.example."),
    ]);
    assert_eq!(names(hosts), ["a.example"]);
    let reply = mx(&[(10, "mx1.example.org."), (20, "b.example.")]).unwrap_err();
    assert_eq!(reply.to_string(), reasons::loops_back("d.example").to_string());
}

#[test]
fn a_null_mx_takes_no_mail() {
    assert_eq!(mx(&[(0, ".")]).unwrap_err().code.value(), 556);
    // Beside others it is nonsense and is passed over.
    assert_eq!(names(mx(&[(0, "."), (10, "a.example.")])), ["a.example"]);
}

/// Answers for a few names until the test ends.
async fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut octets = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut octets).await {
            let answer = answer(&Message::from_bytes(&octets[..length]).unwrap());
            socket.send_to(&answer.to_bytes().unwrap(), peer).await.unwrap();
        }
    });
    address
}

fn answer(question: &Message) -> Message {
    let query = question.queries[0].clone();
    let (name, kind) = (query.name().to_ascii(), query.query_type());
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    let data = match (name.as_str(), kind) {
        ("two.example.", RecordType::MX) => vec![
            RData::MX(MX::new(20, Name::from_ascii("b.example.").unwrap())),
            RData::MX(MX::new(10, Name::from_ascii("a.example.").unwrap())),
        ],
        ("null.example.", RecordType::MX) => vec![RData::MX(MX::new(0, Name::root()))],
        ("implicit.example." | "a.example.", RecordType::A) => vec![RData::A(A::new(192, 0, 2, 7))],
        ("implicit.example." | "bare.example." | "a.example.", _) => Vec::new(),
        ("broken.example.", _) => {
            answer.metadata.response_code = ResponseCode::ServFail;
            Vec::new()
        }
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            Vec::new()
        }
    };
    let records = data
        .into_iter()
        .map(|data| Record::from_rdata(query.name().clone(), 60, data));
    answer.answers.extend(records);
    answer
}

#[tokio::test]
async fn the_resolver_is_asked() {
    let mx = Mx::new(Dns::new(server().await));
    let hosts = async |domain: &str| mx.hosts(domain, "mx1.example.org").await.map(|hosts| hosts.list);
    let code = async |domain: &str| hosts(domain).await.unwrap_err().code.value();
    assert_eq!(names(hosts("two.example").await), ["a.example", "b.example"]);
    assert_eq!(names(hosts("implicit.example").await), ["implicit.example"]);
    assert_eq!(code("null.example").await, 556);
    assert_eq!(code("bare.example").await, 550);
    assert_eq!(code("missing.example").await, 550);
    assert_eq!(code("broken.example").await, 451);
    let literal = hosts("[192.0.2.9]").await.unwrap();
    assert_eq!(
        mx.addresses(&literal[0]).await.unwrap().list,
        ["192.0.2.9".parse::<IpAddr>().unwrap()]
    );
    let host = Host::Name("a.example".into());
    assert_eq!(
        mx.addresses(&host).await.unwrap().list,
        ["192.0.2.7".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(
        mx.addresses(&Host::Name("missing.example".into()))
            .await
            .unwrap_err()
            .code
            .value(),
        451
    );
}
