//! DMARC aggregate reports: what smtpd saw comes back as one message for each domain that asks, to those who agreed.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::report::{
    ActionDisposition, DKIMAuthResult, Disposition, DkimResult, DmarcResult, PolicyPublished, Record, Report,
    SPFAuthResult, SPFDomainScope, SpfResult,
};
use postern_control::EventKind;
use postern_relay::reports::{Batch, Seen};

use crate::names::World;
use crate::outward::configuration;
use crate::process::{Queue, envelope, hand_over};
use crate::sink::{Sink, Taken};
use crate::tls::host_at;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 28, 1);
/// What stands behind the route to the world.
const REPORTS: &str = "sign = true\n[dkim]\ndirectory = \"dkim\"\nselector = \"s\"\ndomains = [\"example.org\"]\n[reports]\nfrom = \"postmaster@example.org\"\ninterval = 3\n";

/// A message that says it is from `domain`.
fn seen(domain: &str, source: &str) -> Seen {
    let policy = PolicyPublished {
        domain: domain.into(),
        p: Disposition::Reject,
        ..PolicyPublished::default()
    };
    let record = Record::new()
        .with_source_ip(source.parse().unwrap())
        .with_action_disposition(ActionDisposition::Reject)
        .with_dmarc_dkim_result(DmarcResult::Fail)
        .with_dmarc_spf_result(DmarcResult::Fail)
        .with_header_from(domain)
        .with_envelope_from("<&>.example")
        .with_dkim_auth_result(
            DKIMAuthResult::new()
                .with_domain("a\u{1}\u{7}<b>.example")
                .with_selector("s")
                .with_result(DkimResult::Fail),
        )
        .with_spf_auth_result(
            SPFAuthResult::new()
                .with_domain("<&>.example")
                .with_scope(SPFDomainScope::MailFrom)
                .with_result(SpfResult::SoftFail),
        );
    Seen { policy, record }
}

/// A world with one mail host, and the domains that ask for reports in different ways.
fn world() -> World {
    let mut world = World::default();
    world.address("mx.example", HOST);
    for (domain, rua) in [
        (
            "victim.example",
            "mailto:agg@victim.example,mailto:x@third.example,mailto:y@agreed.example!10m,mailto:z@agreed.example!20",
        ),
        ("refusing.example", "mailto:refuse@refusing.example"),
        ("flooding.example", "mailto:poor@third.example"),
        ("broken.example", "mailto:a@broken.example"),
        ("mute.example", "mailto:a@mute.example"),
    ] {
        if domain != "mute.example" {
            world.text(
                &format!("_dmarc.{domain}"),
                &format!("v=DMARC1; p=reject; rua={rua}"),
            );
        }
        world.mx(domain, 10, "mx.example");
    }
    world
        .mx("agreed.example", 10, "mx.example")
        .mx("third.example", 10, "mx.example");
    world.mx("end.example", 10, "mx.example");
    world.text("victim.example._report._dmarc.agreed.example", "v=DMARC1");
    world.text("flooding.example._report._dmarc.third.example", "v=spf1 -all");
    world
}

/// The XML of the one attachment.
fn xml(message: &str) -> String {
    let (_, encoded) = message
        .split_once("Content-Transfer-Encoding: base64\r\n\r\n")
        .unwrap();
    let encoded: String = encoded
        .split("--report-")
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&STANDARD.decode(encoded).unwrap()[..])
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// What a Python program prints of a text: another reader than our own.
pub(crate) fn python(program: &str, text: &str) -> String {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}

/// What another XML parser reads: paths and values of all leaves, in order.
fn leaves(xml: &str) -> Vec<String> {
    const PROGRAM: &str = r"
import sys, xml.etree.ElementTree as tree
def walk(node, path):
    path = path + '/' + node.tag.split('}')[1]
    for child in node: walk(child, path)
    if len(node) == 0: print(path + '=' + (node.text or ''))
walk(tree.fromstring(sys.stdin.buffer.read()), '')
";
    python(PROGRAM, xml).lines().map(str::to_owned).collect()
}

fn to(taken: &[Taken], address: &str) -> Vec<Taken> {
    taken.iter().filter(|one| one.to == address).cloned().collect()
}

