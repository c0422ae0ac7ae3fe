use super::*;

const MINUTE: u64 = 60_000;

fn holding(max_messages: usize, max_octets: u64) -> Holding {
    Holding::new(Hybrid {
        lifetime: 600,
        max_messages,
        max_octets,
        ..Hybrid::default()
    })
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
    assert_eq!(hold.lend(Provenance::Public, 5), None, "not in the schedule yet");
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    assert_eq!(hold.lend(Provenance::Inside, 5), None);
    assert_eq!(hold.lend(Provenance::Public, 5), Some(MessageId(1)));
    assert_eq!(hold.lend(Provenance::Public, 5), None);
    hold.give_back(MessageId(1), true, 5);
    assert_eq!(hold.lend(Provenance::Public, 5), Some(MessageId(1)));
    hold.give_back(MessageId(1), true, 5);
    hold.stand(MessageId(1), bad());
    assert_eq!(
        hold.lend(Provenance::Public, 5),
        None,
        "what is in quarantine is not scanned again"
    );
}

#[test]
fn without_an_answer_the_next_scan_comes_later_and_later() {
    let hold = holding(10, 1000);
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    let (mut now, mut waits) = (1000 * MINUTE, Vec::new());
    for _ in 0..7 {
        assert_eq!(hold.lend(Provenance::Public, now), Some(MessageId(1)));
        hold.give_back(MessageId(1), false, now);
        let next = hold.next(Provenance::Public).unwrap();
        assert_eq!(hold.lend(Provenance::Public, next - 1), None);
        waits.push((next - now) / 1000);
        now = next;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(
        hold.lend(Provenance::Public, now - 100 * MINUTE),
        Some(MessageId(1)),
        "a clock put back"
    );
    hold.give_back(MessageId(1), false, now);
    hold.scan_now(MessageId(1));
    assert_eq!(hold.lend(Provenance::Public, 0), Some(MessageId(1)));
}

#[test]
fn time_ends_but_not_for_what_is_just_being_scanned() {
    let hold = holding(10, 1000);
    hold.place(MessageId(1), Provenance::Public, 1, unscanned());
    hold.place(MessageId(2), Provenance::Public, 1, bad());
    assert_eq!(
        (hold.expired(10 * MINUTE - 1), hold.next_expiry()),
        (vec![], Some(10 * MINUTE))
    );
    assert_eq!(hold.expired(10 * MINUTE), [MessageId(1)]);
    hold.lend(Provenance::Public, 10 * MINUTE).unwrap();
    assert_eq!((hold.expired(10 * MINUTE), hold.next_expiry()), (vec![], None));
    hold.give_back(MessageId(1), false, 10 * MINUTE);
    hold.look_later(MessageId(1), 11 * MINUTE);
    assert_eq!(hold.next_expiry(), Some(11 * MINUTE));
    hold.stand(MessageId(1), Standing::Expired);
    assert_eq!((hold.expired(99 * MINUTE), hold.next_expiry()), (vec![], None));
}

#[test]
fn nothing_is_released_unscanned_nor_bounced_nor_released_as_bad_by_mistake() {
    let word = |change, standing: &Standing| match means(change, standing) {
        Means::Same => "same",
        Means::ScanNow => "scan",
        Means::Refused(why) if why.contains("FOUND TO BE BAD: virus: x") => "bad",
        Means::Refused(_) => "no",
    };
    let all = [unscanned(), Standing::Expired, bad()];
    for (change, expected) in [
        (Change::Hold, ["no", "same", "same"]),
        (Change::Release, ["no", "scan", "bad"]),
        (Change::ReleaseBad, ["no", "scan", "same"]),
        (Change::Retry, ["scan", "scan", "no"]),
        (Change::Cancel, ["same", "same", "same"]),
        (Change::Bounce, ["no", "no", "no"]),
    ] {
        let found: Vec<_> = all.iter().map(|standing| word(change, standing)).collect();
        assert_eq!(found, expected, "{change:?}");
    }
}
