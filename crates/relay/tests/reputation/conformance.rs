//! One suite for every back end. Times are the suite's own; keys are new in each scenario, so that one server serves all.

use postern_relay::reputation::local::Local;
use postern_relay::reputation::{
    Accepted, Answer, Attempt, Backend, Bucket, Count, FORGIVEN, History, How, Key, LOGIN_WINDOW, Limit,
    Millis, PASS_WINDOW, PROOFS, Question, RETRY_WINDOW, Triplet, Weigh, millis,
};

const START: Millis = 1_800_000_000_000;
const DELAY: Millis = 300_000;
const HOUR: Millis = 3_600_000;

#[tokio::test]
async fn the_process_itself() {
    all(&Local::new(1000)).await;
}

/// Every scenario.
pub(crate) async fn all(backend: &impl Backend) {
    a_triplet_waits_and_then_passes(backend).await;
    a_triplet_that_never_comes_back_is_forgotten(backend).await;
    a_client_that_keeps_coming_back_waits_no_more(backend).await;
    a_proven_client_waits_no_more(backend).await;
    what_another_learned_is_known(backend).await;
    one_too_many_is_refused_and_an_hour_heals(backend).await;
    looking_counts_nothing(backend).await;
    all_are_within_their_limits_or_none_is_counted(backend).await;
    a_message_that_is_counted_is_not_its_own_excess(backend).await;
    a_complete_history_raises_the_limits(backend).await;
    recipients_are_counted_whatever_their_limit(backend).await;
    wrong_passwords_add_up_and_are_forgiven_one_by_one(backend).await;
    who_logged_in_before_is_counted_apart(backend).await;
    what_could_not_be_judged_is_taken_back(backend).await;
    an_attempt_is_taken_back_once_and_where_it_was_counted(backend).await;
    clocks_may_differ_a_little(backend).await;
    a_clock_that_is_set_back_blocks_nobody(backend).await;
    a_clock_that_was_far_ahead_took_nothing_away(backend).await;
}

async fn ask(backend: &impl Backend, question: Question, now: Millis) -> Answer {
    backend.ask(&question, START + now).await.expect("it answers")
}

async fn see(backend: &impl Backend, triplet: Triplet, now: Millis) -> Answer {
    ask(
        backend,
        Question::See {
            triplet,
            delay: DELAY,
        },
        now,
    )
    .await
}

async fn knows(backend: &impl Backend, triplet: Triplet, now: Millis) -> Answer {
    ask(backend, Question::Knows { triplet }, now).await
}

fn triplet(client: &str, rest: &str) -> Triplet {
    Triplet {
        whole: Key::new("suite triplet", &[client, rest]),
        client: Key::new("suite client", &[client]),
    }
}

async fn a_triplet_waits_and_then_passes(backend: &impl Backend) {
    let one = triplet("waits", "a");
    assert_eq!(knows(backend, one, 0).await, Answer::No);
    assert_eq!(see(backend, one, 0).await, Answer::Wait(DELAY));
    assert_eq!(see(backend, one, DELAY - 1000).await, Answer::Wait(1000));
    assert_eq!(
        knows(backend, one, DELAY).await,
        Answer::No,
        "it has not come back"
    );
    assert_eq!(see(backend, one, DELAY).await, Answer::Yes);
    assert_eq!(knows(backend, one, DELAY).await, Answer::Yes);
    let other = triplet("waits", "b");
    assert_eq!(see(backend, other, DELAY).await, Answer::Wait(DELAY));
    // Each visit renews it.
    let late = millis(PASS_WINDOW) - 1;
    assert_eq!(see(backend, one, DELAY + late).await, Answer::Yes);
    assert_eq!(see(backend, one, DELAY + 2 * late).await, Answer::Yes);
    let over = DELAY + 2 * late + millis(PASS_WINDOW);
    assert_eq!(see(backend, one, over).await, Answer::Wait(DELAY));
}

