//! DANE: a host whose TLSA records are validated must show the certificate that they name, or gets nothing; the next
//! hop itself is only opportunistic, so that whatever holds here holds because of the records.

use std::net::Ipv4Addr;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use hickory_resolver::proto::rr::rdata::TLSA;
use hickory_resolver::proto::rr::{RData, RecordType};
use rcgen::{Certificate, CertificateParams, KeyPair, PublicKeyData as _};

use crate::names::World;
use crate::outward::{configuration, server, try_all, with_tls};
use crate::sink::Sink;
use crate::tls::{Authority, host_at};

/// Long out of date, and for nobody's name.
pub(crate) fn expired() -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["nobody.invalid".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    (params.self_signed(&key).unwrap(), key)
}

pub(crate) fn tlsa(usage: u8, selector: u8, matching: u8, data: &[u8]) -> RData {
    RData::TLSA(TLSA::new(
        usage.into(),
        selector.into(),
        matching.into(),
        data.to_vec(),
    ))
}

#[tokio::test]
async fn only_the_certificate_that_the_dns_names_gets_mail() {
    let sink = Sink::start();
    let [odd, chained, clear] = [1, 2, 3].map(|host| Ipv4Addr::new(127, 0, 25, host));
    let (certificate, key) = expired();
    let port = host_at(
        (odd, 0).into(),
        &sink,
        Some(server(vec![certificate.der().clone()], &key)),
    )
    .port();
    let authority = Authority::new();
    let (leaf, leaf_key) = authority.issue("mx.authority.example");
    let chain = vec![leaf.der().clone(), authority.der().clone()];
    host_at((chained, port).into(), &sink, Some(server(chain, &leaf_key)));
    host_at((clear, port).into(), &sink, None);

    let whole = certificate.der().to_vec();
    let spki = key.subject_public_key_info();
    let of_key = digest(&SHA256, &spki).as_ref().to_vec();
    let of_authority = digest(&SHA256, authority.der()).as_ref().to_vec();
    let other = digest(&SHA256, b"another key").as_ref().to_vec();
    let longer_other = digest(&SHA512, b"another key").as_ref().to_vec();
    let cases: Vec<(&str, Ipv4Addr, Vec<RData>, Result<&str, &str>)> = vec![
        ("key.example", odd, vec![tlsa(3, 1, 1, &of_key)], Ok("dane TLS")),
        (
            "digest.example",
            odd,
            vec![tlsa(3, 0, 2, digest(&SHA512, &whole).as_ref())],
            Ok("dane TLS"),
        ),
        ("whole.example", odd, vec![tlsa(3, 0, 0, &whole)], Ok("dane TLS")),
        (
            "bare-key.example",
            odd,
            vec![tlsa(3, 1, 0, &spki)],
            Ok("dane TLS"),
        ),
        (
            "roll-over.example",
            odd,
            vec![tlsa(3, 1, 1, &other), tlsa(3, 1, 1, &of_key)],
            Ok("dane TLS"),
        ),
        (
            "authority.example",
            chained,
            vec![tlsa(2, 0, 1, &of_authority)],
            Ok("dane TLS"),
        ),
        (
            "authority-whole.example",
            chained,
            vec![tlsa(2, 0, 0, authority.der())],
            Err("not valid for name"),
        ),
        (
            "other-name.example",
            chained,
            vec![tlsa(2, 0, 1, &of_authority)],
            Err("not valid for name"),
        ),
        (
            "not-in-chain.example",
            odd,
            vec![tlsa(2, 0, 1, &of_authority)],
            Err("no TLSA record"),
        ),
        (
            "mismatch.example",
            odd,
            vec![tlsa(3, 1, 1, &other)],
            Err("no TLSA record"),
        ),
        // A stronger digest is there, so the weaker one does not count (RFC 7671 9).
        (
            "weaker.example",
            odd,
            vec![tlsa(3, 1, 1, &of_key), tlsa(3, 1, 2, &longer_other)],
            Err("no TLSA record"),
        ),
        (
            "mixed.example",
            odd,
            vec![tlsa(3, 1, 1, &other), tlsa(1, 1, 1, &of_key)],
            Err("no TLSA record"),
        ),
        (
            "unusable.example",
            odd,
            vec![tlsa(1, 1, 1, &other), tlsa(3, 1, 1, b"short")],
            Ok("none TLS"),
        ),
        (
            "unusable-clear.example",
            clear,
            vec![tlsa(0, 1, 1, &other)],
            Err("offers no STARTTLS"),
        ),
        (
            "clear.example",
            clear,
            vec![tlsa(3, 1, 1, &of_key)],
            Err("offers no STARTTLS"),
        ),
        ("none.example", odd, vec![], Ok("none TLS")),
        ("none-clear.example", clear, vec![], Ok("none clear")),
        ("bogus.example", odd, vec![], Err("TLSA")),
        (
            "unsigned.example",
            odd,
            vec![tlsa(3, 1, 1, &other)],
            Ok("none TLS"),
        ),
        // The hosts of an unsigned domain are anyone's word, their own records do not change that.
        (
            "unsigned-domain.example",
            odd,
            vec![tlsa(3, 1, 1, &other)],
            Ok("none TLS"),
        ),
    ];
    let mut world = World::default();
    for (domain, address, records, _) in &cases {
        let host = format!("mx.{domain}");
        world.mx(domain, 10, &host).address(&host, *address);
        for record in records {
            world.add(&format!("_{port}._tcp.{host}"), record.clone());
        }
    }
    world.bogus(&format!("_{port}._tcp.mx.bogus.example"), RecordType::TLSA);
    world.unsigned("mx.unsigned.example");
    world
        .mx("unsigned-domain.example", 5, "mx.mismatch.example")
        .unsigned("unsigned-domain.example");
    let domains: Vec<&str> = cases.iter().map(|case| case.0).collect();
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(world.serve(), port, "");
    let (results, events) = try_all(directory.path(), &configuration, &domains).await;
    for ((domain, _, _, expected), result) in cases.iter().zip(&results) {
        match (expected, result) {
            (Ok(expected), Ok(got)) => assert_eq!(expected, got, "{domain}"),
            (Err(expected), Err(reply)) => {
                assert!(
                    reply.contains(expected) && reply.starts_with('4'),
                    "{domain}: {reply}"
                );
            }
            _ => panic!("{domain}: expected {expected:?}, got {result:?}; {events:#?}"),
        }
    }
    let delivered = cases.iter().filter(|case| case.3.is_ok()).count();
    assert_eq!(sink.taken().len(), delivered);
}

