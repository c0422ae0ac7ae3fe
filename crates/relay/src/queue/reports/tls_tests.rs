//! Counts, days, bounds, restarts, and which records ask for reports.

use std::path::Path;

use mail_auth::report::tlsrpt::{PolicyDetails, PolicyType, ResultType};

use super::*;

const DAY: u64 = 86_400;
/// Domains that are named where something was dropped.
const NAMED: usize = 10;

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

/// A session under a policy of so many lines of 500 octets.
fn large(domain: &str, lines: usize) -> Seen {
    let mut one = seen(domain, None);
    one.policy.policy_string = vec!["x".repeat(500); lines];
    one
}

#[test]
fn one_domain_has_a_bound() {
    let directory = tempfile::tempdir().unwrap();
    let kept = open(directory.path());
    for number in 0..FAILURES {
        let host = format!("mx{number}.{}.example", "long".repeat(100));
        kept.note_at(seen("a.example", Some(fault(&host))), DAY);
    }
    assert!(kept.octets(DAY) <= OF_DOMAIN, "{}", kept.octets(DAY));
    assert!(kept.octets(DAY) > OF_DOMAIN / 2);
    // It has no room for another policy; other domains have theirs.
    kept.note_at(large("a.example", 3), DAY);
    kept.note_at(seen("c.example", None), DAY);
    assert_eq!(kept.take_dropped(2 * DAY - 1), [], "the period is not over");
    kept.write().unwrap();
    let kept = open(directory.path());
    let dropped = kept.take_dropped(2 * DAY);
    let [(DAY, dropped)] = dropped.as_slice() else {
        panic!("{dropped:?}")
    };
    assert_eq!(dropped.to_string(), "1 of a.example");
    assert_eq!(kept.take_dropped(2 * DAY), [], "told once");
    let due = kept.take_due(3 * DAY);
    assert_eq!(due.len(), 2);
    let policy = &due[0].content.policies[0];
    assert_eq!(policy.summary.total_failure as usize, FAILURES);
    assert!(
        policy.failure_details.len() < FAILURES,
        "the others by type alone"
    );
}

#[test]
fn all_domains_together_have_a_bound_and_large_ones_leave_room_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let kept = open(directory.path());
    let mut count = 0;
    while kept.octets(DAY) < OCTETS / 2 - (31 << 10) {
        kept.note_at(large(&format!("d{count}.example"), 60), DAY);
        count += 1;
    }
    for late in 0..NAMED + 3 {
        kept.note_at(large(&format!("late{late:02}.example"), 60), DAY);
        kept.note_at(large(&format!("late{late:02}.example"), 60), DAY);
    }
    let others = (kept.octets(DAY), kept.octets(DAY) + (1 << 20));
    while kept.octets(DAY) < others.1 {
        kept.note_at(seen(&format!("d{count}.example"), None), DAY);
        count += 1;
    }
    // What is known is still counted, and a usual failure of it told.
    kept.note_at(large("d0.example", 60), DAY);
    let last = format!("d{}.example", count - 1);
    kept.note_at(seen(&last, Some(fault("mx.example"))), DAY);
    let dropped = kept.take_dropped(2 * DAY).remove(0).1;
    assert_eq!(dropped.named.len(), NAMED);
    let named = dropped.named.values().sum::<u64>();
    // The first of them may have had the last room.
    assert!(
        (2 * NAMED as u64 + 4..=2 * NAMED as u64 + 6).contains(&(named + dropped.others)),
        "{dropped}"
    );
    let due = kept.take_due(3 * DAY);
    let of = |domain: &str| {
        &due.iter()
            .find(|due| due.domain == domain)
            .unwrap()
            .content
            .policies
    };
    assert!((count..=count + 1).contains(&due.len()));
    assert_eq!(of("d0.example").len(), 1);
    assert_eq!(of("d0.example")[0].summary.total_success, 2);
    let failure = &of(&last)[0].failure_details[0];
    assert_eq!(failure.receiving_mx_hostname.as_deref(), Some("mx.example"));
}

#[test]
fn an_address_and_a_host_get_so_many_reports_of_a_period() {
    let directory = tempfile::tempdir().unwrap();
    let kept = open(directory.path());
    let send = |kept: &Collected, day, to: &str| kept.may_send(day * DAY, &bounds_of(to));
    for number in 0..TO_ADDRESS {
        let address = ["v@a.example", "V@A.Example", "v+1@a.example."][number as usize % 3];
        assert_eq!(send(&kept, 1, address), Ok(()));
    }
    kept.write().unwrap();
    let kept = open(directory.path());
    for _ in 0..3 {
        assert_eq!(send(&kept, 1, "v@a.example"), Err(TO_ADDRESS));
    }
    assert_eq!(send(&kept, 2, "v@a.example"), Ok(()), "another day");
    for number in TO_ADDRESS..TO_HOST {
        assert_eq!(send(&kept, 1, &format!("v{number}@a.example")), Ok(()));
    }
    assert_eq!(send(&kept, 1, "other@a.example"), Err(TO_HOST));
    for number in 0..TO_HOST {
        let url = format!(
            "https://B{}.example/{number}?x=v@a.example",
            ["", "b"][number as usize % 2]
        );
        assert_eq!(send(&kept, 1, &url), Ok(()), "{url}");
    }
    for number in TO_HOST / 2..TO_HOST {
        assert_eq!(
            send(&kept, 1, &format!("https://bb.example:443/{number}")),
            Ok(())
        );
    }
    assert_eq!(send(&kept, 1, "https://bb.example/"), Err(TO_HOST));
    assert_eq!(send(&kept, 1, "https://b.example/"), Ok(()));
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