async fn a_triplet_that_never_comes_back_is_forgotten(backend: &impl Backend) {
    let one = triplet("forgotten", "a");
    assert_eq!(see(backend, one, 0).await, Answer::Wait(DELAY));
    assert_eq!(see(backend, one, millis(RETRY_WINDOW)).await, Answer::Wait(DELAY));
}

async fn a_client_that_keeps_coming_back_waits_no_more(backend: &impl Backend) {
    for number in 0..PROOFS {
        let one = triplet("steady", &number.to_string());
        assert_eq!(see(backend, one, 0).await, Answer::Wait(DELAY), "{number}");
        assert_eq!(see(backend, one, DELAY).await, Answer::Yes, "{number}");
    }
    let new = triplet("steady", "new");
    assert_eq!(knows(backend, new, DELAY).await, Answer::Yes);
    assert_eq!(see(backend, new, DELAY).await, Answer::Yes);
    let stranger = triplet("another", "new");
    assert_eq!(see(backend, stranger, DELAY).await, Answer::Wait(DELAY));
    let over = DELAY + millis(PASS_WINDOW);
    assert_eq!(see(backend, new, over).await, Answer::Wait(DELAY));
}

async fn a_proven_client_waits_no_more(backend: &impl Backend) {
    let one = triplet("proven", "a");
    assert_eq!(knows(backend, one, 0).await, Answer::No);
    let prove = Question::Prove { client: one.client };
    assert_eq!(ask(backend, prove, 0).await, Answer::Yes);
    assert_eq!(see(backend, one, 0).await, Answer::Yes);
}

async fn what_another_learned_is_known(backend: &impl Backend) {
    let one = triplet("learned", "a");
    assert_eq!(
        ask(backend, Question::Learn { triplet: one }, 0).await,
        Answer::Yes
    );
    assert_eq!(see(backend, one, 0).await, Answer::Yes);
    assert_eq!(
        see(backend, triplet("learned", "b"), 0).await,
        Answer::Wait(DELAY)
    );
}

fn count(limit: Limit, name: &str, per_hour: u32, how: How) -> Count {
    Count {
        limit,
        key: Key::new("suite count", &[name]),
        per_hour,
        how,
    }
}

fn weigh(counts: Vec<Count>) -> Question {
    Question::Weigh(Weigh {
        counts,
        histories: vec![],
        factor: 10,
        proven: false,
    })
}

fn take(name: &str, per_hour: u32) -> Question {
    weigh(vec![count(Limit::Address, name, per_hour, How::Take)])
}

fn over(limit: Limit, per_hour: u32, wait: Millis) -> Answer {
    Answer::Over {
        limit,
        per_hour,
        wait,
    }
}

async fn one_too_many_is_refused_and_an_hour_heals(backend: &impl Backend) {
    let one = take("hour", 20);
    for _ in 0..20 {
        assert_eq!(ask(backend, one.clone(), 0).await, Answer::Yes);
    }
    let wait = HOUR + 1000;
    let at = over(Limit::Address, 20, wait);
    assert_eq!(ask(backend, one.clone(), 0).await, at);
    let at = over(Limit::Address, 20, 1001);
    assert_eq!(ask(backend, one.clone(), HOUR - 1).await, at);
    assert_eq!(ask(backend, take("neighbour", 20), 0).await, Answer::Yes);
    // Half of the next hour later half of the first still counts: ten more, and no eleventh.
    for number in 0..10 {
        let answer = ask(backend, one.clone(), HOUR + HOUR / 2).await;
        assert_eq!(answer, Answer::Yes, "{number}");
    }
    let at = over(Limit::Address, 20, 1000);
    assert_eq!(ask(backend, one.clone(), HOUR + HOUR / 2).await, at);
    for _ in 0..20 {
        assert_eq!(ask(backend, one.clone(), 5 * HOUR).await, Answer::Yes);
    }
    let at = over(Limit::Address, 20, wait);
    assert_eq!(ask(backend, one, 5 * HOUR).await, at);
    // Thirds are no round numbers: both round up.
    for _ in 0..3 {
        assert_eq!(ask(backend, take("thirds", 3), 0).await, Answer::Yes);
    }
    assert_eq!(
        ask(backend, take("thirds", 3), HOUR + HOUR / 3).await,
        Answer::Yes
    );
    let at = over(Limit::Address, 2, HOUR / 6 + 1001);
    assert_eq!(ask(backend, take("thirds", 2), HOUR + HOUR / 2).await, at);
}

