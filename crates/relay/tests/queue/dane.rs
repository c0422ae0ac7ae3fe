//! DANE: a host whose TLSA records are validated must show the certificate that they name, or gets nothing; the next
//! hop itself is only opportunistic, so that whatever holds here holds because of the records.

use std::net::Ipv4Addr;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use hickory_resolver::proto::rr::rdata::TLSA;
use hickory_resolver::proto::rr::{RData, RecordType};
use rcgen::{Certificate, CertificateParams, KeyPair, PublicKeyData as _};

use crate::names::World;
use crate::outward::{Case, compare, configuration, deferred, server, taken, try_all, with_tls};
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

/// Shows a certificate of nobody, long out of date.
const ODD: Ipv4Addr = Ipv4Addr::new(127, 0, 25, 1);
/// Shows one of an authority, and the authority's.
const CHAINED: Ipv4Addr = Ipv4Addr::new(127, 0, 25, 2);
const CLEAR: Ipv4Addr = Ipv4Addr::new(127, 0, 25, 3);

/// `whole` and `key` are those of the host at ODD, `authority` the certificate that CHAINED is under.
fn cases(whole: &[u8], key: &[u8], authority: &[u8]) -> Vec<Case<Vec<RData>>> {
    let sha256 = |octets: &[u8]| digest(&SHA256, octets).as_ref().to_vec();
    let sha512 = |octets: &[u8]| digest(&SHA512, octets).as_ref().to_vec();
    let right = || tlsa(3, 1, 1, &sha256(key));
    let wrong = || tlsa(3, 1, 1, &sha256(b"another key"));
    let stronger = tlsa(3, 1, 2, &sha512(b"another key"));
    let under = || vec![tlsa(2, 0, 1, &sha256(authority))];
    let no_fit = "no TLSA record";
    vec![
        taken("key.example", ODD, vec![right()], "dane TLS"),
        taken(
            "digest.example",
            ODD,
            vec![tlsa(3, 0, 2, &sha512(whole))],
            "dane TLS",
        ),
        taken("whole.example", ODD, vec![tlsa(3, 0, 0, whole)], "dane TLS"),
        taken("bare-key.example", ODD, vec![tlsa(3, 1, 0, key)], "dane TLS"),
        taken("roll-over.example", ODD, vec![wrong(), right()], "dane TLS"),
        taken("authority.example", CHAINED, under(), "dane TLS"),
        deferred("other-name.example", CHAINED, under(), "not valid for name"),
        deferred(
            "whole-authority.example",
            CHAINED,
            vec![tlsa(2, 0, 0, authority)],
            "not valid for name",
        ),
        deferred("not-in-chain.example", ODD, under(), no_fit),
        deferred("mismatch.example", ODD, vec![wrong()], no_fit),
        // A stronger digest is there, so the weaker one does not count (RFC 7671 9).
        deferred("weaker.example", ODD, vec![right(), stronger], no_fit),
        deferred(
            "mixed.example",
            ODD,
            vec![wrong(), tlsa(1, 1, 1, &sha256(key))],
            no_fit,
        ),
        taken(
            "unusable.example",
            ODD,
            vec![tlsa(1, 1, 1, &sha256(b"x")), tlsa(3, 1, 1, b"short")],
            "none TLS",
        ),
        deferred(
            "unusable-clear.example",
            CLEAR,
            vec![tlsa(0, 1, 1, &sha256(b"x"))],
            "offers no STARTTLS",
        ),
        deferred("clear.example", CLEAR, vec![right()], "offers no STARTTLS"),
        taken("none.example", ODD, vec![], "none TLS"),
        taken("none-clear.example", CLEAR, vec![], "none clear"),
        deferred("bogus.example", ODD, vec![], "TLSA"),
        taken("unsigned.example", ODD, vec![wrong()], "none TLS"),
        // The hosts of an unsigned domain are anyone's word, their own records do not change that.
        taken("unsigned-domain.example", ODD, vec![wrong()], "none TLS"),
    ]
}

#[tokio::test]
async fn only_the_certificate_that_the_dns_names_gets_mail() {
    let sink = Sink::start();
    let (certificate, key) = expired();
    let odd = server(vec![certificate.der().clone()], &key);
    let port = host_at((ODD, 0).into(), &sink, Some(odd)).port();
    let authority = Authority::new();
    let (leaf, leaf_key) = authority.issue("mx.authority.example");
    let chain = vec![leaf.der().clone(), authority.der().clone()];
    host_at((CHAINED, port).into(), &sink, Some(server(chain, &leaf_key)));
    host_at((CLEAR, port).into(), &sink, None);
    let cases = cases(certificate.der(), &key.subject_public_key_info(), authority.der());
    let mut world = World::default();
    for case in &cases {
        let host = format!("mx.{}", case.domain);
        world.mx(case.domain, 10, &host).address(&host, case.host);
        for record in &case.published {
            world.add(&format!("_{port}._tcp.{host}"), record.clone());
        }
    }
    world.bogus(&format!("_{port}._tcp.mx.bogus.example"), RecordType::TLSA);
    world.unsigned("mx.unsigned.example");
    world
        .mx("unsigned-domain.example", 5, "mx.mismatch.example")
        .unsigned("unsigned-domain.example");
    let domains: Vec<&str> = cases.iter().map(|case| case.domain).collect();
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(world.serve(), port, "");
    let (results, _) = try_all(directory.path(), &configuration, &domains).await;
    assert_eq!(sink.taken().len(), compare(&cases, &results));
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
