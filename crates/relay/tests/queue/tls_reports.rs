//! TLS reports: what came of TLS with real servers comes back as one report for each domain that asks, over the very way that is
//! broken, and other readers than ours understand it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use hickory_resolver::proto::rr::{RData, RecordType};
use mail_auth::report::tlsrpt::TlsReport;
use postern_control::EventKind;
use postern_relay::reports::reader;
use rcgen::{CertificateParams, PublicKeyData as _};
use serde_json::{Value, json};

use crate::dane::tlsa;
use crate::mta_sts::{Answers, Posts, ok, policy, web};
use crate::names::World;
use crate::outward::{server, try_all, with_tls};
use crate::process::Queue;
use crate::reports::python;
use crate::sink::{Sink, Taken};
use crate::tls::{Authority, host_at};

const WEB: Ipv4Addr = Ipv4Addr::new(127, 0, 29, 1);
/// Where no web server of others may be.
const INNER: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
/// Shows the right certificate.
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 29, 2);
/// Shows one of the right authority for another name.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 29, 3);
/// Shows one that was right once.
const EXPIRED: Ipv4Addr = Ipv4Addr::new(127, 0, 29, 4);
/// Shows one of an authority that nobody knows.
const UNKNOWN: Ipv4Addr = Ipv4Addr::new(127, 0, 29, 5);
/// Has no STARTTLS.
const CLEAR: Ipv4Addr = Ipv4Addr::new(127, 0, 29, 6);
const DAY: u64 = 86_400;
/// What stands behind the route to the world.
const REPORTS: &str = "sign = true\n[dkim]\ndirectory = \"dkim\"\nselector = \"s\"\ndomains = [\"example.org\"]\n[reports]\nfrom = \"postmaster@example.org\"\norganization = \"Example\"\n";

/// A domain: where its host is, what it publishes, whether mail reaches it, and what is to be reported.
struct Case {
    domain: &'static str,
    host: Ipv4Addr,
    publishes: Publishes,
    delivered: bool,
    /// Type of policy, successes, failures, results.
    policies: Vec<(&'static str, u32, u32, Vec<&'static str>)>,
}

enum Publishes {
    Nothing,
    /// What its web server answers.
    Sts(String),
    Tlsa(RData),
}

