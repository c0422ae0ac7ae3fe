//! What counts of a chain before a key is asked for, and of what a sealer says.

use super::*;

const AUTHOR: &str = "a.example";

fn said(value: &str) -> (bool, bool) {
    let said = Said::read(value.as_bytes(), AUTHOR);
    (said.dmarc_passed, said.arc_passed)
}

#[test]
fn a_sealer_is_believed_only_in_what_he_says_plainly() {
    for (value, expected) in [
        ("i=1; l.example; dmarc=pass header.from=a.example", (true, false)),
        (
            "i=1; l.example;\r\n\tDMARC=Pass (p=reject; dis=none) header.from=A.Example",
            (true, false),
        ),
        (
            "i=2; l.example; arc=pass (i=1); dmarc=fail header.from=a.example",
            (false, true),
        ),
        ("i=1; l.example; dmarc=pass", (false, false)),
        ("i=1; l.example; dmarc=pass header.from=b.example", (false, false)),
        (
            "i=1; l.example (; dmarc=pass header.from=a.example)",
            (false, false),
        ),
        (
            "i=1; l.example; spf=fail reason=\"; dmarc=pass header.from=a.example\"",
            (false, false),
        ),
        (
            "i=1; l.example; dmarc=pass header.from=a.example; dmarc=fail header.from=a.example",
            (false, false),
        ),
        (
            "i=1; l.example; dmarc=passed header.from=a.example",
            (false, false),
        ),
        (
            "i=1; l.example (\\) dmarc=none; x) ; dmarc=pass header.from=a.example",
            (true, false),
        ),
        ("", (false, false)),
    ] {
        assert_eq!(said(value), expected, "{value}");
    }
}

/// A message with so many sets, whose last signature covers `names`.
fn chain(sets: usize, names: &str, padding: usize) -> String {
    let set = |i: usize| {
        format!(
            "ARC-Seal: i={i}; a=rsa-sha256; d=l.example; s=s; cv=none; b=AAAA\r\n\
             ARC-Message-Signature: i={i}; a=rsa-sha256; d=l.example; s=s; h={names}; bh=AAAA; b=AAAA\r\n\
             ARC-Authentication-Results: i={i}; l.example; x={}\r\n",
            "x".repeat(padding)
        )
    };
    (1..=sets).map(set).collect::<String>() + "From: a@a.example\r\n\r\nx\r\n"
}

#[test]
fn chains_that_cost_too_much_or_cover_nobody_are_broken() {
    let why = |message: &str| unusable(&AuthenticatedMessage::parse(message.as_bytes()).expect("a header"));
    assert_eq!(why(&chain(0, "from", 0)), None);
    assert_eq!(why(&chain(1, "from", 0)), None);
    assert_eq!(why(&chain(SETS, "subject : From", 0)), None);
    assert_eq!(
        why(&chain(1, "subject", 0)),
        Some("its signature does not cover From")
    );
    assert_eq!(
        why(&chain(SETS, "from", OCTETS / SETS)),
        Some("fields beyond all bounds")
    );
    let names = vec!["from"; COMPARISONS / 4].join(":");
    assert_eq!(why(&chain(1, &names, 0)), Some("fields beyond all bounds"));
    let more = chain(1, "from", 0)
        .split("From:")
        .next()
        .map(str::to_owned)
        .unwrap_or_default()
        + &chain(SETS, "from", 0);
    assert_eq!(why(&more), Some("more than 50 sets"));
    let lost = chain(2, "from", 0).replacen("ARC-Seal", "X-Seal", 1);
    assert_eq!(why(&lost), Some("sets that are not complete"));
}

#[test]
fn only_sealers_in_the_list_vouch() {
    let two = "ARC-Seal: i=2; a=rsa-sha256; d=Forward.example; s=s; cv=pass; b=AAAA\r\n\
        ARC-Message-Signature: i=2; a=rsa-sha256; d=forward.example; s=s; h=from; bh=AAAA; b=AAAA\r\n\
        ARC-Authentication-Results: i=2; forward.example; arc=pass; dmarc=fail header.from=a.example\r\n\
        ARC-Seal: i=1; a=rsa-sha256; d=list.example; s=s; cv=none; b=AAAA\r\n\
        ARC-Message-Signature: i=1; a=rsa-sha256; d=list.example; s=s; h=from; bh=AAAA; b=AAAA\r\n\
        ARC-Authentication-Results: i=1; list.example; dmarc=pass header.from=a.example\r\n\
        From: a@a.example\r\n\r\nx\r\n";
    let message = AuthenticatedMessage::parse(two.as_bytes()).expect("a header");
    let by = |names: &[&str]| {
        let trusted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        voucher(&words(&message, AUTHOR), &trusted)
    };
    assert_eq!(
        by(&["forward.example", "LIST.example"]).as_deref(),
        Some("list.example")
    );
    for names in [&[][..], &["list.example"], &["forward.example"]] {
        assert_eq!(by(names), None, "{names:?}");
    }
}

#[test]
fn a_sealers_name_cannot_write_into_the_field() {
    assert_eq!(plain("A.example;\r\n x=(b)"), "a.example????x??b?");
}
