use super::*;

fn hourly(edit: impl FnOnce(&mut Limits)) -> Hourly {
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
    Hourly::new(&limits)
}

fn who<'a>(peer: &str, reverse_path: &'a str) -> Who<'a> {
    Who {
        peer: peer.parse().unwrap(),
        reverse_path,
    }
}

/// A whole message with these proofs.
fn send(hourly: &mut Hourly, who: Who<'_>, proofs: &[Proof], now: Instant) -> Result<(), Limit> {
    let taken = hourly
        .begin(who, now)
        .and_then(|()| hourly.go_on(who, proofs, now));
    taken.map_err(|exceeded| exceeded.limit)?;
    hourly.accepted(who, std::iter::empty(), proofs, true, now);
    Ok(())
}

#[test]
fn an_address_has_its_limit_and_its_network_another() {
    let now = Instant::now();
    let mut hourly = hourly(|_| ());
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(send(&mut hourly, who(address, ""), &[], now), Ok(()));
        assert_eq!(send(&mut hourly, who(address, ""), &[], now), Ok(()));
        assert_eq!(send(&mut hourly, who(address, ""), &[], now), Err(Limit::Address));
    }
    assert_eq!(send(&mut hourly, who("192.0.2.3", ""), &[], now), Ok(()));
    assert_eq!(
        send(&mut hourly, who("192.0.2.4", ""), &[], now),
        Err(Limit::Network)
    );
    assert_eq!(send(&mut hourly, who("192.0.3.4", ""), &[], now), Ok(()));
    let exceeded = hourly.may_begin(who("192.0.2.1", ""), now).unwrap_err();
    assert_eq!((exceeded.limit, exceeded.per_hour), (Limit::Address, 2));
    assert_eq!(
        hourly.may_begin(who("192.0.2.1", ""), now + exceeded.wait),
        Ok(())
    );
}

#[test]
fn the_network_of_ipv6_is_a_48() {
    let now = Instant::now();
    let mut hourly = hourly(|_| ());
    for subnet in 0..5 {
        let address = format!("2001:db8:1:{subnet}::1");
        assert_eq!(send(&mut hourly, who(&address, ""), &[], now), Ok(()));
    }
    assert_eq!(
        send(&mut hourly, who("2001:db8:1:9::1", ""), &[], now),
        Err(Limit::Network)
    );
    assert_eq!(send(&mut hourly, who("2001:db8:2:9::1", ""), &[], now), Ok(()));
}

#[test]
fn a_forger_uses_up_nobodys_allowance() {
    let now = Instant::now();
    let mut hourly = hourly(|limits| limits.messages_per_hour = 0);
    let forger = who("192.0.2.1", "ann@sender.example");
    for _ in 0..3 {
        assert_eq!(send(&mut hourly, forger, &[], now), Ok(()));
    }
    assert_eq!(send(&mut hourly, forger, &[], now), Err(Limit::Sender));
    // She herself, from wherever: one allowance.
    for address in ["198.51.100.1", "198.51.101.1", "203.0.113.1"] {
        let ann = who(address, "Ann@sender.example");
        assert_eq!(send(&mut hourly, ann, &[Proof::Spf], now), Ok(()));
    }
    let ann = who("203.0.113.9", "ann@sender.example");
    assert_eq!(send(&mut hourly, ann, &[Proof::Spf], now), Err(Limit::Sender));
}

#[test]
fn a_history_raises_the_limit_of_who_has_it() {
    let start = Instant::now();
    let later = start + Duration::from_mins(1);
    let mut hourly = hourly(|limits| limits.messages_per_hour_sender = Some(0));
    let good = who("192.0.2.1", "a@good.example");
    assert_eq!(send(&mut hourly, good, &[Proof::Spf], start), Ok(()));
    assert_eq!(send(&mut hourly, good, &[Proof::Spf], later), Ok(()));
    // Two messages, a minute: the history is there, and ten times as many may come.
    for _ in 0..18 {
        assert_eq!(send(&mut hourly, good, &[Proof::Spf], later), Ok(()));
    }
    assert_eq!(send(&mut hourly, good, &[Proof::Spf], later), Err(Limit::Address));
    // Whoever claims the domain without proof is heard, and refused beyond his two.
    let forger = who("198.51.100.1", "b@good.example");
    assert_eq!(send(&mut hourly, forger, &[], later), Ok(()));
    assert_eq!(send(&mut hourly, forger, &[], later), Ok(()));
    assert_eq!(hourly.may_begin(forger, later), Ok(()));
    assert_eq!(send(&mut hourly, forger, &[], later), Err(Limit::Address));
    // Another sender at the good one's address has his own two, which are gone.
    let neighbour = who("192.0.2.1", "c@other.example");
    assert_eq!(
        send(&mut hourly, neighbour, &[Proof::Spf], later),
        Err(Limit::Address)
    );
}

#[test]
fn messages_in_one_minute_are_no_history() {
    let now = Instant::now();
    let mut hourly = hourly(|limits| limits.messages_per_hour = 100);
    let hasty = who("192.0.2.1", "a@hasty.example");
    for _ in 0..3 {
        assert_eq!(send(&mut hourly, hasty, &[Proof::Spf], now), Ok(()));
    }
    assert!(!hourly.histories.may_have(hasty, now));
}

#[test]
fn a_replayed_signature_has_no_part_in_the_history() {
    let start = Instant::now();
    let later = start + Duration::from_mins(1);
    let mut hourly = hourly(|_| ());
    let address = "192.0.2.1".parse().unwrap();
    let signer = who("192.0.2.1", "a@signed.example");
    for now in [start, later] {
        assert_eq!(send(&mut hourly, signer, &[Proof::Dkim(address)], now), Ok(()));
    }
    assert!(hourly.histories.has(signer, Proof::Dkim(address), later));
    let replayer = who("198.51.100.1", "a@signed.example");
    assert!(!hourly.histories.has(replayer, Proof::Dkim(replayer.peer), later));
}

#[test]
fn a_full_mailbox_still_hears_from_those_it_knows() {
    let start = Instant::now();
    let later = start + Duration::from_mins(1);
    let mut hourly = hourly(|_| ());
    let good = who("192.0.2.1", "a@good.example");
    for now in [start, later] {
        assert_eq!(send(&mut hourly, good, &[Proof::Spf], now), Ok(()));
    }
    let stranger = who("198.51.100.1", "x@y.example");
    for _ in 0..2 {
        assert_eq!(hourly.may_go_to(stranger, "me@example.org", later), Ok(()));
        hourly.accepted(stranger, ["Me@example.org"].into_iter(), &[], false, later);
    }
    let exceeded = hourly.may_go_to(stranger, "me@example.org", later).unwrap_err();
    assert_eq!((exceeded.limit, exceeded.per_hour), (Limit::Recipient, 2));
    assert_eq!(hourly.may_go_to(stranger, "you@example.org", later), Ok(()));
    assert_eq!(hourly.may_go_to(good, "me@example.org", later), Ok(()));
}