#[tokio::test]
async fn one_report_for_each_domain_goes_to_who_asked_and_agreed() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let port = host_at((HOST, 0).into(), &sink, None).port();
    let configuration = configuration(world().serve(), port, REPORTS);
    let mut queue = Queue::start(directory.path(), &configuration);
    let client = queue.client("public");
    let all = [
        seen("victim.example", "192.0.2.1"),
        seen("victim.example", "192.0.2.1"),
        seen("victim.example", "2001:db8::1"),
        seen("refusing.example", "192.0.2.1"),
        seen("flooding.example", "192.0.2.1"),
        seen("mute.example", "192.0.2.1"),
    ];
    client.note(&Batch { seen: all.into() }).await.unwrap();
    let taken = sink.wait("two reports", |taken| {
        ["agg@victim.example", "y@agreed.example"]
            .iter()
            .all(|address| !to(taken, address).is_empty())
    });
    let [report] = to(&taken, "agg@victim.example").try_into().unwrap();
    assert_eq!(report.from, "", "nobody is told when it cannot be delivered");
    for line in [
        "To: <agg@victim.example>,\r\n\t<y@agreed.example>\r\n",
        "From: <postmaster@example.org>\r\n",
        "Subject: Report Domain: victim.example\r\n\tSubmitter: mail.example.org\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "DKIM-Signature: ",
        "d=example.org",
    ] {
        assert!(report.content.contains(line), "{line} in {}", report.content);
    }
    let xml = xml(&report.content);
    let ours = Report::parse_xml(xml.as_bytes()).unwrap();
    assert_eq!(ours.domain(), "victim.example");
    assert_eq!(ours.date_range_end() - ours.date_range_begin(), 2);
    let leaves = leaves(&xml);
    let values = |end: &str| -> Vec<&str> {
        let end = format!("{end}=");
        leaves
            .iter()
            .filter_map(|leaf| leaf.split_once(&end))
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(values("/row/source_ip"), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(values("/row/count"), ["2", "1"]);
    assert_eq!(values("/policy_evaluated/disposition"), ["reject", "reject"]);
    assert_eq!(values("/auth_results/spf/domain"), ["<&>.example", "<&>.example"]);
    assert_eq!(
        values("/auth_results/dkim/domain"),
        ["a??<b>.example", "a??<b>.example"]
    );
    assert_eq!(values("/report_metadata/email"), ["postmaster@example.org"]);
    assert_eq!(values("/policy_published/p"), ["reject"]);
    // Said once, though the refused one has nobody to be sent back to.
    queue.wait(
        "the refused report has ended",
        |kind| matches!(kind, EventKind::Bounced { recipient, .. } if recipient == "refuse@refusing.example"),
    );
    for domain in ["flooding.example", "mute.example"] {
        queue.wait("it says why not", |kind| {
            matches!(kind, EventKind::Report { report, domain: about, to, reason: Some(_) } if report == "DMARC" && about == domain && to.is_empty())
        });
    }
    // What comes after them in the queue has arrived, and still nobody else got one.
    let message = b"Subject: last\r\n\r\nx\r\n";
    let last = envelope("app@example.org", &["last@end.example"], message.len());
    hand_over(&queue.client("inside"), &last, message).await.unwrap();
    let taken = sink.wait("the last mail", |taken| !to(taken, "last@end.example").is_empty());
    for address in [
        "x@third.example",
        "z@agreed.example",
        "poor@third.example",
        "a@mute.example",
        "postmaster@example.org",
    ] {
        assert_eq!(to(&taken, address), [], "{address}");
    }
    assert_eq!(to(&taken, "agg@victim.example").len(), 1);
    let notified = |kind: &EventKind| matches!(kind, EventKind::Dsn { .. });
    assert!(!queue.events().iter().any(notified));
    queue.stop();
}

#[tokio::test]
async fn what_was_seen_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let port = host_at((HOST, 0).into(), &sink, None).port();
    let day = REPORTS.replace("interval = 3", "interval = 86400");
    let world = world().serve();
    let queue = Queue::start(directory.path(), &configuration(world, port, &day));
    let seen = vec![seen("victim.example", "192.0.2.1")];
    queue.client("public").note(&Batch { seen }).await.unwrap();
    queue.stop();
    let file = directory.path().join("state/reports/dmarc.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("victim.example"), "{kept}");
    assert_eq!(sink.taken(), []);
    // Of the same file in short periods, that day is long over, and too old to be told of.
    let queue = Queue::start(directory.path(), &configuration(world, port, REPORTS));
    let until = Instant::now() + Duration::from_secs(40);
    while std::fs::read_to_string(&file).unwrap().contains("victim.example") {
        assert!(Instant::now() < until, "it is still kept");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sink.taken(), []);
    queue.stop();
}
