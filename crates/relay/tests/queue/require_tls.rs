//! REQUIRETLS and `TLS-Required: No` (RFC 8689): the sender demands a proved way, or waives all proof.

use std::net::Ipv4Addr;

use aws_lc_rs::digest::{SHA256, digest};
use postern_control::EventKind;
use rcgen::PublicKeyData as _;

use crate::dane::{expired, tlsa};
use crate::names::World;
use crate::outward::{configuration, server, try_mail};
use crate::sink::Sink;
use crate::tls::host_at;

const MESSAGE: &[u8] = b"From: <app@example.org>\r\nSubject: Hello\r\n\r\nHi.\r\n";
const WAIVED: &[u8] = b"From: <app@example.org>\r\nTLS-Required: No\r\n\r\nHi.\r\n";

/// Hosts that prove themselves by TLSA records, one promising to keep to REQUIRETLS and one not, and one in clear.
struct Hosts {
    sink: Sink,
    port: u16,
    right: Vec<u8>,
}

const PROMISING: Ipv4Addr = Ipv4Addr::new(127, 0, 27, 1);
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 27, 2);
const CLEAR: Ipv4Addr = Ipv4Addr::new(127, 0, 27, 3);

impl Hosts {
    fn start() -> Self {
        let sink = Sink::start();
        let (certificate, key) = expired();
        let tls = server(vec![certificate.der().clone()], &key);
        let port = host_at(
            (PROMISING, 0).into(),
            &sink.offering("REQUIRETLS"),
            Some(tls.clone()),
        )
        .port();
        host_at((SILENT, port).into(), &sink, Some(tls));
        host_at((CLEAR, port).into(), &sink, None);
        let right = digest(&SHA256, &key.subject_public_key_info()).as_ref().to_vec();
        Self { sink, port, right }
    }

    fn proved(&self, world: &mut World, host: &str, key: &[u8]) {
        world.add(&format!("_{}._tcp.{host}", self.port), tlsa(3, 1, 1, key));
    }
}

#[tokio::test]
async fn mail_that_requires_tls_goes_only_to_proved_hosts_that_promise_it() {
    let hosts = Hosts::start();
    let mut world = World::default();
    for (domain, preference, host, address) in [
        ("proved.example", 10, "mx.proved.example", PROMISING),
        ("unproved.example", 10, "mx.unproved.example", PROMISING),
        ("unpromised.example", 10, "mx.unpromised.example", SILENT),
        ("second.example", 10, "mx1.second.example", SILENT),
        ("second.example", 20, "mx2.second.example", PROMISING),
    ] {
        world.mx(domain, preference, host).address(host, address);
        if domain != "unproved.example" {
            hosts.proved(&mut world, host, &hosts.right);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(world.serve(), hosts.port, "");
    let domains = [
        "proved.example",
        "unproved.example",
        "unpromised.example",
        "second.example",
    ];
    let (results, events) = try_mail(directory.path(), &configuration, &domains, MESSAGE, true).await;
    assert_eq!(results[0], Ok("dane TLS".into()));
    assert_eq!(results[3], Ok("dane TLS".into()));
    for (refused, why) in [
        (&results[1], "nothing proves mx.unproved.example"),
        (&results[2], "does not offer that"),
    ] {
        let reply = refused.as_ref().unwrap_err();
        assert!(reply.starts_with("550 5.7.30") && reply.contains(why), "{reply}");
    }
    let taken = hosts.sink.taken();
    assert_eq!(taken.len(), 2);
    assert!(
        taken.iter().all(|mail| mail.mail.ends_with(" REQUIRETLS")),
        "{taken:#?}"
    );
    let told = events.iter().filter(|kind| matches!(kind, EventKind::Dsn { .. }));
    assert_eq!(told.count(), 2);
}

#[tokio::test]
async fn the_author_may_waive_proof_and_encryption() {
    let hosts = Hosts::start();
    let mut world = World::default();
    for (domain, address) in [("wrong.example", SILENT), ("clear.example", CLEAR)] {
        let host = format!("mx.{domain}");
        world.mx(domain, 10, &host).address(&host, address);
        hosts.proved(&mut world, &host, digest(&SHA256, b"another key").as_ref());
    }
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(world.serve(), hosts.port, "");
    let domains = ["wrong.example", "clear.example"];
    let (results, _) = try_mail(directory.path(), &configuration, &domains, WAIVED, false).await;
    assert_eq!(results, [Ok("none TLS".into()), Ok("none clear".into())]);
    // REQUIRETLS is above it.
    let (results, _) = try_mail(directory.path(), &configuration, &domains, WAIVED, true).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(hosts.sink.taken().len(), 2);
}