async fn looking_counts_nothing(backend: &impl Backend) {
    let look = weigh(vec![count(Limit::Address, "asked", 1, How::Look)]);
    for _ in 0..3 {
        assert_eq!(ask(backend, look.clone(), 0).await, Answer::Yes);
    }
    assert_eq!(ask(backend, take("asked", 1), 0).await, Answer::Yes);
    let at = over(Limit::Address, 1, HOUR + 1000);
    assert_eq!(ask(backend, look, 0).await, at);
}

async fn all_are_within_their_limits_or_none_is_counted(backend: &impl Backend) {
    let all = |network| {
        weigh(vec![
            count(Limit::Address, "all", 3, How::Take),
            count(Limit::Network, "all", network, How::Take),
            count(Limit::Sender, "all", 1, How::Look),
        ])
    };
    assert_eq!(ask(backend, all(1), 0).await, Answer::Yes);
    let at = over(Limit::Network, 1, HOUR + 1000);
    for _ in 0..5 {
        assert_eq!(ask(backend, all(1), 0).await, at);
    }
    assert_eq!(ask(backend, all(3), 0).await, Answer::Yes);
    assert_eq!(ask(backend, all(3), 0).await, Answer::Yes);
    let at = over(Limit::Address, 3, HOUR + 1000);
    assert_eq!(
        ask(backend, all(3), 0).await,
        at,
        "the first that is reached is told"
    );
    // The same key is another one's count under another limit.
    let mailbox = weigh(vec![count(Limit::Recipient, "all", 1, How::Look)]);
    assert_eq!(ask(backend, mailbox, 0).await, Answer::Yes);
}

async fn a_message_that_is_counted_is_not_its_own_excess(backend: &impl Backend) {
    assert_eq!(ask(backend, take("own", 1), 0).await, Answer::Yes);
    let taken = weigh(vec![count(Limit::Address, "own", 1, How::Taken)]);
    assert_eq!(ask(backend, taken.clone(), 0).await, Answer::Yes);
    assert_eq!(ask(backend, take("own", 9), 0).await, Answer::Yes);
    let answer = ask(backend, taken, 0).await;
    assert!(
        matches!(answer, Answer::Over { per_hour: 1, .. }),
        "{answer:?}: the limit as it is set"
    );
}

fn accepted(recipients: &[&str], domain: &str, proven: bool) -> Question {
    let proof = Key::new("suite proof", &[domain]);
    Question::Accepted(Accepted {
        recipients: recipients
            .iter()
            .map(|name| Key::new("suite count", &[name]))
            .collect(),
        history: (!domain.is_empty()).then(|| History {
            domain: Key::new("suite domain", &[domain]),
            proofs: vec![proof],
            proven: if proven { vec![proof] } else { vec![] },
            messages: 2,
            age: DELAY,
        }),
    })
}

