use proptest::prelude::*;

use super::*;

fn text(line: &str) -> Result<Command, CommandError> {
    parse(line.as_bytes())
}

#[test]
fn verbs_are_read_in_any_case_and_with_trailing_space() {
    assert_eq!(
        text("ehlo  client.example "),
        Ok(Command::Ehlo("client.example".into()))
    );
    assert_eq!(text("HELO [192.0.2.1]"), Ok(Command::Helo("[192.0.2.1]".into())));
    assert_eq!(text("data \t"), Ok(Command::Data));
    assert_eq!(text("NOOP whatever"), Ok(Command::Noop));
    assert_eq!(text("LHLO x"), Ok(Command::Lhlo));
    assert_eq!(text("bdat 10 last"), Ok(Command::Bdat { size: 10, last: true }));
    assert_eq!(text("BDAT 0"), Ok(Command::Bdat { size: 0, last: false }));
    let auth = Command::Auth {
        mechanism: "PLAIN".into(),
        initial: Some("AGEAYg==".into()),
    };
    assert_eq!(text("AUTH plain AGEAYg=="), Ok(auth));
}

#[test]
fn paths_are_read() {
    let mail = |line: &str| match text(line) {
        Ok(Command::Mail(path, parameters)) => (path.to_string(), parameters.size),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(mail("MAIL FROM:<a@b> SIZE=3"), ("a@b".into(), Some(3)));
    assert_eq!(mail("mail from: <>"), (String::new(), None));
    assert_eq!(mail("MAIL FROM:<\"a> \"@b>"), ("\"a> \"@b".into(), None));
    assert_eq!(mail("MAIL FROM:<é@b> SMTPUTF8").0, "é@b");
    assert!(matches!(
        text("RCPT TO:<Postmaster>"),
        Ok(Command::Rcpt(ForwardPath::Postmaster, _))
    ));
    assert!(matches!(text("RCPT TO:<@x,@y:a@b>"), Ok(Command::Rcpt(path, _)) if path.to_string() == "a@b"));
}

#[test]
fn faults_are_told_apart() {
    use CommandError as E;
    for (line, error) in [
        ("", E::Unknown),
        ("FOO", E::Unknown),
        (" NOOP", E::Unknown),
        ("GET / HTTP/1.1", E::OtherProtocol),
        ("Host: mx.example", E::OtherProtocol),
        ("NOOP \0", E::Control),
        ("NOOP \r", E::Control),
        ("NOOP \u{7f}", E::Control),
        ("EHLO", E::Usage("EHLO name")),
        ("EHLO two names", E::Usage("EHLO name")),
        ("DATA now", E::Usage("DATA")),
        ("STARTTLS x", E::Usage("STARTTLS")),
        ("VRFY", E::Usage("VRFY address")),
        ("MAIL a@b", E::Usage("MAIL FROM:<address> [parameters]")),
        (
            "MAIL FROM:<a@b>SIZE=1",
            E::Usage("MAIL FROM:<address> [parameters]"),
        ),
        ("MAIL FROM:a@b", E::Address(AddressError::Brackets)),
        ("MAIL FROM:<a@b", E::Address(AddressError::Brackets)),
        ("MAIL FROM:<a>", E::Address(AddressError::NoDomain)),
        ("MAIL FROM:<é@b>", E::NeedsUtf8),
        (
            "MAIL FROM:<a@b> FOO",
            E::Parameter(ParameterError::Unknown("FOO".into())),
        ),
        ("RCPT TO:<>", E::Address(AddressError::Empty)),
        ("RCPT FROM:<a@b>", E::Usage("RCPT TO:<address> [parameters]")),
        ("BDAT", E::ChunkSize),
        ("BDAT x", E::ChunkSize),
        ("BDAT +1", E::ChunkSize),
        ("BDAT 1 FIRST", E::ChunkSize),
        ("BDAT 1 LAST x", E::ChunkSize),
        ("BDAT 99999999999999999999", E::ChunkSize),
        ("AUTH", E::Usage("AUTH mechanism [initial response]")),
    ] {
        assert_eq!(text(line), Err(error), "{}", line.escape_debug());
    }
    assert_eq!(parse(b"NOOP \xff"), Err(E::Encoding));
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in "(MAIL FROM:|RCPT TO:|BDAT |AUTH |EHLO |)[<>@\"\\\\ -~é\t]{0,40}") {
        // Reaching the end is the claim: no input panics, and no path carries a line end.
        if let Ok(Command::Mail(path, _)) = text(&line) {
            prop_assert!(!path.to_string().contains(['\r', '\n']));
        }
    }

    #[test]
    fn any_octets_are_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = parse(&line);
    }
}
