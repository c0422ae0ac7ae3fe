use super::*;
use crate::reputation::local::Local;

/// Limits and what was counted.
struct Tried {
    hourly: Hourly,
    local: Local,
}

impl Tried {
    fn ask(&self, question: &Question, now: Millis) -> Result<(), Exceeded> {
        within(self.local.answer(question, now))
    }

    fn may_begin(&self, who: Who<'_>, now: Millis) -> Result<(), Exceeded> {
        self.ask(&self.hourly.may_begin(who), now)
    }

    fn may_go_to(&self, who: Who<'_>, mailbox: &str, now: Millis) -> Result<(), Exceeded> {
        self.ask(&self.hourly.may_go_to(who, mailbox), now)
    }

    fn accepted(&self, who: Who<'_>, mailboxes: &[&str], proofs: &[Proof], passed: bool, now: Millis) {
        let mailboxes: Vec<String> = mailboxes.iter().map(ToString::to_string).collect();
        for question in self.hourly.accepted(who, &mailboxes, proofs, passed) {
            self.local.answer(&question, now);
        }
    }

    /// Whether the limits are raised for who has these proofs: he is asked about when he is over the usual ones.
    fn is_raised(&self, who: Who<'_>, proofs: &[Proof], now: Millis) -> bool {
        while self.ask(&self.hourly.begin(who), now).is_ok() {}
        self.ask(&self.hourly.go_on(who, proofs), now).is_ok()
    }
}

fn hourly(edit: impl FnOnce(&mut Limits)) -> Tried {
    let mut limits = Limits {
        messages_per_hour: 2,
        messages_per_hour_network: Some(5),
        messages_per_hour_sender: Some(3),
        messages_per_hour_recipient: Some(2),
        proven_messages: 2,
        proven_age: 60,
        ..Limits::default()
    };
    edit(&mut limits);
    Tried {
        hourly: Hourly::new(&limits),
        local: Local::new(4000),
    }
}

fn who<'a>(peer: &str, reverse_path: &'a str) -> Who<'a> {
    Who {
        peer: peer.parse().unwrap(),
        reverse_path,
    }
}

/// A whole message with these proofs.
fn send(tried: &Tried, who: Who<'_>, proofs: &[Proof], now: Millis) -> Result<(), Limit> {
    let taken = tried
        .ask(&tried.hourly.begin(who), now)
        .and_then(|()| tried.ask(&tried.hourly.go_on(who, proofs), now));
    taken.map_err(|exceeded| exceeded.limit)?;
    tried.accepted(who, &[], proofs, true, now);
    Ok(())
}

const NOW: Millis = 1_800_000_000_000;
const LATER: Millis = NOW + 60_000;

#[test]
fn an_address_has_its_limit_and_its_network_another() {
    let now = NOW;
    let hourly = hourly(|_| ());
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(send(&hourly, who(address, ""), &[], now), Ok(()));
        assert_eq!(send(&hourly, who(address, ""), &[], now), Ok(()));
        assert_eq!(send(&hourly, who(address, ""), &[], now), Err(Limit::Address));
    }
    assert_eq!(send(&hourly, who("192.0.2.3", ""), &[], now), Ok(()));
    assert_eq!(send(&hourly, who("192.0.2.4", ""), &[], now), Err(Limit::Network));
    assert_eq!(send(&hourly, who("192.0.3.4", ""), &[], now), Ok(()));
    let exceeded = hourly.may_begin(who("192.0.2.1", ""), now).unwrap_err();
    assert_eq!((exceeded.limit, exceeded.per_hour), (Limit::Address, 2));
    assert_eq!(
        hourly.may_begin(who("192.0.2.1", ""), now + millis(exceeded.wait)),
        Ok(())
    );
}

#[test]
fn the_network_of_ipv6_is_a_48() {
    let now = NOW;
    let hourly = hourly(|_| ());
    for subnet in 0..5 {
        let address = format!("2001:db8:1:{subnet}::1");
        assert_eq!(send(&hourly, who(&address, ""), &[], now), Ok(()));
    }
    assert_eq!(
        send(&hourly, who("2001:db8:1:9::1", ""), &[], now),
        Err(Limit::Network)
    );
    assert_eq!(send(&hourly, who("2001:db8:2:9::1", ""), &[], now), Ok(()));
}

#[test]
fn a_forger_uses_up_nobodys_allowance() {
    let now = NOW;
    let hourly = hourly(|limits| limits.messages_per_hour = 0);
    let forger = who("192.0.2.1", "ann@sender.example");
    for _ in 0..3 {
        assert_eq!(send(&hourly, forger, &[], now), Ok(()));
    }
    assert_eq!(send(&hourly, forger, &[], now), Err(Limit::Sender));
    // She herself, from wherever: one allowance.
    for address in ["198.51.100.1", "198.51.101.1", "203.0.113.1"] {
        let ann = who(address, "Ann@sender.example");
        assert_eq!(send(&hourly, ann, &[Proof::Spf], now), Ok(()));
    }
    let ann = who("203.0.113.9", "ann@sender.example");
    assert_eq!(send(&hourly, ann, &[Proof::Spf], now), Err(Limit::Sender));
}

