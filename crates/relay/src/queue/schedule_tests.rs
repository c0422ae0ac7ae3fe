//! The schedule with a clock of the test's own.

use super::super::priority;
use super::super::provenance::Provenance;
use super::*;

fn to(name: &str) -> Destination {
    Destination {
        next_hop: name.into(),
        domain: "".into(),
        sign: false,
        source: None,
    }
}

fn due(at: u64, attempts: u32) -> Status {
    Status::Due {
        at,
        attempts,
        warned: false,
        reply: "".into(),
    }
}

fn place(segment: u64) -> Location {
    Location {
        segment,
        offset: 0,
        meta_length: 1,
        body_length: 1,
    }
}

fn insert(schedule: &mut Schedule, id: u64, recipients: Vec<(Destination, Status)>) {
    let recipients = recipients
        .into_iter()
        .map(|(to, status)| (schedule.index(to), status))
        .collect();
    let new = New {
        location: place(id),
        provenance: Provenance::Inside,
        arrived: 0,
        held: false,
        bulk: false,
        sender: priority::sender(None, "a@a.example"),
        recipients,
    };
    schedule.insert(MessageId(id), new);
}

#[test]
fn recipients_of_one_destination_share_a_job_and_the_message_ends_with_the_last() {
    let mut schedule = Schedule::new(10, 10);
    insert(
        &mut schedule,
        1,
        vec![(to("a"), due(5, 0)), (to("b"), due(5, 0)), (to("a"), due(5, 2))],
    );
    assert_eq!(schedule.next(4), None);
    assert_eq!(schedule.next_due(), Some(5));
    let first = schedule.next(5).unwrap();
    let second = schedule.next(5).unwrap();
    assert_eq!(
        (first.recipients, second.recipients),
        (vec![(0, 0), (2, 2)], vec![(1, 0)])
    );
    assert_eq!(schedule.next(5), None);
    assert!(!schedule.finish(
        MessageId(1),
        first.to,
        vec![(0, Status::Delivered), (2, due(50, 3))],
        &Reach::Reached
    ));
    assert!(!schedule.finish(
        MessageId(1),
        second.to,
        vec![(1, Status::Failed)],
        &Reach::Reached
    ));
    assert_eq!(schedule.waiting(), 1);
    assert_eq!(schedule.next(49), None);
    let again = schedule.next(50).unwrap();
    assert_eq!(again.recipients, [(2, 3)]);
    assert!(schedule.finish(
        MessageId(1),
        again.to,
        vec![(2, Status::Delivered)],
        &Reach::Reached
    ));
    assert_eq!(schedule.waiting(), 0);
    assert!(schedule.is_empty() && schedule.active() == 0 && !schedule.needs(1));
}

#[test]
fn a_busy_destination_does_not_hold_up_others() {
    let mut schedule = Schedule::new(2, 100);
    for id in 1..=5 {
        insert(&mut schedule, id, vec![(to("slow"), due(0, 0))]);
    }
    insert(&mut schedule, 6, vec![(to("fast"), due(1, 0))]);
    let started: Vec<Job> = std::iter::from_fn(|| schedule.next(1)).collect();
    assert_eq!(started.iter().map(|job| job.id.0).collect::<Vec<_>>(), [1, 6, 2]);
    schedule.finish(
        MessageId(2),
        started[2].to,
        vec![(0, Status::Delivered)],
        &Reach::Reached,
    );
    assert_eq!(schedule.next(1).unwrap().id, MessageId(3));
    assert_eq!(schedule.next(1), None);
    schedule.finish(MessageId(1), started[0].to, vec![(0, due(9, 1))], &Reach::Reached);
    assert_eq!(schedule.next(1).unwrap().id, MessageId(4));
}

#[test]
fn all_places_together_are_bounded() {
    let mut schedule = Schedule::new(10, 3);
    for id in 1..=5 {
        insert(&mut schedule, id, vec![(to(&id.to_string()), due(0, 0))]);
    }
    let started: Vec<Job> = std::iter::from_fn(|| schedule.next(0)).collect();
    assert_eq!((started.len(), schedule.active()), (3, 3));
    schedule.finish(
        started[0].id,
        started[0].to,
        vec![(0, Status::Delivered)],
        &Reach::Reached,
    );
    assert_eq!(schedule.next(0).unwrap().id, MessageId(4));
}

