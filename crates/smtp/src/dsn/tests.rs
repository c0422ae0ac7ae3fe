use proptest::prelude::*;

use super::*;

#[test]
fn parameters_are_shown_as_they_were_read() {
    for text in ["SUCCESS,FAILURE,DELAY", "FAILURE", "NEVER"] {
        assert_eq!(text.parse::<Notify>().unwrap().to_string(), text);
    }
    for text in ["FULL", "HDRS"] {
        assert_eq!(text.parse::<Ret>().unwrap().to_string(), text);
    }
    for text in [
        "rfc822;user+2Btag@example.org",
        "utf-8;us\\x{E9}r@example.org",
        "X-unknown;a",
    ] {
        assert_eq!(text.parse::<OriginalRecipient>().unwrap().to_string(), text);
    }
    let decoded: OriginalRecipient = "rfc822;user+2Btag@example.org".parse().unwrap();
    assert_eq!(decoded.address, "user+tag@example.org");
}

#[test]
fn malformed_parameters_are_refused() {
    for bad in ["", "NEVER,SUCCESS", "SUCCESS,", "ALWAYS"] {
        assert_eq!(bad.parse::<Notify>(), Err(DsnError::Notify), "{bad}");
    }
    let long = format!("rfc822;{}", "a".repeat(500));
    for bad in [
        "",
        "rfc822",
        "rfc822;",
        ";a",
        "rfc 822;a",
        "rfc822;a=b",
        "rfc822;a+0D+0Ab",
        "rfc822;a+4",
        "rfc822;é",
        &long,
    ] {
        assert_eq!(bad.parse::<OriginalRecipient>(), Err(DsnError::Orcpt), "{bad}");
    }
    let long = "a".repeat(101);
    for bad in ["", "a+0A", "a+zz", &long] {
        assert_eq!(parse_envid(bad), Err(DsnError::Envid), "{bad}");
    }
}

proptest! {
    #[test]
    fn xtext_is_undone(text in "[ -~]{0,60}") {
        let encoded = xtext::encode(&text);
        prop_assert!(encoded.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'='));
        prop_assert_eq!(xtext::decode(&encoded), Some(text));
    }
}
