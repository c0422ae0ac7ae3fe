//! One suite for every back end. Times are the suite's own; keys are new in each scenario, so that one server serves all.

use std::time::Duration;

use postern_relay::reputation::local::Local;
use postern_relay::reputation::{
    Answer, Backend, Key, Millis, PASS_WINDOW, PROOFS, Question, RETRY_WINDOW, Triplet, millis,
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
    asking_counts_nothing(backend).await;
    windows_of_other_lengths_slide_too(backend).await;
    a_clock_that_is_set_back_blocks_nobody(backend).await;
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

fn take(name: &str, limit: u32, window: Millis) -> Question {
    let key = Key::new("suite count", &[name]);
    Question::Take { key, limit, window }
}

async fn one_too_many_is_refused_and_an_hour_heals(backend: &impl Backend) {
    let one = take("hour", 20, HOUR);
    for _ in 0..20 {
        assert_eq!(ask(backend, one, 0).await, Answer::Yes);
    }
    assert_eq!(ask(backend, one, 0).await, Answer::No);
    assert_eq!(ask(backend, one, HOUR - 1).await, Answer::No);
    assert_eq!(ask(backend, take("neighbour", 20, HOUR), 0).await, Answer::Yes);
    // Half of the next hour later half of the first still counts: ten more, and no eleventh.
    for number in 0..10 {
        assert_eq!(ask(backend, one, HOUR + HOUR / 2).await, Answer::Yes, "{number}");
    }
    assert_eq!(ask(backend, one, HOUR + HOUR / 2).await, Answer::No);
    for _ in 0..20 {
        assert_eq!(ask(backend, one, 5 * HOUR).await, Answer::Yes);
    }
    assert_eq!(ask(backend, one, 5 * HOUR).await, Answer::No);
}

async fn asking_counts_nothing(backend: &impl Backend) {
    let key = Key::new("suite count", &["asked"]);
    let allows = Question::Allows {
        key,
        limit: 1,
        window: HOUR,
    };
    for _ in 0..3 {
        assert_eq!(ask(backend, allows, 0).await, Answer::Yes);
    }
    assert_eq!(ask(backend, take("asked", 1, HOUR), 0).await, Answer::Yes);
    assert_eq!(ask(backend, allows, 0).await, Answer::No);
}

async fn windows_of_other_lengths_slide_too(backend: &impl Backend) {
    let minute = millis(Duration::from_mins(1));
    let one = take("minute", 1, minute);
    assert_eq!(ask(backend, one, 0).await, Answer::Yes);
    assert_eq!(ask(backend, one, minute - 1).await, Answer::No);
    assert_eq!(ask(backend, one, 2 * minute).await, Answer::Yes);
}

async fn a_clock_that_is_set_back_blocks_nobody(backend: &impl Backend) {
    let (one, year) = (triplet("clock", "a"), 365 * 24 * HOUR);
    let count = take("clock", 1, HOUR);
    assert_eq!(see(backend, one, year).await, Answer::Wait(DELAY));
    assert_eq!(ask(backend, count, year).await, Answer::Yes);
    assert_eq!(
        see(backend, one, 0).await,
        Answer::Wait(DELAY),
        "and not for a year"
    );
    assert_eq!(see(backend, one, DELAY).await, Answer::Yes);
    assert_eq!(ask(backend, count, 0).await, Answer::Yes);
    assert_eq!(ask(backend, count, 0).await, Answer::No);
}
