use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use postern_smtp::replies;

use super::*;
use crate::checks::authentication::{AuthResult, Authenticated, DomainPolicy};
use crate::checks::greylist::Seen;

fn config(more: &str, checks: &str) -> Config {
    let text = format!(
        r#"
role = "gateway"
hostname = "mx1.example.org"
local-domains = ["example.org"]
postmaster = "chief@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:53"
[instance.public]
listen = ["127.0.0.1:2525"]
tls = "off"
relay-for = "local-domains"
authentication = "none"
checks = [{checks}]
[next-hop.inside]
kind = "smtp"
host = "127.0.0.1"
port = 2526
tls = "off"
[[route]]
from = ["public"]
domains = ["example.org"]
next-hop = "inside"
{more}
"#
    );
    Config::parse("relay.toml", &text, PathBuf::from("/"), None).unwrap()
}

fn spam(mark: f64, reject: f64) -> String {
    format!("[spam]\nsocket = \"off\"\nmark-score = {mark:?}\nreject-score = {reject:?}")
}

fn line(minute: u32, trace: &str, kind: EventKind) -> String {
    let event = Event {
        time: format!("2026-01-02T03:{minute:02}:00.000Z"),
        process: "smtpd/public".into(),
        trace: Some(trace.into()),
        id: None,
        kind,
    };
    event.to_line() + "\n"
}

fn connected(minute: u32, trace: &str) -> String {
    let peer = "192.0.2.7".into();
    line(
        minute,
        trace,
        EventKind::Connected {
            peer,
            port: None,
            proxy: None,
        },
    )
}

fn check(trace: &str, name: &str, observation: &Observation) -> String {
    line(
        1,
        trace,
        EventKind::Check {
            check: name.into(),
            result: observation.word().into(),
            evidence: "e".into(),
            millis: 1,
            seen: Some(serde_json::to_value(observation).unwrap()),
        },
    )
}

fn verdict(minute: u32, trace: &str, decision: &str) -> String {
    let decision = decision.into();
    line(
        minute,
        trace,
        EventKind::Verdict {
            decision,
            score: None,
        },
    )
}

fn refused(trace: &str, stage: &str, reply: &Reply, check: Option<&str>, to: &str) -> String {
    line(
        2,
        trace,
        EventKind::Refused {
            stage: stage.into(),
            code: reply.code.value(),
            enhanced: reply.enhanced.unwrap().to_string(),
            text: reply.text(),
            check: check.map(str::to_owned),
            evidence: None,
            from: None,
            to: vec![to.into()],
        },
    )
}

/// The differences, then the sum.
fn replayed(config: &Config, journal: &str) -> (Vec<Value>, Value) {
    let mut out = Vec::new();
    replay(config, journal.as_bytes(), &mut out).unwrap();
    let mut lines: Vec<Value> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut sum = lines.pop().unwrap();
    (lines, sum["summary"].take())
}

#[test]
fn a_lower_score_refuses_what_was_taken() {
    let journal = [
        connected(0, "t1"),
        check("t1", "spam", &Observation::Scored(6.0)),
        verdict(2, "t1", "mark"),
        connected(3, "t2"),
        check("t2", "spam", &Observation::Scored(1.0)),
        verdict(4, "t2", "accept"),
    ]
    .concat();
    let (differences, sum) = replayed(&config(&spam(5.0, 10.0), "\"spam\""), &journal);
    assert_eq!(differences, [] as [Value; 0]);
    assert_eq!(sum["judged"], 2);

    let (differences, sum) = replayed(&config(&spam(2.0, 6.0), "\"spam\""), &journal);
    assert_eq!(differences.len(), 1, "{differences:?}");
    let one = &differences[0];
    assert_eq!(
        (
            &one["trace"],
            &one["was"],
            &one["becomes"],
            &one["check"],
            &one["peer"]
        ),
        (
            &json!("t1"),
            &json!("mark"),
            &json!("reject"),
            &json!("spam"),
            &json!("192.0.2.7")
        )
    );
    assert!(one["reply"].as_str().unwrap().starts_with("554 5.7.1"), "{one}");
    assert_eq!(sum["changes"], json!({"mark -> reject": 1}));
}