#[test]
fn a_message_is_carried_only_while_it_rests() {
    let mut schedule = Schedule::new(1, 10);
    insert(&mut schedule, 1, vec![(to("a"), due(0, 0))]);
    insert(&mut schedule, 2, vec![(to("a"), due(0, 0))]);
    let job = schedule.next(0).unwrap();
    assert!(schedule.carry(job.id).is_none());
    assert!(schedule.carry(MessageId(2)).is_some() && schedule.carry(MessageId(2)).is_none());
    schedule.finish(job.id, job.to, vec![(0, Status::Delivered)], &Reach::Reached);
    assert_eq!(schedule.next(0), None, "what is being carried is not tried");
    schedule.carried(MessageId(2), Some(place(7)));
    assert_eq!(
        (schedule.needs(2), schedule.in_segment(7).collect::<Vec<_>>()),
        (false, vec![MessageId(2)])
    );
    assert_eq!(schedule.next(0).unwrap().location, place(7));
}

#[test]
fn a_place_that_a_vanished_message_waited_for_goes_to_the_next() {
    let mut schedule = Schedule::new(1, 10);
    for id in 1..=3 {
        insert(&mut schedule, id, vec![(to("a"), due(0, 0))]);
    }
    let first = schedule.next(0).unwrap();
    assert_eq!(schedule.next(0), None);
    assert!(schedule.carry(MessageId(2)).is_some());
    schedule.finish(first.id, first.to, vec![(0, Status::Delivered)], &Reach::Reached);
    assert_eq!(schedule.next(0).unwrap().id, MessageId(3));
}

#[test]
fn a_clock_that_is_put_back_does_not_hold_mail_for_years() {
    let year = 31_536_000_000;
    let mut schedule = Schedule::new(10, 10);
    insert(
        &mut schedule,
        1,
        vec![(to("a"), due(year, 1)), (to("b"), due(40, 1))],
    );
    schedule.not_after(100);
    assert_eq!(schedule.next(50).map(|job| job.recipients), Some(vec![(1, 1)]));
    assert_eq!(schedule.next(99), None);
    assert_eq!(schedule.next(100).map(|job| job.recipients), Some(vec![(0, 1)]));
    assert_eq!(schedule.next(2 * year), None, "it is tried once, not twice");
}

#[test]
fn a_clock_that_is_put_back_forgets_nothing_that_was_ready() {
    let mut schedule = Schedule::new(1, 10);
    for id in 1..=2 {
        insert(&mut schedule, id, vec![(to("a"), due(1000, 0))]);
    }
    let first = schedule.next(1000).unwrap();
    assert_eq!(
        schedule.next(1000),
        None,
        "the second is ready and waits for the place"
    );
    schedule.not_after(5000);
    schedule.finish(first.id, first.to, vec![(0, Status::Delivered)], &Reach::Reached);
    assert_eq!(schedule.next(400), None, "not due by the new time");
    assert_eq!(schedule.next_due(), Some(1000));
    assert_eq!(schedule.next(1000).map(|job| job.id), Some(MessageId(2)));
}

fn insert_from(schedule: &mut Schedule, id: u64, from: &str, bulk: bool, destination: &str) {
    let new = New {
        location: place(1),
        provenance: Provenance::Inside,
        arrived: 0,
        held: false,
        bulk,
        sender: priority::sender(None, from),
        recipients: [(schedule.index(to(destination)), due(0, 0))].into(),
    };
    schedule.insert(MessageId(id), new);
}

fn deliver(schedule: &mut Schedule, job: &Job) {
    schedule.finish(job.id, job.to, vec![(0, Status::Delivered)], &Reach::Reached);
}

