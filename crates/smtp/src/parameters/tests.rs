use super::*;

#[test]
fn mail_parameters_are_read_in_any_case_and_order() {
    let parameters =
        parse_mail(" size=1000 BODY=8bitmime\tSMTPUTF8 RequireTLS RET=hdrs ENVID=a+2Bb AUTH=<>").unwrap();
    assert_eq!(
        parameters,
        MailParameters {
            size: Some(1000),
            body: Body::EightBitMime,
            smtputf8: true,
            require_tls: true,
            ret: Some(Ret::Headers),
            envid: Some("a+b".into()),
            given: true,
        }
    );
    assert_eq!(parse_mail("  ").unwrap(), MailParameters::default());
}

#[test]
fn rcpt_parameters_are_read() {
    let parameters = parse_rcpt(" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b").unwrap();
    assert_eq!(parameters.notify, "DELAY,SUCCESS".parse().ok());
    assert_eq!(parameters.orcpt.unwrap().address, "a@b");
}

#[test]
fn sizes_beyond_64_bits_are_over_any_limit() {
    assert_eq!(
        parse_mail("SIZE=99999999999999999999").unwrap().size,
        Some(u64::MAX)
    );
}

#[test]
fn the_culprit_is_named() {
    use ParameterError::{Duplicate, Unknown, Value};
    for (text, expected) in [
        ("SIZE=1 size=2", Duplicate("SIZE".into())),
        ("NOTIFY=NEVER", Unknown("NOTIFY".into())),
        ("X-Y=1", Unknown("X-Y".into())),
        ("=1", Unknown(String::new())),
    ] {
        assert_eq!(parse_mail(text), Err(expected), "{text}");
    }
    for text in [
        "REQUIRETLS=yes",
        "SIZE",
        "SIZE=",
        "SIZE=-1",
        "SIZE=1k",
        "SIZE=111111111111111111111",
        "BODY=BINARYMIME",
        "BODY",
        "SMTPUTF8=1",
        "RET=ALL",
        "ENVID=",
        "AUTH",
    ] {
        let error = parse_mail(text).unwrap_err();
        let keyword = text.split('=').next().unwrap();
        assert!(
            matches!(&error, Value(told) if told.contains(keyword)),
            "{text}: {error:?}"
        );
    }
    assert_eq!(parse_rcpt("SIZE=1"), Err(Unknown("SIZE".into())));
}
