use super::*;

const MINUTE: u64 = 60_000;

fn holding(max_messages: usize, max_octets: u64) -> Holding {
    let settings = Hybrid {
        lifetime: 600,
        max_messages,
        max_octets,
        ..Hybrid::default()
    };
    Holding::new(settings, 60)
}

fn lend(hold: &Holding, now: u64) -> Option<MessageId> {
    hold.lend(Provenance::Public, now, |_| true)
}

fn unscanned() -> Standing {
    Standing::Unscanned { since: 0 }
}

fn bad() -> Standing {
    Standing::Bad {
        reason: "virus: x".into(),
    }
}

#[test]
fn room_is_bounded_and_comes_back() {
    let hold = holding(3, 100);
    let reserve = |id, octets| hold.reserve(MessageId(id), Provenance::Public, octets, 0);
    assert!(reserve(1, 60) && !reserve(2, 41) && reserve(2, 40) && !reserve(3, 1));
    hold.stand(MessageId(1), bad());
    assert!(!reserve(3, 1), "quarantine takes room, too");
    hold.forget(MessageId(1));
    assert!(reserve(3, 1) && reserve(4, 1) && !reserve(5, 1), "three messages");
    // What an earlier process took is there, whatever the bounds are now.
    hold.place(MessageId(6), Provenance::Public, 1000, unscanned());
    assert_eq!(hold.standing(MessageId(6)), Some(unscanned()));
}

#[test]
fn each_is_lent_once_and_only_through_its_socket() {
    let hold = holding(10, 1000);
    assert!(hold.reserve(MessageId(1), Provenance::Public, 1, 5));
    assert_eq!(lend(&hold, 5), None, "not in the schedule yet");
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    assert_eq!(hold.lend(Provenance::Inside, 5, |_| true), None);
    assert_eq!(
        hold.lend(Provenance::Public, 5, |_| false),
        None,
        "it is just being written"
    );
    assert_eq!(lend(&hold, 5), Some(MessageId(1)));
    assert_eq!(lend(&hold, 5), None);
    hold.give_back(MessageId(1));
    assert_eq!(lend(&hold, 5), Some(MessageId(1)));
    hold.give_back(MessageId(1));
    hold.stand(MessageId(1), bad());
    assert_eq!(lend(&hold, 5), None, "what is in quarantine is not scanned again");
}

#[test]
fn an_instance_has_two_messages_at_a_time_and_none_for_ever() {
    let hold = holding(10, 1000);
    for id in 1..=3 {
        hold.place(MessageId(id), Provenance::Public, 1, unscanned());
    }
    hold.place(MessageId(4), Provenance::Inside, 1, unscanned());
    assert_eq!(
        (lend(&hold, 5), lend(&hold, 5)),
        (Some(MessageId(1)), Some(MessageId(2)))
    );
    assert_eq!(
        (lend(&hold, 5), hold.next(Provenance::Public, 5)),
        (None, Some(120_005))
    );
    assert_eq!(hold.lend(Provenance::Inside, 5, |_| true), Some(MessageId(4)));
    // Twice the scanners' time is over: whoever has them is not waited for, and they come last.
    assert_eq!(lend(&hold, 120_004), None);
    assert_eq!(lend(&hold, 120_005), Some(MessageId(3)));
    assert_eq!(lend(&hold, 120_005), Some(MessageId(1)));
    hold.stand(MessageId(3), bad());
    hold.give_back(MessageId(3));
    assert_eq!(lend(&hold, 120_005), Some(MessageId(2)));
    // Nor does it stay out of quarantine by being asked for.
    assert_eq!(hold.expired(10 * MINUTE), [1, 2, 4].map(MessageId));
    assert_eq!(lend(&hold, 10 * MINUTE), None);
}

#[test]
fn what_was_not_tried_comes_before_what_was() {
    let hold = holding(10, 1000);
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    assert_eq!(lend(&hold, 0), Some(MessageId(1)));
    hold.put_off(MessageId(1), "slow", 0);
    hold.place(MessageId(2), Provenance::Public, 1, unscanned());
    hold.lock().get_mut(&MessageId(2)).unwrap().next = 20_000;
    assert_eq!(lend(&hold, 20_000), Some(MessageId(2)));
    assert_eq!(hold.why(MessageId(1)).as_deref(), Some("slow"));
}

