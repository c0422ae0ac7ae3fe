use super::*;
use crate::address::AddressError;
use crate::command::CommandError as C;
use crate::content::ContentError as E;
use crate::parameters::ParameterError as P;

/// Every reply there is, with sample arguments.
#[allow(clippy::too_many_lines, reason = "a list, one line for each reply")]
fn all() -> Vec<Reply> {
    let session = vec![
        greeting("mx.example"),
        ehlo("mx.example", vec!["SIZE 10".into()]),
        helo("mx.example"),
        start_tls(),
        sender_ok(),
        recipient_ok(),
        start_data(),
        chunk_ok(10),
        noop(),
        reset(),
        quit("mx.example"),
        vrfy(),
        expn(),
        help(),
        not_lmtp(),
        challenge("VXNlcm5hbWU6"),
        submission_ok(),
        authenticated(),
        authentication_cancelled(),
        authentication_syntax(),
        unknown_mechanism(),
        authentication_not_offered(),
        authentication_needs_tls(),
        authentication_required(),
        authentication_misplaced(),
        tls_required(),
        tls_not_offered(),
        tls_active(),
        tls_pipelined(),
        bad_sequence("MAIL"),
        nested_mail(),
        data_pipelined(),
        too_many_recipients(100),
        too_large(1000),
        parameters_need_ehlo(),
        line_too_long(512),
        line_endless(),
        bare_line_feed(),
        too_many_errors(),
        undecided(),
    ];
    let commands = [
        C::Unknown,
        C::OtherProtocol,
        C::Control,
        C::Encoding,
        C::Usage("EHLO name"),
        C::ChunkSize,
        C::Address(AddressError::NoDomain),
        C::Parameter(P::Unknown("FOO".into())),
        C::Parameter(P::Duplicate("SIZE".into())),
        C::Parameter(P::Value("RET must be FULL or HDRS".into())),
        C::NeedsUtf8,
    ];
    let contents = [
        E::BareCr,
        E::BareLf,
        E::Nul,
        E::LineTooLong(998),
        E::TooLarge(1000),
        E::HeaderTooLarge(500),
        E::TooManyHops(50),
    ];
    let policy = vec![
        queued("abc-1"),
        attachment_refused("a.zip: b.exe", "files that end in .exe are not taken"),
        content_beyond("more than 1000 parts"),
        content_ambiguous("a header has two fields Content-Type"),
        too_many_connections(),
        server_busy(),
        no_proxy_header(),
        early_talker(),
        timeout(),
        session_too_long(),
        shutting_down(),
        rate_limited("from your network", 100, std::time::Duration::from_hours(1)),
        bad_helo(),
        no_reverse_dns(),
        dns_listed("list.example"),
        relay_denied("example.net"),
        routed_address(),
        not_allowed_here(),
        sender_not_owned("anna"),
        unknown_recipient("nobody@example.org"),
        mailbox_full("anna@example.org"),
        recipient_unverifiable(),
        no_route("example.net"),
        greylisted(300),
        spf_failed("example.net", "192.0.2.1"),
        dmarc_rejected("example.net"),
        authentication_temporary("example.net"),
        virus("Eicar-Test-Signature"),
        unscannable("Heuristics.Encrypted.Zip"),
        spam(12.34, 10.0),
        scanner_unavailable("virus scanner"),
        hold_full(),
        malformed_header(),
        envelope_too_large(),
        queue_unavailable(),
        queue_full(),
        no_room(52_428_800),
        authentication_failed(),
        authentication_unavailable(),
        logins_throttled(5),
        account_throttled(5),
        too_many_logins(),
        submissions_busy(),
        inside_unavailable(),
        inside_broke_off(),
        inside_gone(),
        tls_unavailable(),
        connection_lost(),
        next_hop_protocol("it said hello"),
        next_hop_login("it refuses our login"),
        next_hop_without_tls(),
        require_tls_in_clear(),
        next_hop_without_require_tls(),
        next_hop_without_utf8(),
        next_hop_without_eight_bit(),
        next_hop_size(1000),
        next_hop_recipients(),
        unsendable("the message holds a NUL octet"),
    ];
    let mut all = session;
    all.extend(commands.iter().map(command_error));
    all.extend(contents.into_iter().map(content_error));
    all.extend(policy);
    all
}

#[test]
fn texts_are_as_reviewed() {
    let shown: Vec<String> = all().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn codes_agree_and_lines_are_short() {
    for reply in all() {
        match reply.enhanced {
            Some(enhanced) => assert_eq!(u16::from(enhanced.class), reply.code.value() / 100, "{reply}"),
            None => assert!([220, 250, 334, 354].contains(&reply.code.value()), "{reply}"),
        }
        let text = reply.text();
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{reply}");
        assert!(!text.ends_with('.'), "{reply}");
        assert_eq!(
            reply.to_bytes().split_inclusive(|b| *b == b'\n').count(),
            reply.lines.len(),
            "{reply}"
        );
    }
}

/// The list above is whole: a reply that is added to the sources must be added to it.
#[test]
fn every_reply_is_in_the_snapshot() {
    let sources = [include_str!("../replies.rs"), include_str!("policy.rs")].concat();
    let here = include_str!("tests.rs");
    for name in sources
        .split("pub fn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
    {
        assert!(
            here.contains(&format!("{name}(")) || here.contains(&format!("map({name})")),
            "{name}"
        );
    }
}