#[test]
fn a_history_raises_the_limit_of_who_has_it() {
    let (start, later) = (NOW, LATER);
    let hourly = hourly(|limits| limits.messages_per_hour_sender = Some(0));
    let good = who("192.0.2.1", "a@good.example");
    assert_eq!(send(&hourly, good, &[Proof::Spf], start), Ok(()));
    assert_eq!(send(&hourly, good, &[Proof::Spf], later), Ok(()));
    // Two messages, a minute: the history is there, and ten times as many may come.
    for _ in 0..18 {
        assert_eq!(send(&hourly, good, &[Proof::Spf], later), Ok(()));
    }
    assert_eq!(send(&hourly, good, &[Proof::Spf], later), Err(Limit::Address));
    // Whoever claims the domain without proof is heard, and refused beyond his two.
    let forger = who("198.51.100.1", "b@good.example");
    assert_eq!(send(&hourly, forger, &[], later), Ok(()));
    assert_eq!(send(&hourly, forger, &[], later), Ok(()));
    assert_eq!(hourly.may_begin(forger, later), Ok(()));
    assert_eq!(send(&hourly, forger, &[], later), Err(Limit::Address));
    // Another sender at the good one's address has his own two, which are gone.
    let neighbour = who("192.0.2.1", "c@other.example");
    assert_eq!(
        send(&hourly, neighbour, &[Proof::Spf], later),
        Err(Limit::Address)
    );
}

#[test]
fn messages_in_one_minute_are_no_history() {
    let now = NOW;
    let hourly = hourly(|limits| limits.messages_per_hour = 100);
    let hasty = who("192.0.2.1", "a@hasty.example");
    for _ in 0..3 {
        assert_eq!(send(&hourly, hasty, &[Proof::Spf], now), Ok(()));
    }
    assert!(!hourly.is_raised(hasty, &[Proof::Spf], now));
}

#[test]
fn a_replayed_signature_has_no_part_in_the_history() {
    let (start, later) = (NOW, LATER);
    let hourly = hourly(|_| ());
    let address = "192.0.2.1".parse().unwrap();
    let signer = who("192.0.2.1", "a@signed.example");
    for now in [start, later] {
        assert_eq!(send(&hourly, signer, &[Proof::Dkim(address)], now), Ok(()));
    }
    assert!(hourly.is_raised(signer, &[Proof::Dkim(address)], later));
    let replayer = who("198.51.100.1", "a@signed.example");
    assert!(!hourly.is_raised(replayer, &[Proof::Dkim(replayer.peer)], later));
}

#[test]
fn a_full_mailbox_still_hears_from_those_it_knows() {
    let (start, later) = (NOW, LATER);
    let hourly = hourly(|_| ());
    let good = who("192.0.2.1", "a@good.example");
    for now in [start, later] {
        assert_eq!(send(&hourly, good, &[Proof::Spf], now), Ok(()));
    }
    let stranger = who("198.51.100.1", "x@y.example");
    for _ in 0..2 {
        assert_eq!(hourly.may_go_to(stranger, "me@example.org", later), Ok(()));
        hourly.accepted(stranger, &["Me@example.org"], &[], false, later);
    }
    let exceeded = hourly.may_go_to(stranger, "me@example.org", later).unwrap_err();
    assert_eq!((exceeded.limit, exceeded.per_hour), (Limit::Recipient, 2));
    assert_eq!(hourly.may_go_to(stranger, "you@example.org", later), Ok(()));
    assert_eq!(hourly.may_go_to(good, "me@example.org", later), Ok(()));
}

#[test]
fn many_recipients_are_counted_in_questions_that_fit_into_a_packet() {
    let tried = hourly(|_| ());
    let good = who("192.0.2.1", "a@good.example");
    let mailboxes: Vec<String> = (0..1000).map(|n| format!("user{n}@example.org")).collect();
    let proofs = [Proof::Spf, Proof::Dkim(good.peer)];
    let questions = tried.hourly.accepted(good, &mailboxes, &proofs, true);
    assert_eq!(questions.len(), 16);
    for question in questions {
        assert!(serde_json::to_string(&question).unwrap().len() < 4000);
        tried.local.answer(&question, NOW);
    }
    assert_eq!(tried.local.len()[6..9], [1000, 2, 0]);
}

#[test]
fn zero_is_no_limit() {
    let tried = hourly(|limits| {
        limits.messages_per_hour = 0;
        limits.messages_per_hour_network = Some(0);
        limits.messages_per_hour_sender = Some(0);
        limits.messages_per_hour_recipient = Some(0);
    });
    let stranger = who("192.0.2.1", "a@b.example");
    for _ in 0..100 {
        assert_eq!(send(&tried, stranger, &[], NOW), Ok(()));
        tried.accepted(stranger, &["me@example.org"], &[], false, NOW);
    }
    assert!(tried.local.is_empty());
}

#[test]
fn a_64_is_one_client() {
    let tried = hourly(|_| ());
    assert_eq!(send(&tried, who("2001:db8::1", ""), &[], NOW), Ok(()));
    assert_eq!(send(&tried, who("2001:db8::2", ""), &[], NOW), Ok(()));
    assert_eq!(
        send(&tried, who("2001:db8::3", ""), &[], NOW),
        Err(Limit::Address)
    );
    assert_eq!(send(&tried, who("2001:db8:0:1::1", ""), &[], NOW), Ok(()));
}