#[test]
fn checks_that_are_dropped_count_no_more_and_new_ones_are_said_to_be_unknown() {
    let wait = Observation::Greylist(Seen::Wait(Duration::from_secs(9)));
    let fail = Observation::Authenticated(Authenticated {
        result: AuthResult::Fail,
        results: String::new(),
        proves_reverse_path: false,
        policy: DomainPolicy::Reject,
        domain: "x.example".into(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    });
    let journal = [
        connected(0, "t1"),
        check("t1", "greylist", &wait),
        refused(
            "t1",
            "rcpt",
            &replies::greylisted(9),
            Some("greylist"),
            "a@example.org",
        ),
        connected(0, "t2"),
        check("t2", "dmarc", &fail),
        verdict(2, "t2", "reject"),
        refused(
            "t2",
            "message",
            &replies::dmarc_rejected("x.example"),
            Some("dmarc"),
            "a@example.org",
        ),
    ]
    .concat();
    let same = config(
        "[greylist]\ndelay = 300",
        "\"greylist\", \"spf\", \"dkim\", \"dmarc\"",
    );
    assert_eq!(replayed(&same, &journal).0, [] as [Value; 0]);

    let (differences, sum) = replayed(&config("[virus]\nsocket = \"off\"", "\"virus\""), &journal);
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert_eq!(
        sum["changes"],
        json!({"defer -> accept": 1, "reject -> accept": 1})
    );
    assert_eq!(sum["not_made"], json!({"virus": 1}));
}

#[test]
fn temporary_errors_of_dns_keep_the_patience_that_was_had() {
    let temporary = Observation::Authenticated(Authenticated {
        result: AuthResult::Temporary,
        results: String::new(),
        proves_reverse_path: false,
        policy: DomainPolicy::Reject,
        domain: "x.example".into(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    });
    for was in ["mark", "defer"] {
        let journal = [check("t", "dmarc", &temporary), verdict(2, "t", was)].concat();
        let (differences, _) = replayed(&config("", "\"spf\", \"dkim\", \"dmarc\""), &journal);
        assert_eq!(differences, [] as [Value; 0]);
    }
}

#[test]
fn the_hourly_limit_is_counted_again() {
    let journal: String = (0..4)
        .flat_map(|at| {
            let trace = format!("t{at}");
            let end = EventKind::Disconnected { reason: None };
            [
                connected(at, &trace),
                verdict(at, &trace, "accept"),
                line(at, &trace, end),
            ]
        })
        .collect();
    assert_eq!(replayed(&config("", ""), &journal).0, [] as [Value; 0]);
    let strict = config("[limits]\nmessages-per-hour = 3", "");
    let (differences, _) = replayed(&strict, &journal);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(
        (&differences[0]["trace"], &differences[0]["becomes"]),
        (&json!("t3"), &json!("defer"))
    );
    let listed = config(
        "[limits]\nmessages-per-hour = 3\nlisted-peers = [\"192.0.2.0/24\"]",
        "",
    );
    assert_eq!(replayed(&listed, &journal).0, [] as [Value; 0]);

    let late = journal
        + &connected(4, "t4")
        + &refused(
            "t4",
            "message",
            &replies::rate_limited("from your address", 3, Duration::from_mins(7)),
            None,
            "a@example.org",
        );
    assert_eq!(
        replayed(&config("[limits]\nmessages-per-hour = 9", ""), &late).1["changes"],
        json!({"defer -> accept": 1})
    );
    assert_eq!(
        replayed(&config("[limits]\nmessages-per-hour = 4", ""), &late).0,
        [] as [Value; 0]
    );
}

#[test]
fn domains_and_sizes_are_asked_for_again() {
    let queued = |size| EventKind::Queued {
        from: "b@elsewhere.example".into(),
        to: vec!["a@example.org".into()],
        size,
        provenance: None,
    };
    let journal = [
        connected(0, "t"),
        line(1, "t", queued(5000)),
        refused(
            "t",
            "rcpt",
            &replies::relay_denied("old.example"),
            None,
            "a@old.example",
        ),
    ]
    .concat();
    assert_eq!(replayed(&config("", ""), &journal).0, [] as [Value; 0]);
    let mut small = config("[limits]\nmax-message-size = 4000", "");
    small.local_domains = vec!["example.org".into(), "old.example".into()];
    let (differences, sum) = replayed(&small, &journal);
    assert_eq!(differences[0]["from"], "b@elsewhere.example");
    assert_eq!(
        sum["changes"],
        json!({"accept -> reject": 1, "reject -> accept": 1})
    );
}

#[test]
fn what_is_no_event_or_of_an_older_version_is_left_out_and_counted() {
    let old = line(
        1,
        "t",
        EventKind::Check {
            check: "spam".into(),
            result: "scored".into(),
            evidence: String::new(),
            millis: 1,
            seen: None,
        },
    );
    let journal = format!("hello\nevent {{\"cut sh\n{old}{}", verdict(2, "t", "accept"));
    let (differences, sum) = replayed(&config(&spam(5.0, 10.0), "\"spam\""), &journal);
    assert_eq!(differences, [] as [Value; 0]);
    assert_eq!(
        (&sum["not_recorded"], &sum["not_made"]["spam"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn what_was_seen_of_the_client_counts_for_all_its_messages() {
    let missing = Observation::Reverse(crate::checks::reverse::Reverse::Missing);
    let journal = [
        connected(0, "t1"),
        check("t1", "reverse-dns", &missing),
        verdict(2, "t1", "mark"),
        verdict(3, "t1", "mark"),
    ]
    .concat();
    for (attitude, changes) in [("mark", 0), ("reject", 2)] {
        let policy = format!("[client]\nreverse-dns = \"{attitude}\"");
        let (differences, sum) = replayed(&config(&policy, "\"reverse-dns\""), &journal);
        assert_eq!(differences.len(), changes, "{differences:?}");
        assert_eq!(sum["not_made"], json!({}));
    }
}

fn queued(minute: u32, trace: &str, from: &str, to: &[&str]) -> String {
    line(
        minute,
        trace,
        EventKind::Queued {
            from: from.into(),
            to: to.iter().map(ToString::to_string).collect(),
            size: 100,
            provenance: None,
        },
    )
}

/// A message that was taken, with a connection of its own, from the last octet of an address.
fn taken(minute: u32, octets: &str, from: &str, to: &[&str]) -> String {
    let trace = format!("t{minute}");
    let peer = format!("192.0.{octets}");
    let connected = EventKind::Connected {
        peer,
        port: None,
        proxy: None,
    };
    [
        line(minute, &trace, connected),
        verdict(minute, &trace, "accept"),
        queued(minute, &trace, from, to),
    ]
    .concat()
}

/// The traces that become other, with what they become and what the client would read.
fn changed(limits: &str, journal: &str) -> Vec<(String, String, String)> {
    let config = config(&format!("[limits]\n{limits}"), "");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (differences, _) = replayed(&config, journal);
    differences
        .iter()
        .map(|one| (text(&one["trace"]), text(&one["becomes"]), text(&one["reply"])))
        .collect()
}

#[test]
fn every_hourly_limit_is_counted_again() {
    let journal = [
        taken(0, "2.1", "a@one.example", &["me@example.org"]),
        taken(1, "2.2", "b@one.example", &["you@example.org"]),
        taken(2, "3.1", "a@one.example", &["me@example.org", "we@example.org"]),
        taken(3, "2.1", "A@one.example", &["us@example.org"]),
        taken(4, "2.3", "c@one.example", &["ME@example.org"]),
    ]
    .concat();
    assert_eq!(changed("messages-per-hour = 100", &journal), []);
    for (limits, trace, words) in [
        (
            "messages-per-hour = 1\nmessages-per-hour-network = 9",
            "t3",
            "from your address",
        ),
        ("messages-per-hour-network = 3", "t4", "from your network"),
        ("messages-per-hour-sender = 1", "t3", "from this sender"),
        ("messages-per-hour-recipient = 2", "t4", "to this recipient"),
    ] {
        let changes = changed(limits, &journal);
        assert_eq!(changes.len(), 1, "{limits}: {changes:?}");
        assert_eq!(
            (changes[0].0.as_str(), changes[0].1.as_str()),
            (trace, "defer"),
            "{limits}"
        );
        assert!(changes[0].2.contains(words), "{limits}: {changes:?}");
    }
    // Of two mailboxes one has had enough: the other one's message is taken.
    let changes = changed("messages-per-hour-recipient = 1", &journal);
    let traces: Vec<&str> = changes.iter().map(|change| change.0.as_str()).collect();
    assert_eq!(traces, ["t2", "t4"]);
}

#[test]
fn a_higher_limit_takes_what_was_refused_by_it() {
    for (stage, of, key) in [
        ("mail", "from your network", "messages-per-hour-network"),
        ("mail", "from this sender", "messages-per-hour-sender"),
        ("rcpt", "to this recipient", "messages-per-hour-recipient"),
        ("message", "from this sender", "messages-per-hour-sender"),
    ] {
        let reply = replies::rate_limited(of, 1, Duration::from_mins(7));
        let late = EventKind::Refused {
            stage: stage.into(),
            code: reply.code.value(),
            enhanced: reply.enhanced.unwrap().to_string(),
            text: reply.text(),
            check: None,
            evidence: None,
            from: Some("a@one.example".into()),
            to: vec!["me@example.org".into()],
        };
        let journal = taken(1, "2.7", "a@one.example", &["me@example.org"]) + &line(2, "t1", late);
        assert_eq!(changed(&format!("{key} = 1"), &journal), [], "{key}");
        let changes = changed(&format!("{key} = 2"), &journal);
        assert_eq!(changes, [("t1".into(), "accept".into(), String::new())], "{key}");
    }
}

#[test]
fn what_stands_for_local_parts_counts_and_is_not_shown() {
    let of = |local: &str| {
        let from = format!("{local}@one.example");
        taken(1, "2.1", &from, &["~b@example.org"]) + &taken(2, "2.2", &from, &["~b@example.org"])
    };
    let one = config("[limits]\nmessages-per-hour-recipient = 1", "");
    let (differences, sum) = replayed(&one, &of("~a"));
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0]["from"], "*@one.example");
    assert_eq!(differences[0]["to"], json!(["*@example.org"]));
    assert_eq!(sum["not_counted"], 0);
    // Where they were left out, nobody's messages are taken for another's.
    let sender = config("[limits]\nmessages-per-hour-sender = 1", "");
    let (differences, sum) = replayed(&sender, &of("*"));
    assert_eq!(differences, [] as [Value; 0]);
    assert_eq!(sum["not_counted"], 2);
}

#[test]
fn a_new_trusted_sealer_takes_what_was_refused_and_one_less_refuses() {
    let failed = |vouched_by: Option<&str>, sealed: &[(&str, bool, bool)]| {
        Observation::Authenticated(Authenticated {
            result: AuthResult::Fail,
            results: String::new(),
            proves_reverse_path: false,
            policy: DomainPolicy::Reject,
            domain: "x.example".into(),
            vouched_by: vouched_by.map(str::to_owned),
            sealed: sealed
                .iter()
                .map(|(domain, dmarc_passed, arc_passed)| arc::Sealed {
                    domain: (*domain).into(),
                    dmarc_passed: *dmarc_passed,
                    arc_passed: *arc_passed,
                })
                .collect(),
            report: None,
        })
    };
    let two = [("forward.example", false, true), ("list.example", true, false)];
    let refused = |seen: &Observation| {
        let reply = replies::dmarc_rejected("x.example");
        let refusal = refused("t", "message", &reply, Some("dmarc"), "a@example.org");
        [
            connected(0, "t"),
            check("t", "dmarc", seen),
            verdict(2, "t", "reject"),
            refusal,
        ]
        .concat()
    };
    let trusting = |sealers: &[&str]| {
        let mut config = config("", "\"spf\", \"dkim\", \"dmarc\"");
        config.trusted_sealers = sealers.iter().map(ToString::to_string).collect();
        config
    };
    let changes = |sealers: &[&str], journal: &str| {
        let (_, sum) = replayed(&trusting(sealers), journal);
        assert_eq!(sum["judged"], 1);
        sum["changes"].clone()
    };
    let journal = refused(&failed(None, &two));
    assert_eq!(changes(&[], &journal), json!({}));
    assert_eq!(changes(&["forward.example"], &journal), json!({}));
    let both = ["list.example", "Forward.example"];
    assert_eq!(changes(&both, &journal), json!({"reject -> accept": 1}));
    // The other way; of an older version the journal tells only who vouched.
    for sealed in [&two[..], &[]] {
        let seen = failed(Some("list.example"), sealed);
        let journal = [
            connected(0, "t"),
            check("t", "dmarc", &seen),
            verdict(2, "t", "accept"),
        ]
        .concat();
        assert_eq!(changes(&both, &journal), json!({}));
        assert_eq!(
            changes(&["forward.example"], &journal),
            json!({"accept -> reject": 1})
        );
    }
}

#[test]
fn mail_for_which_the_hold_has_no_room_is_weighed_by_what_the_scanners_say_then() {
    let tables = format!("{}\n[virus]\nsocket = \"off\"\n[hybrid]", spam(5.0, 10.0));
    let config = config(&tables, r#""spam", "virus""#);
    for (scanned, word) in [
        (Observation::Clean, "mark"),
        (Observation::Virus("x".into()), "reject"),
        (Observation::NoAnswer, "defer"),
    ] {
        let journal = [
            connected(0, "t"),
            check("t", "spam", &Observation::Scored(6.0)),
            check("t", "virus", &Observation::NoAnswer),
            verdict(1, "t", "hold"),
            check("t", "virus", &scanned),
            verdict(2, "t", word),
        ]
        .concat();
        let (differences, sum) = replayed(&config, &journal);
        assert_eq!(differences, [] as [Value; 0], "{word}");
        assert_eq!(sum["judged"], 1);
    }
}

#[test]
fn mail_in_the_hold_is_weighed_when_it_comes_and_when_it_is_scanned() {
    let late = |text: String| {
        let mut event = Event::from_line(&text).unwrap();
        event.id = Some("0656c0aa4c6000".into());
        event.to_line() + "\n"
    };
    let queued = EventKind::Queued {
        from: "b@elsewhere.example".into(),
        to: vec!["a@example.org".into()],
        size: 1,
        provenance: None,
    };
    let journal = [
        connected(0, "t"),
        check("t", "spam", &Observation::Scored(6.0)),
        check("t", "virus", &Observation::NoAnswer),
        verdict(1, "t", "hold"),
        late(line(1, "t", queued)),
        line(2, "t", EventKind::Disconnected { reason: None }),
        late(check("t", "virus", &Observation::Clean)),
        late(verdict(3, "t", "mark")),
    ]
    .concat();
    let scanners = |reject: f64, more: &str| {
        let tables = format!("{}\n[virus]\nsocket = \"off\"\n{more}", spam(5.0, reject));
        config(&tables, r#""spam", "virus""#)
    };
    assert_eq!(
        replayed(&scanners(10.0, "[hybrid]"), &journal).0,
        [] as [Value; 0]
    );
    let (_, sum) = replayed(&scanners(10.0, ""), &journal);
    assert_eq!(sum["changes"], json!({"hold -> defer": 1}));
    let (differences, sum) = replayed(&scanners(5.5, "[hybrid]"), &journal);
    assert_eq!(
        sum["changes"],
        json!({"hold -> reject": 1, "mark -> quarantine": 1})
    );
    assert_eq!(differences[1]["reply"], Value::Null);
}

fn pass(check_name: &str, trace: &str) -> String {
    let seen = Authenticated {
        result: AuthResult::Pass,
        results: String::new(),
        proves_reverse_path: check_name == "spf",
        policy: DomainPolicy::Reject,
        domain: "x.example".into(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    };
    check(trace, check_name, &Observation::Authenticated(seen))
}

#[test]
fn who_logged_in_is_no_stranger() {
    let submitted = |minute: u32, user: &str| {
        let trace = format!("u{minute}");
        let user = user.to_owned();
        [
            connected(minute, &trace),
            line(minute, &trace, EventKind::Authenticated { user }),
            check(&trace, "virus", &Observation::Clean),
            verdict(minute, &trace, "accept"),
            line(minute, &trace, EventKind::Disconnected { reason: None }),
        ]
        .concat()
    };
    let journal: String = (0..3)
        .map(|at| submitted(at, ["a@example.org", "A@example.org"][at as usize % 2]))
        .chain([submitted(3, "b@example.org")])
        .collect();
    let with = |limits: &str| {
        let tables = format!("[limits]\n{limits}\n[virus]\nsocket = \"off\"\n[greylist]\ndelay = 300");
        let mut config = config(&tables, "\"greylist\", \"spf\", \"virus\", \"reverse-dns\"");
        config.instance.get_mut("public").unwrap().submission = Submission::PassInward;
        config
    };
    let (differences, sum) = replayed(
        &with("messages-per-hour = 1\nmessages-per-hour-sender = 5"),
        &journal,
    );
    assert_eq!(
        differences,
        [] as [Value; 0],
        "an address's limit is for strangers"
    );
    assert_eq!((&sum["judged"], &sum["not_made"]), (&json!(4), &json!({})));
    // A sender's is theirs, too.
    let two = with("messages-per-hour-sender = 2");
    let (differences, _) = replayed(&two, &journal);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0]["trace"], "u2");
    let late = |text| {
        let refused = EventKind::Refused {
            stage: "mail".into(),
            code: 451,
            enhanced: "4.7.1".into(),
            text,
            check: None,
            evidence: None,
            from: Some("z@example.org".into()),
            to: vec![],
        };
        let user = "a@example.org".to_owned();
        [
            connected(5, "late"),
            line(5, "late", EventKind::Authenticated { user }),
            line(5, "late", refused),
        ]
        .concat()
    };
    let late = late(replies::rate_limited("from this sender", 2, Duration::from_mins(7)).text());
    let (differences, _) = replayed(&two, &format!("{journal}{late}"));
    assert_eq!(
        differences.len(),
        1,
        "he is still over his limit: {differences:?}"
    );
    // Where his name was left out, nobody is counted for him.
    let hidden: String = (0..3).map(|at| submitted(at, "*@example.org")).collect();
    let (differences, sum) = replayed(&two, &hidden);
    assert_eq!(differences, [] as [Value; 0]);
    assert_eq!(sum["not_counted"], 3);
}

#[test]
fn who_is_new_has_no_history_until_he_makes_one() {
    let mail = |day: u32, minute: u32, from: &str| {
        let text = taken(minute, "2.7", from, &["me@example.org"]);
        let trace = format!("t{minute}");
        let (connected, rest) = text.split_once('\n').unwrap();
        let text = format!(
            "{connected}\n{}{}{rest}",
            pass("spf", &trace),
            pass("dmarc", &trace)
        );
        text.replace("2026-01-02", &format!("2026-01-{day:02}"))
            .replace(&format!("\"{trace}\""), &format!("\"d{day}-{minute}\""))
    };
    let three = |day, from| (10..13).map(|at| mail(day, at, from)).collect::<String>();
    let changes = |journal: &str| {
        let limits = "messages-per-hour = 0\nmessages-per-hour-sender = 2\nproven-messages = 3";
        let config = config(&format!("[limits]\n{limits}"), "\"spf\", \"dkim\", \"dmarc\"");
        let (differences, _) = replayed(&config, journal);
        differences
            .iter()
            .map(|one| one["trace"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // On the first day nobody knows, and who was there then is known later.
    let old = three(2, "a@old.example");
    assert_eq!(changes(&old), [""; 0]);
    assert_eq!(
        changes(&(mail(2, 1, "a@old.example") + &three(5, "a@old.example"))),
        [""; 0]
    );
    // Another who comes later has two, and more only when he has a history.
    let new = three(5, "a@new.example");
    assert_eq!(changes(&(old.clone() + &new)), ["d5-12"]);
    let later = three(6, "a@new.example");
    assert_eq!(changes(&(old + &new + &later)), ["d5-12"]);
}

#[test]
fn who_is_refused_for_where_he_comes_from_is_not_counted_as_the_sender() {
    let failed = Observation::Authenticated(Authenticated {
        result: AuthResult::Fail,
        results: String::new(),
        proves_reverse_path: false,
        policy: DomainPolicy::Reject,
        domain: "one.example".into(),
        vouched_by: None,
        sealed: Vec::new(),
        report: None,
    });
    let reply = replies::dmarc_rejected("one.example");
    let refused = EventKind::Refused {
        stage: "message".into(),
        code: reply.code.value(),
        enhanced: reply.enhanced.unwrap().to_string(),
        text: reply.text(),
        check: Some("dmarc".into()),
        evidence: None,
        from: Some("a@one.example".into()),
        to: vec!["me@example.org".into()],
    };
    let journal = [
        connected(0, "t0"),
        check("t0", "dmarc", &failed),
        verdict(0, "t0", "reject"),
        line(0, "t0", refused),
        taken(1, "2.7", "a@one.example", &["me@example.org"]),
        taken(2, "2.7", "a@one.example", &["me@example.org"]),
    ]
    .concat();
    let one = config(
        "[limits]\nmessages-per-hour-sender = 1",
        "\"spf\", \"dkim\", \"dmarc\"",
    );
    let (differences, _) = replayed(&one, &journal);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0]["trace"], "t2");
    // The address's is counted all the same.
    let two = config("[limits]\nmessages-per-hour = 2", "\"spf\", \"dkim\", \"dmarc\"");
    let (differences, _) = replayed(&two, &journal);
    assert_eq!(differences.len(), 1, "{differences:?}");
}

#[test]
fn the_postmaster_is_one_mailbox_however_he_is_written() {
    for written in ["Postmaster", "PostMaster@Example.org", "CHIEF@example.org"] {
        let reply = replies::rate_limited("to this recipient", 1, Duration::from_mins(7));
        let journal = taken(1, "2.7", "a@one.example", &["chief@example.org"])
            + &connected(2, "late")
            + &refused("late", "rcpt", &reply, None, written);
        assert_eq!(
            changed("messages-per-hour-recipient = 1", &journal),
            [],
            "{written}"
        );
        let changes = changed("messages-per-hour-recipient = 2", &journal);
        assert_eq!(changes.len(), 1, "{written}");
    }
    let other = taken(1, "2.7", "a@one.example", &["chief@example.org"])
        + &taken(2, "2.7", "a@one.example", &["postmaster@elsewhere.example"]);
    assert_eq!(
        changed("messages-per-hour-recipient = 1", &other).len(),
        1,
        "of another domain: not ours to take"
    );
}
