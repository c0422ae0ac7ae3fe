//! Counts, periods, bounds, and what is still there after a restart.

use mail_auth::report::{PolicyPublished, Record};

use super::super::dmarc::{Collected, Content as Rows, ROWS};
use super::*;
use crate::reports::{Batch, Seen};

const DOMAINS: usize = <Rows as Content>::DOMAINS;
const NAME: &str = <Rows as Content>::FILE;
const DAY: u64 = 86_400;

fn seen(domain: &str, source: &str) -> Seen {
    Seen {
        policy: PolicyPublished {
            domain: domain.into(),
            ..PolicyPublished::default()
        },
        record: Record::new()
            .with_source_ip(source.parse().unwrap())
            .with_header_from(domain),
    }
}

fn batch(domain: &str, source: &str) -> Batch {
    Batch {
        seen: vec![seen(domain, source)],
    }
}

#[test]
fn equal_rows_are_counted_and_a_period_is_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, error) = Collected::open(directory.path(), DAY);
    assert!(error.is_none());
    for source in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
        kept.note(batch("a.example", source), 10 * DAY + 5);
    }
    kept.note(batch("a.example", "192.0.2.1"), 11 * DAY);
    assert_eq!(kept.take_due(11 * DAY - 1), []);
    kept.write().unwrap();
    let (kept, error) = Collected::open(directory.path(), DAY);
    assert!(error.is_none());
    let due = kept.take_due(11 * DAY + DAY / 4);
    let [due] = due.as_slice() else { panic!("{due:?}") };
    assert_eq!(
        (due.domain.as_str(), due.begin, due.end),
        ("a.example", 10 * DAY, 11 * DAY)
    );
    let counts: Vec<u32> = due.content.rows.iter().map(|row| row.row.count).collect();
    assert_eq!(counts, [2, 1]);
    // A clock that goes back does not make a second report.
    kept.note(batch("a.example", "192.0.2.3"), 10 * DAY + 9);
    kept.write().unwrap();
    let (kept, _) = Collected::open(directory.path(), DAY);
    assert_eq!(kept.take_due(11 * DAY + DAY / 2), []);
    assert_eq!(kept.take_due(12 * DAY + DAY / 4).len(), 1);
}

#[test]
fn a_report_that_nobody_could_be_asked_about_is_tried_again_and_then_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, _) = Collected::open(directory.path(), DAY);
    kept.note(batch("a.example", "192.0.2.1"), DAY);
    let mut now = 2 * DAY + DAY / 4;
    let mut tries = 0;
    while let Some(due) = kept.take_due(now).pop() {
        tries += 1;
        assert_eq!(kept.put_back(due, now), tries < TRIES);
        assert_eq!(kept.take_due(now), [], "not at once");
        now += DAY / 24;
    }
    assert_eq!(tries, TRIES);
}

#[test]
fn what_strangers_send_stays_within_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, _) = Collected::open(directory.path(), DAY);
    for index in 0..ROWS + 7 {
        let source = format!("10.0.{}.{}", index / 256, index % 256);
        kept.note(batch("many.example", &source), DAY);
    }
    for index in 0..DOMAINS + 7 {
        kept.note(batch(&format!("d{index}.example"), "192.0.2.1"), DAY);
    }
    for domain in ["", "a b.example", "a\";x=\".example", "\u{e4}.example"] {
        let (other, _) = Collected::open(directory.path(), DAY);
        other.note(batch(domain, "192.0.2.1"), DAY);
        assert_eq!(other.take_due(2 * DAY + DAY / 4), [], "{domain}");
    }
    let due = kept.take_due(2 * DAY + DAY / 4);
    assert_eq!(due.len(), DOMAINS);
    let many = due.iter().find(|due| due.domain == "many.example").unwrap();
    assert_eq!((many.content.rows.len(), many.content.dropped), (ROWS, 7));
    assert!(kept.take_due(9 * DAY).is_empty());
}

#[test]
fn a_file_that_is_none_is_said_to_be_lost() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(NAME), b"{").unwrap();
    let (kept, error) = Collected::open(directory.path(), DAY);
    assert!(error.is_some_and(|error| error.to_string().contains(NAME)));
    kept.note(batch("a.example", "192.0.2.1"), DAY);
    kept.write().unwrap();
    assert!(Collected::open(directory.path(), DAY).1.is_none());
}