async fn a_complete_history_raises_the_limits(backend: &impl Backend) {
    let of = |name: &str, kind: &str, domain: &str, proven| {
        Question::Weigh(Weigh {
            counts: vec![count(Limit::Sender, name, 1, How::Take)],
            histories: vec![Key::new("suite nothing", &[]), Key::new(kind, &[domain])],
            factor: 10,
            proven,
        })
    };
    // Two in one moment are no history, nor is one; a third later makes it complete.
    for _ in 0..2 {
        assert_eq!(ask(backend, accepted(&[], "raised", false), 0).await, Answer::No);
    }
    for kind in ["suite domain", "suite proof"] {
        let one = of(kind, kind, "raised", false);
        assert_eq!(ask(backend, one.clone(), 0).await, Answer::Yes);
        let at = over(Limit::Sender, 1, HOUR + 1000);
        assert_eq!(ask(backend, one, 0).await, at);
    }
    assert_eq!(
        ask(backend, accepted(&[], "raised", false), DELAY).await,
        Answer::Yes
    );
    for kind in ["suite domain", "suite proof"] {
        let one = of(kind, kind, "raised", false);
        for _ in 1..10 {
            assert_eq!(ask(backend, one.clone(), DELAY).await, Answer::Yes, "{kind}");
        }
        let answer = ask(backend, one, DELAY).await;
        assert!(matches!(answer, Answer::Over { per_hour: 10, .. }), "{answer:?}");
    }
    // What who asks knows himself holds, and is taken over with a message.
    for _ in 0..2 {
        let one = of("known", "suite domain", "known", true);
        assert_eq!(ask(backend, one, 0).await, Answer::Yes);
    }
    assert_eq!(ask(backend, accepted(&[], "known", true), 0).await, Answer::Yes);
    let one = of("known", "suite domain", "known", false);
    assert_eq!(ask(backend, one.clone(), 0).await, Answer::Yes);
    // It lasts for a time after its last message.
    let late = millis(PASS_WINDOW) - 1;
    assert_eq!(
        ask(backend, accepted(&[], "known", false), late).await,
        Answer::Yes
    );
    assert_eq!(ask(backend, one.clone(), 2 * late).await, Answer::Yes);
    assert_eq!(ask(backend, one.clone(), 2 * late).await, Answer::Yes);
    let over = late + millis(PASS_WINDOW) + 3 * HOUR;
    assert_eq!(ask(backend, one.clone(), over).await, Answer::Yes);
    let answer = ask(backend, one, over).await;
    assert!(matches!(answer, Answer::Over { per_hour: 1, .. }), "{answer:?}");
}

async fn recipients_are_counted_whatever_their_limit(backend: &impl Backend) {
    for _ in 0..3 {
        let answer = ask(backend, accepted(&["mailbox", "other"], "", false), 0).await;
        assert_eq!(answer, Answer::Yes);
    }
    for name in ["mailbox", "other"] {
        let look = |per_hour| weigh(vec![count(Limit::Recipient, name, per_hour, How::Look)]);
        assert_eq!(ask(backend, look(4), 0).await, Answer::Yes);
        let at = over(Limit::Recipient, 3, HOUR + 1000);
        assert_eq!(ask(backend, look(3), 0).await, at);
    }
}

fn attempt(name: &str, known: bool) -> Attempt {
    let bucket = |what: &str, most| Bucket {
        key: Key::new("suite guess", &[name, what]),
        most,
    };
    Attempt {
        id: Key::new("suite attempt", &[name]),
        login: Key::new("suite login", &[name]),
        known,
        of_known: vec![bucket("address", 3)],
        of_unknown: vec![bucket("address", 3), bucket("network", 2)],
    }
}

async fn wrong_passwords_add_up_and_are_forgiven_one_by_one(backend: &impl Backend) {
    let forgiven = millis(FORGIVEN);
    let one = Question::Attempt(attempt("guesser", false));
    assert_eq!(ask(backend, one.clone(), 0).await, Answer::Attempted(1));
    assert_eq!(ask(backend, one.clone(), 1000).await, Answer::Attempted(2));
    let network_is_full = Answer::Throttled(forgiven - 2000);
    assert_eq!(ask(backend, one.clone(), 2000).await, network_is_full);
    assert_eq!(ask(backend, one.clone(), forgiven).await, Answer::Attempted(2));
    assert_eq!(
        ask(backend, one.clone(), forgiven).await,
        Answer::Throttled(forgiven)
    );
    // Much later all is forgiven.
    assert_eq!(
        ask(backend, one.clone(), 3 * forgiven).await,
        Answer::Attempted(1)
    );
    assert_eq!(ask(backend, one, 4 * forgiven - 1).await, Answer::Attempted(2));
}

