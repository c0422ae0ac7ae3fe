use proptest::prelude::*;

use super::*;

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

#[test]
fn good_mailboxes_are_shown_as_they_were_written() {
    let label = "a".repeat(63);
    let local = "l".repeat(64);
    for text in [
        "a@b",
        "user+tag@example.org",
        "first.last@sub.example.org",
        "!#$%&'*+-/=?^_`{|}~@example.org",
        "\"two words\"@example.org",
        "\"a@b\"@example.org",
        "\"\"@example.org",
        "\"q\\\"uote\"@example.org",
        "user@[192.0.2.1]",
        "user@[IPv6:2001:db8::1]",
        "用户@例子.测试",
        "user@xn--fsqu00a.test",
        "user@a_b.example",
        &format!("{local}@{label}.example"),
    ] {
        assert_eq!(mailbox(text).to_string(), text);
    }
}

#[test]
fn needless_quotes_are_dropped() {
    assert_eq!(mailbox("\"plain\"@example.org"), mailbox("plain@example.org"));
    assert_eq!(
        mailbox("\"pl\\ain\"@example.org").to_string(),
        "plain@example.org"
    );
}

#[test]
fn bad_mailboxes_say_what_is_wrong() {
    let long_local = format!("{}@example.org", "l".repeat(65));
    let long_label = format!("user@{}.example", "a".repeat(64));
    let long = format!("user@{}", "a.".repeat(125) + "example");
    for (text, error) in [
        ("", AddressError::Empty),
        ("user", AddressError::NoDomain),
        ("@example.org", AddressError::LocalPart),
        (".user@example.org", AddressError::LocalPart),
        ("user.@example.org", AddressError::LocalPart),
        ("us..er@example.org", AddressError::LocalPart),
        ("two words@example.org", AddressError::LocalPart),
        ("\"open@example.org", AddressError::LocalPart),
        ("\"a\"b@example.org", AddressError::LocalPart),
        ("us\u{85}er@example.org", AddressError::LocalPart),
        ("a@b@example.org", AddressError::Domain),
        ("user@", AddressError::Domain),
        ("user@-example.org", AddressError::Domain),
        ("user@example-.org", AddressError::Domain),
        ("user@example..org", AddressError::Domain),
        ("user@example.org.", AddressError::Domain),
        ("user@exam ple.org", AddressError::Domain),
        ("user@example\u{3002}org", AddressError::Domain),
        ("user@[192.0.2.256]", AddressError::Literal),
        ("user@[2001:db8::1]", AddressError::Literal),
        ("user@[192.0.2.1", AddressError::Literal),
        (&long_local, AddressError::LocalTooLong),
        (&long_label, AddressError::Domain),
        (&long, AddressError::TooLong),
    ] {
        assert_eq!(text.parse::<Mailbox>(), Err(error), "{text}");
    }
}

#[test]
fn domains_compare_without_ascii_case_and_local_parts_with_it() {
    assert_eq!(mailbox("user@EXAMPLE.org"), mailbox("user@example.ORG"));
    assert_ne!(mailbox("User@example.org"), mailbox("user@example.org"));
    let upper: Domain = "EXAMPLE.Org".parse().unwrap();
    let lower: Domain = "example.org".parse().unwrap();
    assert_eq!(upper, "example.ORG");
    assert_eq!(upper.cmp(&lower), std::cmp::Ordering::Equal);
    let set = std::collections::HashSet::from([upper]);
    assert!(set.contains(&lower));
}

#[test]
fn source_routes_are_ignored() {
    for route in ["@a.example:", "@a.example,@b.example:", "@[IPv6:2001:db8::1],@b:"] {
        let path: ForwardPath = format!("{route}user@example.org").parse().unwrap();
        assert_eq!(path.to_string(), "user@example.org", "{route}");
    }
    for bad in [
        "@:user@b",
        "@a.example",
        "@a.example,b.example:u@c",
        "@a.example:",
    ] {
        assert!(bad.parse::<ForwardPath>().is_err(), "{bad}");
    }
}

#[test]
fn null_and_postmaster_have_their_own_variants() {
    assert_eq!("".parse(), Ok(ReversePath::Null));
    assert_eq!("PostMaster".parse(), Ok(ForwardPath::Postmaster));
    assert!("postmaster".parse::<ReversePath>().is_err());
    assert!("".parse::<ForwardPath>().is_err());
}

#[test]
fn routes_in_local_parts_are_seen() {
    for routed in [
        "a%b@example.org",
        "host!user@example.org",
        "\"a@b\"@example.org",
        "\"b:a\"@example.org",
    ] {
        assert!(mailbox(routed).route_in_local_part(), "{routed}");
    }
    assert!(!mailbox("user+tag@example.org").route_in_local_part());
}

#[test]
fn brackets_end_outside_quotes_only() {
    assert_eq!(split_brackets("<\"a>b\"@c> SIZE=1"), Ok(("\"a>b\"@c", " SIZE=1")));
    assert_eq!(split_brackets("<\"a\\\">\"@c>"), Ok(("\"a\\\">\"@c", "")));
    assert_eq!(split_brackets("<a@b"), Err(AddressError::Brackets));
    assert_eq!(split_brackets("a@b"), Err(AddressError::Brackets));
}

proptest! {
    /// Whatever is accepted is shown in a form that is accepted and means the same, and that no line can be broken with.
    #[test]
    fn shown_addresses_read_back(text in r#"["\\ -~]{0,12}[a-zé\\"@%.]{0,8}@[a-zA-Z0-9\[\].:é-]{1,20}"#) {
        if let Ok(parsed) = text.parse::<Mailbox>() {
            let shown = parsed.to_string();
            prop_assert_eq!(&shown.parse::<Mailbox>().unwrap(), &parsed);
            prop_assert!(!shown.contains(['\r', '\n', '\0']));
            let bracketed = format!("<{shown}> X");
            prop_assert_eq!(split_brackets(&bracketed), Ok((shown.as_str(), " X")));
        }
    }

    #[test]
    fn any_local_part_can_be_quoted(local in "[ -~]{0,20}") {
        let escaped = local.replace('\\', "\\\\").replace('"', "\\\"");
        let parsed = mailbox(&format!("\"{escaped}\"@example.org"));
        prop_assert_eq!(parsed.local(), &local);
        prop_assert_eq!(&mailbox(&parsed.to_string()), &parsed);
    }
}
