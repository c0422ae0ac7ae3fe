use super::*;
use crate::reputation::History;

const DELAY: Millis = 300_000;
const HOUR: Millis = 3_600_000;

fn triplet(from: &str) -> Triplet {
    Triplet {
        whole: Key::new("t", &[from]),
        client: Key::new("c", &[from]),
    }
}

fn see(from: &str) -> Question {
    Question::See {
        triplet: triplet(from),
        delay: DELAY,
    }
}

fn take(name: &str, per_hour: u32) -> Question {
    let count = Count {
        limit: Limit::Address,
        key: Key::new("k", &[name]),
        per_hour,
        how: How::Take,
    };
    Question::Weigh(Weigh {
        counts: vec![count],
        histories: vec![],
        factor: 1,
        proven: false,
    })
}

fn attempt(name: &str) -> Attempt {
    let bucket = Bucket {
        key: Key::new("guess", &[name]),
        most: 6,
    };
    Attempt {
        id: Key::new("attempt", &[name]),
        login: Key::new("login", &[name]),
        known: false,
        of_known: vec![bucket],
        of_unknown: vec![bucket],
    }
}

fn accepted(domain: &str) -> Question {
    Question::Accepted(Accepted {
        recipients: vec![Key::new("mailbox", &[domain])],
        history: Some(History {
            domain: Key::new("domain", &[domain]),
            proofs: vec![Key::new("proof", &[domain])],
            proven: vec![],
            messages: 2,
            age: 1,
        }),
    })
}

fn one_table(number: usize, kept: Kept) -> Tables {
    let mut tables = Tables::default();
    tables[number].push(kept);
    tables
}

#[test]
fn who_floods_with_others_does_not_have_his_own_count_forgotten() {
    let local = Local::new(400);
    for _ in 0..10 {
        assert_eq!(local.answer(&take("flooder", 10), HOUR), Answer::Yes);
    }
    let guess = Question::Attempt(attempt("flooder"));
    for wrong in 1..=6 {
        assert_eq!(local.answer(&guess, HOUR), Answer::Attempted(wrong));
    }
    for number in 0..10_000 {
        let other = number.to_string();
        local.answer(&take(&other, 10), HOUR);
        local.answer(&Question::Attempt(attempt(&other)), HOUR);
    }
    assert!(matches!(
        local.answer(&take("flooder", 10), HOUR),
        Answer::Over { .. }
    ));
    assert!(matches!(local.answer(&guess, HOUR), Answer::Throttled(_)));
    let len = local.len();
    assert!(len[3] <= 400 && len[9] <= 100, "{len:?}");
}

#[test]
fn everything_that_is_counted_is_kept() {
    let (first, second) = (Local::new(100), Local::new(100));
    let guess = Question::Attempt(attempt("guesser"));
    for _ in 0..6 {
        first.answer(&guess, HOUR);
    }
    first.answer(&Question::Right(attempt("user")), HOUR);
    assert_eq!(first.answer(&accepted("good"), HOUR), Answer::No);
    assert_eq!(first.answer(&accepted("good"), HOUR + 1), Answer::Yes);
    assert_eq!(first.answer(&accepted("new"), HOUR), Answer::No);
    let now = HOUR + 1000;
    let tables = first.tables(now);
    second.restore(tables.clone(), now);
    assert_eq!(second.tables(now), tables);
    assert_eq!(second.len()[6..], [2, 2, 2, 1, 1]);
    assert!(matches!(second.answer(&guess, now), Answer::Throttled(_)));
    assert_eq!(second.answer(&accepted("new"), now), Answer::Yes, "its second");
}

#[test]
fn a_flood_of_new_triplets_leaves_the_known_ones() {
    let local = Local::new(100);
    local.answer(&see("known"), 1000);
    assert_eq!(local.answer(&see("known"), 1000 + DELAY), Answer::Yes);
    for number in 0..200 {
        local.answer(&see(&number.to_string()), 1000 + DELAY);
    }
    assert_eq!(local.answer(&see("known"), 1000 + DELAY), Answer::Yes);
    assert_eq!(local.len()[..4], [100, 1, 1, 0]);
}

#[test]
fn a_clock_that_is_set_back_blocks_nobody() {
    let local = Local::new(100);
    let year = 365 * 24 * HOUR;
    let take = take("k", 1);
    local.answer(&see("a"), year);
    assert_eq!(local.answer(&take, year), Answer::Yes);
    assert_ne!(local.answer(&take, year), Answer::Yes);
    assert_eq!(local.answer(&take, HOUR), Answer::Yes);
    assert_eq!(local.answer(&see("a"), HOUR), Answer::Wait(DELAY));
}