async fn who_logged_in_before_is_counted_apart(backend: &impl Backend) {
    let one = attempt("owner", false);
    let try_it = |known| Question::Attempt(attempt("owner", known));
    assert_eq!(ask(backend, try_it(false), 0).await, Answer::Attempted(1));
    assert_eq!(ask(backend, Question::Right(one), 0).await, Answer::Yes);
    for wrong in 1..=3 {
        // The network, which takes two, does not matter to him.
        assert_eq!(ask(backend, try_it(false), 0).await, Answer::Attempted(wrong));
    }
    let throttled = Answer::Throttled(millis(FORGIVEN));
    assert_eq!(ask(backend, try_it(false), 0).await, throttled);
    let late = millis(LOGIN_WINDOW);
    for wrong in 1..=2 {
        assert_eq!(ask(backend, try_it(false), late).await, Answer::Attempted(wrong));
    }
    assert_eq!(
        ask(backend, try_it(false), late).await,
        throttled,
        "he is unknown again"
    );
    assert_eq!(ask(backend, try_it(true), late).await, Answer::Attempted(3));
}

async fn what_could_not_be_judged_is_taken_back(backend: &impl Backend) {
    let one = attempt("unjudged", false);
    for _ in 0..10 {
        let answer = ask(backend, Question::Attempt(one.clone()), 0).await;
        assert_eq!(answer, Answer::Attempted(1));
        assert_eq!(
            ask(backend, Question::Unjudged(one.clone()), 0).await,
            Answer::Yes
        );
    }
    // Nothing is taken back that was not made.
    let new = attempt("never made", false);
    assert_eq!(
        ask(backend, Question::Unjudged(new.clone()), 0).await,
        Answer::Yes
    );
    assert_eq!(
        ask(backend, Question::Attempt(new), 0).await,
        Answer::Attempted(1)
    );
}

async fn clocks_may_differ_a_little(backend: &impl Backend) {
    let second = 1000;
    let one = take("differ", 1);
    assert_eq!(ask(backend, one.clone(), second).await, Answer::Yes);
    let answer = ask(backend, one, 0).await;
    assert!(matches!(answer, Answer::Over { .. }), "{answer:?}");
    let guess = Question::Attempt(attempt("differ", false));
    assert_eq!(ask(backend, guess.clone(), second).await, Answer::Attempted(1));
    assert_eq!(ask(backend, guess, 0).await, Answer::Attempted(2));
}

async fn a_clock_that_is_set_back_blocks_nobody(backend: &impl Backend) {
    let (one, year) = (triplet("clock", "a"), 365 * 24 * HOUR);
    let count = take("clock", 1);
    assert_eq!(see(backend, one, year).await, Answer::Wait(DELAY));
    assert_eq!(ask(backend, count.clone(), year).await, Answer::Yes);
    assert_eq!(
        see(backend, one, 0).await,
        Answer::Wait(DELAY),
        "and not for a year"
    );
    assert_eq!(see(backend, one, DELAY).await, Answer::Yes);
    assert_eq!(ask(backend, count.clone(), 0).await, Answer::Yes);
    let at = over(Limit::Address, 1, HOUR + 1000);
    assert_eq!(ask(backend, count, 0).await, at);
    let guess = Question::Attempt(attempt("clock", false));
    for wrong in 1..=2 {
        assert_eq!(ask(backend, guess.clone(), year).await, Answer::Attempted(wrong));
    }
    assert_eq!(ask(backend, guess, 0).await, Answer::Attempted(1));
}