#[test]
fn a_password_reset_leaves_next_whatever_waits() {
    for marked in [true, false] {
        let mut schedule = Schedule::new(2, 10);
        for id in 1..=5000 {
            insert_from(&mut schedule, id, "news@example.org", marked, "world");
        }
        let under_way: Vec<Job> = std::iter::from_fn(|| schedule.next(0)).collect();
        assert_eq!(under_way.len(), 2);
        insert_from(&mut schedule, 5001, "reset@example.org", false, "world");
        deliver(&mut schedule, &under_way[0]);
        assert_eq!(
            schedule.next(0).map(|job| job.id),
            Some(MessageId(5001)),
            "marked: {marked}"
        );
    }
}

#[test]
fn bulk_mail_leaves_places_to_transactional_mail() {
    let mut schedule = Schedule::new(100, 16);
    for id in 1..=40 {
        insert_from(&mut schedule, id, "news@example.org", true, &(id % 8).to_string());
    }
    let under_way: Vec<Job> = std::iter::from_fn(|| schedule.next(0)).collect();
    assert_eq!(under_way.len(), 14);
    insert_from(&mut schedule, 50, "reset@example.org", false, "9");
    assert_eq!(schedule.next(0).map(|job| job.id), Some(MessageId(50)));
    assert_eq!(schedule.next(0), None);
}

#[test]
fn senders_and_destinations_take_turns() {
    let mut schedule = Schedule::new(1, 1);
    for id in 1..=3 {
        insert_from(&mut schedule, id, "many@example.org", false, "a");
    }
    insert_from(&mut schedule, 4, "one@example.org", false, "a");
    insert_from(&mut schedule, 5, "one@example.org", false, "b");
    let mut order = Vec::new();
    while let Some(job) = schedule.next(0) {
        order.push(job.id.0);
        deliver(&mut schedule, &job);
    }
    assert_eq!(order, [1, 5, 4, 2, 3]);
}

#[test]
fn a_destination_that_cannot_be_reached_waits_as_a_whole_and_is_probed_by_one() {
    let mut schedule = Schedule::new(10, 100);
    for id in 1..=1000 {
        insert(&mut schedule, id, vec![(to("dead"), due(0, 0))]);
    }
    insert(&mut schedule, 2000, vec![(to("well"), due(0, 0))]);
    let down = |until| Reach::Unreachable("451 4.4.1 no".into(), until);
    let first: Vec<Job> = std::iter::from_fn(|| schedule.next(0)).collect();
    assert_eq!(
        first.len(),
        6,
        "five places of one that nothing is known of, one of the other"
    );
    for job in &first {
        if job.id.0 == 2000 {
            deliver(&mut schedule, job);
        } else {
            schedule.finish(job.id, job.to, vec![(0, due(60, 1))], &down(60));
        }
        assert_eq!(schedule.next(1), None);
    }
    assert_eq!(schedule.next_due(), Some(60));
    insert(&mut schedule, 2001, vec![(to("dead"), due(2, 0))]);
    assert_eq!(schedule.next(59), None, "new mail waits, too");
    let probe = schedule.next(60).unwrap();
    assert_eq!(probe.failures, 1);
    assert_eq!(schedule.next(60), None, "one probes for all");
    schedule.finish(probe.id, probe.to, vec![(0, due(300, 1))], &down(300));
    assert_eq!(schedule.next(299), None);
    schedule.retry(MessageId(900), 100);
    let probe = schedule.next(100).unwrap();
    assert_eq!((probe.failures, schedule.next(100)), (2, None));
    deliver(&mut schedule, &probe);
    let open = std::iter::from_fn(|| schedule.next(101)).count();
    assert_eq!(open, 2, "it is open again, and bears more with each success");
}

#[test]
fn a_destination_without_messages_is_forgotten() {
    let mut schedule = Schedule::new(10, 10);
    for id in 1..=100 {
        insert(&mut schedule, id, vec![(to(&id.to_string()), due(0, 0))]);
        let job = schedule.next(0).unwrap();
        deliver(&mut schedule, &job);
    }
    assert_eq!((schedule.lanes.len(), schedule.names.len()), (1, 0));
    assert!(schedule.backlog.is_empty() && schedule.octets() == 0);
}

/// There may be a million of them.
#[test]
fn a_message_with_one_recipient_is_one_small_allocation() {
    assert!(size_of::<Entry>() <= 112, "{} octets", size_of::<Entry>());
}