/// `key`: that of the host that nobody knows.
#[rustfmt::skip]
fn cases(key: &[u8]) -> Vec<Case> {
    use Publishes::{Nothing, Sts, Tlsa};
    let enforce = |domain: &str| Sts(policy("enforce", &format!("mx.{domain}")));
    let sts = |results: &[&'static str]| vec![("sts", 0, 1, results.to_vec())];
    let fetched = |result| vec![("sts", 0, 1, vec![result]), ("no-policy-found", 1, 0, vec![])];
    let dane = |results: &[&'static str]| vec![("tlsa", 0, 1, results.to_vec())];
    let right = tlsa(3, 1, 1, digest(&SHA256, key).as_ref());
    let wrong = || tlsa(3, 1, 1, digest(&SHA256, b"another key").as_ref());
    let unusable = tlsa(1, 1, 1, digest(&SHA256, key).as_ref());
    let lost = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
    let case = |domain, host, publishes, delivered, policies| Case { domain, host, publishes, delivered, policies };
    vec![
        case("good.example", GOOD, enforce("good.example"), true, vec![("sts", 1, 0, vec![])]),
        case("name.example", OTHER, enforce("name.example"), false, sts(&["certificate-host-mismatch"])),
        case("expired.example", EXPIRED, enforce("expired.example"), false, sts(&["certificate-expired"])),
        case("unknown.example", UNKNOWN, enforce("unknown.example"), false, sts(&["certificate-not-trusted"])),
        case("clear.example", CLEAR, enforce("clear.example"), false, sts(&["starttls-not-supported"])),
        case("host.example", GOOD, enforce("elsewhere.example"), false, sts(&["validation-failure"])),
        case("testing.example", OTHER, Sts(policy("testing", "mx.testing.example")), true, sts(&["certificate-host-mismatch"])),
        case("tested.example", GOOD, Sts(policy("testing", "mx.tested.example")), true, vec![("sts", 1, 0, vec![])]),
        case("lost.example", GOOD, Sts(lost), true, fetched("sts-policy-fetch-error")),
        case("html.example", GOOD, Sts(ok("text/html", "x")), true, fetched("sts-policy-invalid")),
        case("stranger.example", GOOD, enforce("stranger.example"), true, fetched("sts-webpki-invalid")),
        case("none.example", UNKNOWN, Nothing, true, vec![("no-policy-found", 1, 0, vec![])]),
        case("bare.example", CLEAR, Nothing, false, vec![("no-policy-found", 0, 1, vec!["starttls-not-supported"])]),
        case("dane.example", UNKNOWN, Tlsa(right), true, vec![("tlsa", 1, 0, vec![])]),
        case("mismatch.example", UNKNOWN, Tlsa(wrong()), false, dane(&["tlsa-invalid"])),
        case("unusable.example", UNKNOWN, Tlsa(unusable), true, dane(&["tlsa-invalid"])),
        case("bogus.example", UNKNOWN, Nothing, false, dane(&["dnssec-invalid"])),
        case("posted.example", UNKNOWN, Nothing, true, vec![("no-policy-found", 1, 0, vec![])]),
        case("both.example", UNKNOWN, Nothing, true, vec![("no-policy-found", 1, 0, vec![])]),
        case("mute.example", UNKNOWN, Nothing, true, vec![]),
        case("twice.example", UNKNOWN, Nothing, true, vec![]),
        case("inward.example", UNKNOWN, Nothing, true, vec![]),
    ]
}

fn rua(domain: &str) -> Vec<String> {
    let of = |uri: &str| format!("v=TLSRPTv1; rua={uri}");
    match domain {
        "mute.example" => vec!["v=spf1 -all".into()],
        "twice.example" => vec![of("mailto:a@twice.example"), of("mailto:b@twice.example")],
        "inward.example" => vec![of("https://reports.inward.example/")],
        "posted.example" => vec![of("https://mta-sts.good.example/reports?of=posted")],
        "both.example" => {
            vec![of(
                "mailto:tls@both.example,https://mta-sts.stranger.example/reports",
            )]
        }
        _ => vec!["other".into(), of(&format!("mailto:tls@{domain}"))],
    }
}

/// Servers for all cases, and what the DNS says of them.
struct Setup {
    sink: Sink,
    posts: Posts,
    cases: Vec<Case>,
    configuration: String,
}

impl Setup {
    fn new(directory: &Path) -> Self {
        let (authority, unknown) = (Authority::new(), Authority::new());
        let sink = Sink::start();
        let (certificate, key) = unknown.issue("mx.unknown.example");
        let cases = cases(&key.subject_public_key_info());
        let port = host_at(
            (UNKNOWN, 0).into(),
            &sink,
            Some(server(vec![certificate.der().clone()], &key)),
        )
        .port();
        let names = |prefix: &str| -> Vec<String> {
            cases
                .iter()
                .map(|case| format!("{prefix}.{}", case.domain))
                .collect()
        };
        let mut once = CertificateParams::new(names("mx")).unwrap();
        once.not_before = rcgen::date_time_ymd(2001, 1, 1);
        once.not_after = rcgen::date_time_ymd(2002, 1, 1);
        for (address, (certificate, key)) in [
            (GOOD, authority.issue_for(names("mx"))),
            (OTHER, authority.issue("elsewhere.example")),
            (EXPIRED, authority.sign(&once)),
        ] {
            let tls = server(vec![certificate.der().clone()], &key);
            host_at((address, port).into(), &sink, Some(tls));
        }
        host_at((CLEAR, port).into(), &sink, None);
        let (answers, posts) = (Answers::default(), Posts::default());
        let mut certified = names("mta-sts");
        certified.retain(|name| name != "mta-sts.stranger.example");
        let (certificate, key) = authority.issue_for(certified);
        let tls = server(vec![certificate.der().clone()], &key);
        let web = web(WEB, tls, answers.clone(), posts.clone());
        let mut world = World::default();
        for case in &cases {
            let host = format!("mx.{}", case.domain);
            world.mx(case.domain, 10, &host).address(&host, case.host);
            world.address(&format!("mta-sts.{}", case.domain), WEB);
            world.address(&format!("reports.{}", case.domain), INNER);
            for text in rua(case.domain) {
                world.text(&format!("_smtp._tls.{}", case.domain), &text);
            }
            match &case.publishes {
                Publishes::Nothing => {}
                Publishes::Sts(answer) => {
                    world.text(&format!("_mta-sts.{}", case.domain), "v=STSv1; id=1;");
                    let mut answers = answers.lock().unwrap();
                    answers.insert(case.domain.into(), answer.clone());
                }
                Publishes::Tlsa(record) => {
                    world.add(&format!("_{port}._tcp.{host}"), record.clone());
                }
            }
        }
        world.bogus(&format!("_{port}._tcp.mx.bogus.example"), RecordType::TLSA);
        std::fs::write(directory.join("web.crt"), authority.pem()).unwrap();
        let more = format!(
            "{REPORTS}[mta-sts]\nca = \"web.crt\"\nport = {web}\nallowed-networks = [\"127.0.29.0/24\"]"
        );
        // What is deferred is not tried again within the test: each domain has one session.
        let configuration = with_tls(world.serve(), port, "\"required\"", &more)
            .replace("retry = [1]", "retry = [600]")
            .replace("expire = 20", "expire = 3000");
        Self {
            sink,
            posts,
            cases,
            configuration,
        }
    }
}

/// As if what is kept had been seen the day before yesterday.
fn make_older(file: &Path) {
    let mut kept: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let periods = kept["periods"].as_object_mut().unwrap();
    let older = std::mem::take(periods)
        .into_iter()
        .map(|(begin, period)| ((begin.parse::<u64>().unwrap() - 2 * DAY).to_string(), period));
    periods.extend(older);
    assert_eq!(periods.len(), 1, "midnight came in between");
    std::fs::write(file, kept.to_string()).unwrap();
}

/// What another reader of mail and gzip finds in a report.
fn read_elsewhere(message: &str) -> Value {
    const PROGRAM: &str = r#"
import sys, json, gzip, email, email.policy
message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP)
words, report = message.iter_parts()
print(json.dumps({
    "type": message.get_content_type(),
    "report-type": message.get_param("report-type"),
    "words": words.get_content_type(),
    "subject": message["Subject"],
    "domain": message["TLS-Report-Domain"],
    "submitter": message["TLS-Report-Submitter"],
    "part": report.get_content_type(),
    "file": report.get_filename(),
    "defects": [str(d) for part in message.walk() for d in part.defects],
    "report": json.loads(gzip.decompress(report.get_content())),
}))
"#;
    serde_json::from_str(&python(PROGRAM, message)).unwrap()
}

/// Type, successes, failures and results of each policy.
fn summary(report: &Value) -> Vec<(String, u64, u64, Vec<String>)> {
    let policies = report["policies"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    policies
        .iter()
        .map(|one| {
            let details = one["failure-details"].as_array().cloned().unwrap_or_default();
            let count = |what: &str| one["summary"][what].as_u64().unwrap();
            (
                text(&one["policy"]["policy-type"]),
                count("total-successful-session-count"),
                count("total-failure-session-count"),
                details
                    .iter()
                    .map(|detail| text(&detail["result-type"]))
                    .collect(),
            )
        })
        .collect()
}

fn expected(case: &Case) -> Vec<(String, u64, u64, Vec<String>)> {
    let own = |results: &Vec<&str>| results.iter().map(|result| (*result).to_owned()).collect();
    let row = |(kind, good, bad, results): &(&str, u32, u32, Vec<&str>)| {
        (
            (*kind).to_owned(),
            u64::from(*good),
            u64::from(*bad),
            own(results),
        )
    };
    case.policies.iter().map(row).collect()
}

/// The message around it, and all that the report of one domain says.
fn check_whole(message: &str, read: &Value) {
    for line in [
        "From: <postmaster@example.org>\r\n",
        "To: <tls@name.example>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "TLS-Required: No\r\n",
        "DKIM-Signature: ",
        "d=example.org",
    ] {
        assert!(message.contains(line), "{line} in {message}");
    }
    let report = &read["report"];
    let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY - 2;
    let (begin, end) = (day * DAY, day * DAY + DAY - 1);
    let id = report["report-id"].as_str().unwrap();
    let frame = json!({
        "type": "multipart/report",
        "report-type": "tlsrpt",
        "words": "text/plain",
        "subject": format!("Report Domain: name.example Submitter: mail.example.org Report-ID: <{id}>"),
        "domain": "name.example",
        "submitter": "mail.example.org",
        "part": "application/tlsrpt+gzip",
        "file": format!("mail.example.org!name.example!{begin}!{end}.json.gz"),
        "defects": [],
        "report": report,
    });
    let mut found = read.clone();
    let subject = found["subject"].as_str().unwrap();
    found["subject"] = subject.split_whitespace().collect::<Vec<_>>().join(" ").into();
    assert_eq!(found, frame);
    let range = TlsReport::parse_json(report.to_string().as_bytes())
        .unwrap()
        .date_range;
    let range = (
        range.start_datetime.to_timestamp(),
        range.end_datetime.to_timestamp(),
    );
    assert_eq!(range, (begin.cast_signed(), end.cast_signed()));
    assert_eq!(report["organization-name"], "Example");
    assert_eq!(report["contact-info"], "postmaster@example.org");
    let one = &report["policies"][0];
    let wanted = json!({
        "policy-type": "sts",
        "policy-domain": "name.example",
        "policy-string": ["version: STSv1", "mode: enforce", "mx: mx.name.example", "max_age: 86400"],
        "mx-host": ["mx.name.example"],
    });
    assert_eq!(one["policy"], wanted);
    let mut detail = one["failure-details"][0].clone();
    let reason = detail["failure-reason-code"].take();
    assert!(
        reason.as_str().unwrap().contains("not valid for name"),
        "{reason}"
    );
    let wanted = json!({
        "result-type": "certificate-host-mismatch",
        "sending-mta-ip": "127.0.0.1",
        "receiving-mx-hostname": "mx.name.example",
        "receiving-mx-helo": "host",
        "receiving-ip": OTHER.to_string(),
        "failed-session-count": 1,
        "failure-reason-code": null,
    });
    assert_eq!(detail, wanted);
}

#[tokio::test]
async fn what_came_of_tls_is_reported_over_the_way_that_is_broken() {
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::new(directory.path());
    let domains: Vec<&str> = setup.cases.iter().map(|case| case.domain).collect();
    let (results, _) = try_all(directory.path(), &setup.configuration, &domains).await;
    for (case, result) in setup.cases.iter().zip(&results) {
        assert_eq!(result.is_ok(), case.delivered, "{}: {result:?}", case.domain);
    }
    let file = directory.path().join("state/reports/tls.json");
    make_older(&file);
    let is_report = |one: &&Taken| one.content.contains("\r\nTLS-Report-Domain: ");
    let mailed: Vec<&Case> = setup
        .cases
        .iter()
        .filter(|case| !case.policies.is_empty() && case.domain != "posted.example")
        .collect();
    let mut queue = Queue::start(directory.path(), &setup.configuration);
    let taken = setup.sink.wait("all reports", |taken| {
        taken.iter().filter(is_report).count() >= mailed.len()
    });
    let reports: BTreeMap<&str, &Taken> = taken
        .iter()
        .filter(is_report)
        .map(|one| (one.to.as_str(), one))
        .collect();
    assert_eq!(reports.len(), mailed.len());
    for case in &mailed {
        let message = reports[&*format!("tls@{}", case.domain)];
        assert_eq!(message.from, "", "nobody is told when it cannot be delivered");
        let read = read_elsewhere(&message.content);
        assert_eq!(summary(&read["report"]), expected(case), "{}", case.domain);
        let library = TlsReport::parse_rfc5322(message.content.as_bytes(), 1 << 20).unwrap();
        assert_eq!(library.policies.len(), case.policies.len());
        if case.domain == "name.example" {
            check_whole(&message.content, &read);
        }
    }
    let mut words = Vec::new();
    reader::read(reports["tls@mismatch.example"].content.as_bytes(), &mut words).unwrap();
    let words = String::from_utf8(words).unwrap();
    assert!(
        words.contains("(tlsa)\n  0 sessions encrypted, 1 failed\n"),
        "{words}"
    );
    // By HTTPS, and with a reason where not at all.
    queue.wait("it was posted", |kind| {
        matches!(kind, EventKind::Report { report, domain, to, reason: None }
            if report == "TLS" && domain == "posted.example" && to == &["https://mta-sts.good.example/reports?of=posted"])
    });
    let posts = setup.posts.lock().unwrap().clone();
    let [(header, content)] = posts.as_slice() else {
        panic!("{posts:?}")
    };
    assert!(
        header.starts_with("post /reports?of=posted http/1.1\r\n"),
        "{header}"
    );
    assert!(
        header.contains("content-type: application/tlsrpt+gzip\r\n"),
        "{header}"
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&content[..])
        .read_to_string(&mut text)
        .unwrap();
    let report = serde_json::from_str(&text).unwrap();
    assert_eq!(
        summary(&report),
        [("no-policy-found".to_owned(), 1, 0, Vec::<String>::new())]
    );
    for (domain, why) in [
        ("mute.example", "does not ask"),
        ("twice.example", "does not ask"),
        ("both.example", "mta-sts.stranger.example"),
        ("inward.example", "no address of the public Internet"),
    ] {
        let seen = |kind: &EventKind| {
            matches!(kind, EventKind::Report { domain: about, to, reason: Some(reason), .. }
                if about == domain && (reason.contains(why) || to.iter().any(|to| to.contains(why))))
        };
        queue.wait(domain, seen);
    }
    queue.stop();
    // Reports are not reported on, and nobody gets a second one.
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (begin, period) in kept["periods"].as_object().unwrap() {
        assert_eq!(period["domains"], json!({}), "{begin}");
    }
    assert!(!kept["periods"].as_object().unwrap().is_empty());
    let queue = Queue::start(directory.path(), &setup.configuration);
    queue.stop();
    let again = setup.sink.taken();
    assert_eq!(again.iter().filter(is_report).count(), mailed.len());
}

#[tokio::test]
async fn many_domains_that_name_one_address_do_not_flood_it() {
    const MOST: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let port = host_at((CLEAR, 0).into(), &sink, None).port();
    let mut world = World::default();
    world.mx("victim.example", 10, "mx.victim.example");
    world.address("mx.victim.example", CLEAR);
    let domains: Vec<String> = (0..MOST + 3).map(|number| format!("d{number}.example")).collect();
    for (number, domain) in domains.iter().enumerate() {
        let local = if number % 2 == 0 {
            "postmaster"
        } else {
            "PostMaster+x"
        };
        let record = format!("v=TLSRPTv1; rua=mailto:{local}@victim.example");
        world.text(&format!("_smtp._tls.{domain}"), &record);
    }
    let seen = json!({"policies": [], "tries": 0, "after": 0});
    let collected: serde_json::Map<_, _> = domains
        .iter()
        .map(|domain| (domain.clone(), seen.clone()))
        .collect();
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY * DAY;
    let begin = (today - 2 * DAY).to_string();
    let dropped = json!({"named": {"full.example": 7}, "others": 2});
    let kept = json!({"periods": {begin: {"domains": collected, "done": [], "dropped": dropped}}});
    let file = directory.path().join("state/reports/tls.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, kept.to_string()).unwrap();

    let configuration = with_tls(world.serve(), port, "\"opportunistic\"", REPORTS);
    let mut queue = Queue::start(directory.path(), &configuration);
    queue.wait("what found no room", |kind| {
        matches!(kind, EventKind::Warning { text } if text.contains("TLS reports") && text.contains("7 of full.example, 2 of others"))
    });
    let taken = sink.wait("the reports that are sent", |taken| taken.len() >= MOST);
    // They are made in the order of their names.
    queue.wait(
        "the last one is not sent",
        |kind| matches!(kind, EventKind::Report { domain, reason: Some(_), .. } if domain == "d99.example"),
    );
    let left_out = queue.events().into_iter().filter(|kind| {
        matches!(kind, EventKind::Report { to, reason: Some(reason), .. }
            if to[0].ends_with("@victim.example") && reason.starts_with("100 reports"))
    });
    assert_eq!(left_out.count(), 3);
    queue.stop();
    assert_eq!(taken.len(), MOST);
    assert_eq!(sink.taken().len(), MOST);
}