async fn a_clock_that_was_far_ahead_took_nothing_away(backend: &impl Backend) {
    let ahead = 400 * 24 * HOUR;
    let one = triplet("ahead", "a");
    let raised = |name: &str| {
        Question::Weigh(Weigh {
            counts: vec![count(Limit::Sender, name, 1, How::Take)],
            histories: vec![Key::new("suite domain", &["ahead"])],
            factor: 10,
            proven: false,
        })
    };
    let earn = async |name: &str, now| {
        let client = triplet(name, "a").client;
        assert_eq!(ask(backend, Question::Prove { client }, now).await, Answer::Yes);
        let right = Question::Right(attempt(name, false));
        assert_eq!(ask(backend, right, now).await, Answer::Yes);
        ask(backend, accepted(&[], name, false), now).await;
        ask(backend, accepted(&[], name, false), now + DELAY).await
    };
    assert_eq!(earn("ahead", 0).await, Answer::Yes);
    // As long as it is ahead nobody is known.
    assert_eq!(knows(backend, one, ahead).await, Answer::No);
    assert_eq!(ask(backend, raised("ahead"), ahead).await, Answer::Yes);
    let answer = ask(backend, raised("ahead"), ahead).await;
    assert!(matches!(answer, Answer::Over { per_hour: 1, .. }), "{answer:?}");
    assert_eq!(earn("others ahead", ahead).await, Answer::Yes);
    // It is set right.
    let now = 2 * DELAY;
    assert_eq!(knows(backend, one, now).await, Answer::Yes);
    for _ in 0..10 {
        assert_eq!(ask(backend, raised("set right"), now).await, Answer::Yes);
    }
    for wrong in 1..=3 {
        // As one who has logged in: the network takes two.
        let again = Question::Attempt(attempt("ahead", false));
        assert_eq!(ask(backend, again, now).await, Answer::Attempted(wrong));
    }
}

async fn an_attempt_is_taken_back_once_and_where_it_was_counted(backend: &impl Backend) {
    let number = |number: &str| Attempt {
        id: Key::new("suite attempt", &["once", number]),
        ..attempt("once", false)
    };
    let try_it = async |id: &str, now| ask(backend, Question::Attempt(number(id)), now).await;
    let right = async |id: &str, now| {
        let told = ask(backend, Question::Right(number(id)), now).await;
        assert_eq!(told, Answer::Yes);
    };
    // Two at a time; the first that is right makes the login known, and the second was counted before.
    assert_eq!(try_it("1", 0).await, Answer::Attempted(1));
    assert_eq!(try_it("2", 0).await, Answer::Attempted(2));
    right("1", 0).await;
    right("2", 0).await;
    // Nothing is left of the address; he is known now.
    let late = millis(LOGIN_WINDOW);
    assert_eq!(try_it("3", 1).await, Answer::Attempted(1));
    // It is wrong. What is told again, or was never counted, takes nothing of it.
    right("1", 2).await;
    right("never", 2).await;
    assert_eq!(try_it("4", 3).await, Answer::Attempted(2));
    // Told late, it is still taken back; when it would be forgiven, no more.
    right("4", millis(FORGIVEN) - 1).await;
    assert_eq!(try_it("5", millis(FORGIVEN) - 1).await, Answer::Attempted(2));
    right("5", 2 * millis(FORGIVEN)).await;
    // Whoever did not log in for long is counted with his network again, of which nothing is left.
    for wrong in 1..=2 {
        let again = ask(backend, Question::Attempt(number("6")), 2 * late).await;
        assert_eq!(again, Answer::Attempted(wrong));
    }
}

#[tokio::test]
async fn the_network_is_not_left_with_a_guess_of_who_logged_in() {
    network_is_left_with_nothing(&Local::new(1000)).await;
}

pub(crate) async fn network_is_left_with_nothing(backend: &impl Backend) {
    let of = |name: &str, id: &str| Attempt {
        id: Key::new("suite attempt", &["network", name, id]),
        of_unknown: vec![Bucket {
            key: Key::new("suite guess", &["one network"]),
            most: 2,
        }],
        ..attempt(name, false)
    };
    for id in ["1", "2"] {
        let made = ask(backend, Question::Attempt(of("owner of both", id)), 0).await;
        assert!(matches!(made, Answer::Attempted(_)), "{made:?}");
    }
    for id in ["1", "2"] {
        ask(backend, Question::Right(of("owner of both", id)), 0).await;
    }
    let other = ask(backend, Question::Attempt(of("neighbour", "1")), 0).await;
    assert_eq!(other, Answer::Attempted(1), "both were right");
}