#[test]
fn what_was_kept_is_known_again_and_no_longer_than_before() {
    let (first, second) = (Local::new(100), Local::new(100));
    let take = take("k", 2);
    first.answer(&see("passed"), HOUR);
    assert_eq!(first.answer(&see("passed"), HOUR + DELAY), Answer::Yes);
    first.answer(&see("waiting"), HOUR + DELAY);
    first.answer(&take, HOUR + DELAY);
    first.answer(&take, HOUR + DELAY);
    let client = Key::new("c", &["proven"]);
    first.answer(&Question::Prove { client }, HOUR);
    let now = HOUR + DELAY + 60_000;
    second.restore(first.tables(now), now);
    assert!(matches!(second.answer(&take, now), Answer::Over { .. }));
    assert_eq!(second.answer(&see("waiting"), now), Answer::Wait(DELAY - 60_000));
    assert_eq!(second.answer(&see("proven"), now), Answer::Yes);
    assert_eq!(second.answer(&see("passed"), now), Answer::Yes);
    let late = HOUR + DELAY + millis(PASS_WINDOW) - 1;
    let third = Local::new(100);
    third.restore(first.tables(now), late);
    assert_eq!(
        third.len()[..4],
        [0, 1, 2, 0],
        "what has expired meanwhile is not taken in, unless it was earned"
    );
}

#[test]
fn a_start_with_a_clock_that_is_far_ahead_wipes_nothing_that_was_earned() {
    let (first, second, third) = (Local::new(100), Local::new(100), Local::new(100));
    let prove = |from: &str| Question::Prove {
        client: triplet(from).client,
    };
    first.answer(&prove("client"), HOUR);
    first.answer(&Question::Right(attempt("user")), HOUR);
    first.answer(&accepted("good"), HOUR);
    assert_eq!(first.answer(&accepted("good"), HOUR + 1), Answer::Yes);
    first.answer(&accepted("new"), HOUR);
    let ahead = HOUR + 400 * 24 * HOUR;
    second.restore(first.tables(HOUR + 2), ahead);
    // As long as it is ahead nobody is known, and others are learned.
    assert_eq!(second.answer(&see("client"), ahead), Answer::Wait(DELAY));
    second.answer(&prove("other"), ahead);
    second.answer(&Question::Right(attempt("other")), ahead);
    second.answer(&accepted("other"), ahead);
    second.answer(&accepted("other"), ahead + 1);
    let (at, now) = (ahead + HOUR, 2 * HOUR);
    third.restore(second.tables(at), now);
    for local in [&second, &third] {
        assert_eq!(local.answer(&see("client"), now), Answer::Yes);
        let mut known = Question::Attempt(attempt("user"));
        local.add_what_is_known(&mut known, now);
        assert!(matches!(known, Question::Attempt(Attempt { known: true, .. })));
        assert_eq!(local.answer(&accepted("good"), now), Answer::Yes);
        assert_eq!(local.answer(&accepted("new"), now), Answer::Yes, "its second");
    }
}

#[test]
fn what_is_over_makes_room() {
    let local = Local::new(8);
    for number in 0..100 {
        let name = number.to_string();
        local.answer(&accepted(&name), HOUR);
        local.answer(&accepted(&name), HOUR + 1);
        local.answer(&Question::Right(attempt(&name)), HOUR);
        let client = Key::new("c", &[&name]);
        local.answer(&Question::Prove { client }, HOUR);
    }
    let len = local.len();
    assert_eq!((len[2], len[7], len[8], len[10]), (8, 2, 2, 2), "{len:?}");
}

#[test]
fn a_kept_entry_holds_no_longer_than_a_new_one() {
    let local = Local::new(100);
    let kept = |value| Kept {
        key: triplet("a").whole,
        expires: Millis::MAX,
        value,
    };
    local.restore(one_table(0, kept([Millis::MAX, 7])), HOUR);
    assert_eq!(local.answer(&see("a"), HOUR + DELAY), Answer::Yes);
    let local = Local::new(100);
    local.restore(one_table(1, kept([0, 0])), HOUR);
    let late = HOUR + millis(PASS_WINDOW);
    assert_eq!(local.answer(&see("a"), late), Answer::Wait(DELAY));
}
