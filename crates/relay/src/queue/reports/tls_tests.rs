//! Counts, days, bounds, restarts, and which records ask for reports.

use std::path::Path;

use mail_auth::report::tlsrpt::{PolicyDetails, PolicyType, ResultType};

use super::*;

const DAY: u64 = 86_400;

fn seen(domain: &str, failure: Option<FailureDetails>) -> Seen {
    Seen {
        domain: domain.into(),
        policy: PolicyDetails::new(PolicyType::NoPolicyFound, domain),
        failure,
    }
}

fn fault(host: &str) -> FailureDetails {
    FailureDetails::new(ResultType::StartTlsNotSupported).with_receiving_mx_hostname(host)
}

fn open(directory: &Path) -> Collected {
    let (kept, error) = Collected::open(directory, DAY);
    assert!(error.is_none(), "{error:?}");
    kept
}

#[test]
fn sessions_are_counted_by_policy_and_day_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let kept = open(directory.path());
    for failure in [
        None,
        Some(fault("mx1.a.example")),
        None,
        Some(fault("mx2.a.example")),
    ] {
        kept.note_at(seen("A.example", failure), 11 * DAY - 1);
    }
    kept.write().unwrap();
    let kept = open(directory.path());
    kept.note_at(seen("a.example", Some(fault("mx1.a.example"))), 11 * DAY - 1);
    let mut other = seen("a.example", None);
    other.policy = PolicyDetails::new(PolicyType::Tlsa, "mx1.a.example");
    kept.note_at(other, 10 * DAY);
    // One second later is the next day.
    kept.note_at(seen("a.example", None), 11 * DAY);
    assert_eq!(kept.take_due(11 * DAY - 1), []);
    let due = kept.take_due(11 * DAY + DAY / 4);
    let [due] = due.as_slice() else { panic!("{due:?}") };
    assert_eq!((due.begin, due.end), (10 * DAY, 11 * DAY));
    let [none, tlsa] = due.content.policies.as_slice() else {
        panic!("{due:?}")
    };
    assert_eq!((none.summary.total_success, none.summary.total_failure), (2, 3));
    let counts: Vec<u32> = none
        .failure_details
        .iter()
        .map(|one| one.failed_session_count)
        .collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!((tlsa.summary.total_success, tlsa.summary.total_failure), (1, 0));
    // The report of that day was made: a restart does not make it again.
    kept.write().unwrap();
    let kept = open(directory.path());
    kept.note_at(seen("a.example", None), 11 * DAY - 1);
    assert_eq!(kept.take_due(11 * DAY + DAY / 2), []);
    assert_eq!(kept.take_due(12 * DAY + DAY / 4).len(), 1);
}

#[test]
fn failures_beyond_the_bound_are_told_by_type_alone_and_policies_beyond_theirs_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let kept = open(directory.path());
    for number in 0..FAILURES + 7 {
        kept.note_at(
            seen("a.example", Some(fault(&format!("mx{number}.a.example")))),
            DAY,
        );
    }
    for number in 0..POLICIES + 7 {
        let mut one = seen("b.example", None);
        one.policy = PolicyDetails::new(PolicyType::Tlsa, format!("mx{number}.b.example"));
        kept.note_at(one, DAY);
    }
    let due = kept.take_due(3 * DAY);
    let policy = &due[0].content.policies[0];
    assert_eq!(policy.summary.total_failure as usize, FAILURES + 7);
    assert_eq!(policy.failure_details.len(), FAILURES + 1);
    let last = &policy.failure_details[FAILURES];
    assert_eq!(
        (last.failed_session_count, &last.receiving_mx_hostname),
        (7, &None)
    );
    assert_eq!(due[1].content.policies.len(), POLICIES);
}

#[test]
fn all_domains_together_have_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let kept = open(directory.path());
    let long = "x".repeat(500);
    let large = |domain: &str| {
        let mut one = seen(domain, None);
        one.policy.policy_string = vec![long.clone(); 60];
        one
    };
    let mut count = 0;
    while kept.octets(DAY) < OCTETS {
        kept.note_at(large(&format!("d{count}.example")), DAY);
        count += 1;
    }
    kept.note_at(seen("late.example", None), DAY);
    // What is known is still counted.
    kept.note_at(large("d0.example"), DAY);
    kept.note_at(seen("d0.example", Some(fault("mx.d0.example"))), DAY);
    let due = kept.take_due(3 * DAY);
    assert_eq!(due.len(), count);
    let first = due.iter().find(|due| due.domain == "d0.example").unwrap();
    assert_eq!(first.content.policies.len(), 1);
    assert_eq!(first.content.policies[0].summary.total_success, 2);
}

impl Collected {
    fn octets(&self, now: u64) -> u64 {
        let mut octets = 0;
        self.add(now, |period| octets = period.octets);
        octets
    }
}

#[test]
fn only_one_whole_record_asks_for_reports() {
    let among = |texts: &[&str]| {
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        receivers_among(&texts).map(|found| (found.addresses, found.urls))
    };
    let to = |address: &str| Some((vec![address.to_owned()], Vec::new()));
    assert_eq!(among(&["v=TLSRPTv1; rua=mailto:a@b.example"]), to("a@b.example"));
    assert_eq!(
        among(&["something else", "v=TLSRPTv1;rua=mailto:a@b.example;"]),
        to("a@b.example")
    );
    for none in [
        &[
            "v=TLSRPTv1; rua=mailto:a@b.example",
            "v=TLSRPTv1; rua=mailto:c@b.example",
        ][..],
        &["v=TLSRPTv1; rua=mailto:a@b.example", "v=TLSRPTv1;"],
        &["v=TLSRPTv1;"],
        &["v=TLSRPTv1; rua="],
        &["v=TLSRPTv1; rua=ftp:b.example"],
        &["v=TLSRPTv1; rua=a@b.example"],
        &["v=TLSRPTv1; rua=mailto:x y@b.example"],
        &["v=TLSRPTv1; rua=mailto:a@b.example; rua=mailto:c@b.example"],
        &["v=TLSRPTv2; rua=mailto:a@b.example"],
        &["v=TLSRPTv10; rua=mailto:a@b.example"],
        &["rua=mailto:a@b.example; v=TLSRPTv1"],
        &[],
    ] {
        assert_eq!(among(none), None, "{none:?}");
    }
    let many = "v=TLSRPTv1; x=1; rua=MAILTO:a@b.example , https://b.example/r?x=1,mailto:a@b.example,mailto:c=d@b.example,mailto:last@b.example";
    let (addresses, urls) = among(&[many]).unwrap();
    assert_eq!(addresses, ["a@b.example", "c=d@b.example"]);
    assert_eq!(urls, ["https://b.example/r?x=1"]);
}