#[test]
fn without_an_answer_the_next_scan_comes_later_and_later() {
    let hold = holding(10, 1000);
    let start = 1000 * MINUTE;
    hold.place(
        MessageId(1),
        Provenance::Public,
        1,
        Standing::Unscanned {
            since: start + 100 * MINUTE,
        },
    );
    let (mut now, mut waits) = (start, Vec::new());
    for _ in 0..7 {
        assert_eq!(lend(&hold, now), Some(MessageId(1)));
        hold.put_off(MessageId(1), "no answer", now);
        let next = hold.next(Provenance::Public, now).unwrap();
        assert_eq!(lend(&hold, next - 1), None);
        waits.push((next - now) / 1000);
        now = next;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(
        lend(&hold, now - 100 * MINUTE),
        Some(MessageId(1)),
        "a clock put back"
    );
    hold.put_off(MessageId(1), "no answer", now);
    hold.scan_now(MessageId(1));
    assert_eq!(lend(&hold, 0), Some(MessageId(1)));
}

#[test]
fn what_scanners_do_not_get_to_the_end_of_three_times_is_left_to_the_operator() {
    let hold = holding(10, 1000);
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    let three = || [1, 2, 3].map(|_| hold.unfinished(MessageId(1)));
    assert_eq!(three(), [false, false, true]);
    hold.scan_now(MessageId(1));
    assert_eq!(three(), [false, false, true]);
}

#[test]
fn time_ends_but_not_for_what_is_just_being_scanned() {
    let hold = holding(10, 1000);
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    hold.place(MessageId(2), Provenance::Public, 1, bad());
    let over = |now| (hold.expired(now), hold.next_expiry(now));
    let end = 10 * MINUTE;
    assert_eq!(over(end - 1), (vec![], Some(end)));
    assert_eq!(hold.expired(end), [MessageId(1)]);
    assert_eq!(lend(&hold, end - 1), Some(MessageId(1)));
    assert_eq!(over(end), (vec![], Some(end - 1 + 120_000)));
    hold.put_off(MessageId(1), "no answer", end);
    // A disk without room is asked less and less often.
    let mut waits = Vec::new();
    let mut now = end;
    for _ in 0..9 {
        hold.look_later(MessageId(1), now);
        assert_eq!(hold.expired(now), []);
        let next = hold.next_expiry(now).unwrap();
        waits.push((next - now) / 1000);
        now = next;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
    hold.stand(MessageId(1), Standing::Expired);
    assert_eq!(over(99 * end), (vec![], None));
}

#[test]
fn a_clock_that_was_ahead_keeps_nothing_for_ever() {
    let hold = holding(10, 1000);
    let future = 9_000_000 * MINUTE;
    hold.place(
        MessageId(1),
        Provenance::Public,
        1,
        Standing::Unscanned { since: future },
    );
    hold.look_later(MessageId(1), future);
    hold.not_after(MINUTE);
    assert_eq!(hold.next_expiry(MINUTE), Some(11 * MINUTE));
}

#[test]
fn nothing_is_released_unscanned_nor_bounced_nor_released_as_bad_by_mistake() {
    let word = |change, standing: &Standing| match means(change, standing) {
        Means::Same => "same",
        Means::ScanNow => "scan",
        Means::LetGo => "let go",
        Means::Refused(why) if why.contains("FOUND TO BE BAD: virus: x") => "bad",
        Means::Refused(_) => "no",
    };
    let all = [unscanned(), Standing::Expired, bad()];
    for (change, expected) in [
        (Change::Hold, ["no", "same", "same"]),
        (Change::Release, ["scan", "scan", "bad"]),
        (Change::ReleaseBad, ["no", "scan", "let go"]),
        (Change::Retry, ["scan", "scan", "no"]),
        (Change::Cancel, ["same", "same", "same"]),
        (Change::Bounce, ["no", "no", "no"]),
    ] {
        let found: Vec<_> = all.iter().map(|standing| word(change, standing)).collect();
        assert_eq!(found, expected, "{change:?}");
    }
}