#[tokio::test]
async fn the_next_host_is_tried_and_aliases_are_followed() {
    let sink = Sink::start();
    let address = Ipv4Addr::new(127, 0, 25, 9);
    let (certificate, key) = expired();
    let port = host_at(
        (address, 0).into(),
        &sink,
        Some(server(vec![certificate.der().clone()], &key)),
    )
    .port();
    let right = tlsa(3, 1, 1, digest(&SHA256, &key.subject_public_key_info()).as_ref());
    let wrong = tlsa(3, 1, 1, digest(&SHA256, b"another key").as_ref());
    let at = |host: &str| format!("_{port}._tcp.{host}");
    let mut world = World::default();
    world
        .mx("second.example", 10, "bad.second.example")
        .mx("second.example", 20, "good.second.example");
    world
        .address("bad.second.example", address)
        .address("good.second.example", address);
    world
        .add(&at("bad.second.example"), wrong.clone())
        .add(&at("good.second.example"), right.clone());
    // Both names are signed: the records of the target count, then those of the alias.
    world
        .mx("target.example", 10, "mx.target.example")
        .alias("mx.target.example", "real.target.example");
    world.address("real.target.example", address);
    world
        .add(&at("real.target.example"), right.clone())
        .add(&at("mx.target.example"), wrong.clone());
    world
        .mx("fallback.example", 10, "mx.fallback.example")
        .alias("mx.fallback.example", "real.fallback.example");
    world
        .address("real.fallback.example", address)
        .add(&at("mx.fallback.example"), wrong.clone());
    // Only the alias is signed: its own records count.
    world
        .mx("half.example", 10, "mx.half.example")
        .alias("mx.half.example", "real.unsigned.example");
    world
        .address("real.unsigned.example", address)
        .unsigned("real.unsigned.example");
    world.add(&at("mx.half.example"), wrong);
    // Neither MX nor another name: the domain is its own host.
    world
        .address("implicit.example", address)
        .add(&at("implicit.example"), right);
    let domains = [
        "second.example",
        "target.example",
        "fallback.example",
        "half.example",
        "implicit.example",
    ];
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(world.serve(), port, "");
    let (results, events) = try_all(directory.path(), &configuration, &domains).await;
    let summary: Vec<&str> = results
        .iter()
        .map(|result| result.as_deref().unwrap_or("refused"))
        .collect();
    assert_eq!(
        summary,
        ["dane TLS", "dane TLS", "refused", "refused", "dane TLS"],
        "{events:#?}"
    );
    assert_eq!(sink.taken().len(), 3);
}

#[tokio::test]
async fn an_exception_lifts_what_we_require_but_not_what_the_domain_publishes() {
    let sink = Sink::start();
    let address = Ipv4Addr::new(127, 0, 25, 17);
    let port = host_at((address, 0).into(), &sink, None).port();
    let mut world = World::default();
    for domain in ["excepted.example", "strict.example", "published.example"] {
        let host = format!("mx.{domain}");
        world.mx(domain, 10, &host).address(&host, address);
    }
    let any = digest(&SHA256, b"a key");
    world.add(
        &format!("_{port}._tcp.mx.published.example"),
        tlsa(3, 1, 1, any.as_ref()),
    );
    let tls = "\"required\"\ntls-exceptions = [\"Excepted.example\", \"published.example\"]";
    let configuration = with_tls(world.serve(), port, tls, "");
    let directory = tempfile::tempdir().unwrap();
    let domains = ["excepted.example", "strict.example", "published.example"];
    let (results, _) = try_all(directory.path(), &configuration, &domains).await;
    assert_eq!(results[0], Ok("none clear".into()));
    for refused in &results[1..] {
        let reply = refused.as_ref().unwrap_err();
        assert!(reply.contains("offers no STARTTLS"), "{reply}");
    }
    assert_eq!(sink.taken().len(), 1);
}
