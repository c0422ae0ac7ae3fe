//! What our own domains publish, looked at as others see it.

use postern_control::{EventKind, Reply, Request};

use crate::names::World;
use crate::process::{HEAD, Queue};
use crate::sink::Sink;

fn configuration(resolver: std::net::SocketAddr) -> String {
    let domains = "local-domains = [\"example.org\", \"second.example\"]";
    let head = HEAD
        .replace("127.0.0.1:9", &resolver.to_string())
        .replace("local-domains = [\"example.org\"]", domains);
    format!(
        "{head}
[next-hop.world]
kind = \"mx\"
tls = \"required\"
[[route]]
from = [\"inside\"]
domains = [\"*\"]
next-hop = \"world\"
sign = true
[dkim]
directory = \"dkim\"
selector = \"s\"
domains = [\"example.org\", \"second.example\"]
[self-check]
addresses = [\"192.0.2.7\", \"2001:db8::7\"]
"
    )
}

/// What is wrong, a line each.
fn look(queue: &Queue) -> Vec<String> {
    match queue.request(&Request::DnsCheck) {
        Reply::DnsCheck { domains: 2, findings } => findings
            .iter()
            .map(|finding| format!("{}: {}; {}", finding.record, finding.problem, finding.remedy))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_others_would_reject_us_for_is_told_with_what_to_publish() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::default();
    world
        .text("example.org", "v=spf1 ip4:192.0.2.0/24 -all")
        .text("_dmarc.example.org", "v=DMARC1; p=reject")
        .text("s-rsa._domainkey.example.org", "v=DKIM1; k=rsa; p=AAAA");
    world.bogus("second.example", hickory_resolver::proto::rr::RecordType::TXT);
    let mut queue = Queue::start(directory.path(), &configuration(world.serve()));
    let lines = look(&queue);
    let expected = [
        "example.org: the SPF record does not permit 2001:db8::7, which our mail comes from; put ip6:2001:db8::7 into it",
        "s-rsa._domainkey.example.org: another DKIM key is published than the one that we sign with; publish it as TXT \"v=DKIM1; k=rsa; p=",
        "s-ed25519._domainkey.example.org: the DKIM key that we sign with is not published; publish it as TXT \"v=DKIM1; k=ed25519; p=",
        "second.example: the DNS has no answer now",
        "second.example: the DNS has no answer now",
        "s-rsa._domainkey.second.example: the DKIM key",
        "s-ed25519._domainkey.second.example: the DKIM key",
        "_dmarc.second.example: no DMARC policy is published; publish a TXT record such as \"v=DMARC1; p=reject\"",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    let output = queue.postern(&["dns", "check"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches("\n    mend: ").count(), lines.len(), "{said}");
    assert!(said.contains("mend: put ip6:2001:db8::7 into it\n"), "{said}");
    // The same was a warning at the start.
    for line in &lines {
        queue.wait(
            line,
            |kind| matches!(kind, EventKind::Warning { text } if text == line),
        );
    }
    queue.stop();

    // Published as it says, all is well. The keys are kept.
    let records = {
        let queue = Queue::start(directory.path(), &configuration(World::default().serve()));
        let Reply::DkimRecords { records } = queue.request(&Request::DkimRecords) else {
            panic!()
        };
        queue.stop();
        records
    };
    let mut world = World::default();
    for domain in ["example.org", "second.example"] {
        world
            .text(domain, "v=spf1 ip4:192.0.2.7 ip6:2001:db8::7 -all")
            .text(&format!("_dmarc.{domain}"), "v=DMARC1; p=none");
    }
    for record in &records {
        // A long value comes in parts of 255 octets.
        let parts: Vec<String> = record
            .value
            .as_bytes()
            .chunks(255)
            .map(|part| String::from_utf8(part.to_vec()).unwrap())
            .collect();
        world.add(
            &record.name,
            hickory_resolver::proto::rr::RData::TXT(hickory_resolver::proto::rr::rdata::TXT::new(parts)),
        );
    }
    let queue = Queue::start(directory.path(), &configuration(world.serve()));
    assert_eq!(look(&queue), Vec::<String>::new());
    let output = queue.postern(&["dns", "check"]);
    assert!(output.status.success(), "{output:?}");
    queue.stop();
}

#[tokio::test]
async fn a_node_that_does_not_look_says_so() {
    let (directory, sink) = (tempfile::tempdir().unwrap(), Sink::start());
    let queue = Queue::start(directory.path(), &crate::process::to_lmtp(sink.address));
    let reply = queue.request(&Request::DnsCheck);
    assert!(
        matches!(&reply, Reply::Error { text } if text.contains("[self-check]")),
        "{reply:?}"
    );
    queue.stop();
}
