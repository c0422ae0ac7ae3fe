use proptest::prelude::*;

use super::*;

fn parse(mut wire: &[u8]) -> Result<Option<Reply>, ReplyError> {
    Parser::default().input(&mut wire)
}

#[test]
fn a_reply_of_several_lines_repeats_both_codes() {
    let mut reply = Reply::new(550, (5, 1, 1), "one");
    reply.lines.push("two".into());
    assert_eq!(reply.to_bytes(), b"550-5.1.1 one\r\n550 5.1.1 two\r\n");
    assert_eq!(reply.to_string(), "550 5.1.1 one two");
}

#[test]
fn text_cannot_break_the_line() {
    let reply = Reply::new(550, (5, 0, 0), "a\r\n250 OK\0é");
    assert_eq!(reply.to_bytes(), b"550 5.0.0 a??250 OK??\r\n");
}

#[test]
fn long_text_is_broken_within_512_octets() {
    let words = Reply::new(550, (5, 999, 999), "word ".repeat(300)).to_bytes();
    let solid = Reply::new(550, (5, 999, 999), "w".repeat(1500)).to_bytes();
    for wire in [words, solid] {
        let lines: Vec<&[u8]> = wire.split_inclusive(|b| *b == b'\n').collect();
        assert!(lines.len() >= 3);
        assert!(lines.iter().all(|line| line.len() <= 512));
    }
}

#[test]
fn a_code_that_is_none_defers() {
    assert_eq!(Reply::plain(99, "x").code.value(), 451);
    assert_eq!(Reply::plain(600, "x").code.value(), 451);
}

#[test]
fn replies_of_real_servers_are_read() {
    let reply = parse(b"250-mx.example\r\n250-SIZE 1000\r\n250 DSN\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(reply.lines, ["mx.example", "SIZE 1000", "DSN"]);
    let bare = parse(b"250\r\n").unwrap().unwrap();
    assert_eq!((bare.code.value(), bare.text().as_str()), (250, ""));
    let refused = parse(b"571 5.7.1 no\r\n").unwrap().unwrap();
    assert_eq!(refused.enhanced, EnhancedCode::parse("5.7.1"));
    assert!(refused.is_permanent());
    let other_class = parse(b"250 5.7.1 odd\r\n").unwrap().unwrap();
    assert_eq!(
        (other_class.enhanced, other_class.text().as_str()),
        (None, "5.7.1 odd")
    );
}

#[test]
fn broken_replies_are_refused() {
    for (wire, error) in [
        (&b"hello\r\n"[..], ReplyError::Syntax),
        (b"99 x\r\n", ReplyError::Syntax),
        (b"150 x\r\n", ReplyError::Syntax),
        (b"250x\r\n", ReplyError::Syntax),
        (b"\r\n", ReplyError::Syntax),
        (b"250-a\r\n354 b\r\n", ReplyError::CodeChanged),
        (b"250 a\n", ReplyError::LineEnd),
        (b"250 a\rb\r\n", ReplyError::LineEnd),
        (b"250 a\r\r\n", ReplyError::LineEnd),
        (b"250 \0\r\n", ReplyError::LineEnd),
    ] {
        assert_eq!(parse(wire), Err(error), "{}", wire.escape_ascii());
    }
    assert_eq!(parse(&[b'2'; 4096]), Err(ReplyError::LineTooLong));
    assert_eq!(parse(&b"250-a\r\n".repeat(200)), Err(ReplyError::TooManyLines));
}

#[test]
fn enhanced_codes_keep_to_their_grammar() {
    assert_eq!(EnhancedCode::parse("4.999.0"), Some((4, 999, 0).into()));
    for bad in [
        "", "3.1.1", "5.1", "5.1.1.1", "5.+1.1", "5.1000.1", "5..1", "5.1.x",
    ] {
        assert_eq!(EnhancedCode::parse(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_split(
        code in 200u16..600,
        lines in proptest::collection::vec("[!-~]([ -~]{0,40}[!-~])?", 1..5),
        split in 1usize..9,
    ) {
        let class = u8::try_from(code / 100).unwrap();
        prop_assume!(class != 3);
        let reply = Reply { code: Code::new(code).unwrap(), enhanced: Some((class, 1, 2).into()), lines };
        let wire = reply.to_bytes();
        let mut parser = Parser::default();
        let mut read = Vec::new();
        for mut piece in wire.chunks(split) {
            while let Some(got) = parser.input(&mut piece).unwrap() {
                read.push(got);
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(read, vec![reply]);
        prop_assert!(!parser.is_partial());
    }

    #[test]
    fn the_parser_takes_any_octets(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut input = wire.as_slice();
        let mut parser = Parser::default();
        while let Ok(Some(reply)) = parser.input(&mut input) {
            prop_assert!((200..600).contains(&reply.code.value()));
        }
    }
}
