use super::*;

const LIMITS: ContentLimits = ContentLimits {
    size: 100,
    header_size: 60,
    line: 20,
    hops: 2,
};

fn inspect(limits: ContentLimits, content: &[u8]) -> Result<Summary, ContentError> {
    let mut inspector = Inspector::new(limits);
    inspector.inspect(content)?;
    inspector.finish()
}

#[test]
fn what_is_seen_is_told() {
    let content = b"Received: a\r\nReceived : b\r\n\treceived: c\r\nX: y\r\n\r\nReceived: \xc3\xa9\r\n";
    let summary = inspect(LIMITS, content).unwrap();
    assert_eq!(summary.size, content.len() as u64);
    assert_eq!(summary.header_size, 49);
    assert_eq!(summary.hops, 2);
    assert!(summary.eight_bit);
    let plain = inspect(LIMITS, b"Received-SPF: pass\r\n\r\n").unwrap();
    assert_eq!((plain.hops, plain.eight_bit), (0, false));
}

#[test]
fn each_bound_holds_at_its_edge() {
    let line = |n: usize| [vec![b'x'; n], b"\r\n".to_vec()].concat();
    let body = |n: usize| [b"\r\n".to_vec(), line(20).repeat(4), line(n)].concat();
    let header = |n: usize| [line(20).repeat(2), line(n), b"\r\n".to_vec()].concat();
    assert!(inspect(LIMITS, &line(20)).is_ok());
    assert_eq!(inspect(LIMITS, &line(21)), Err(ContentError::LineTooLong(20)));
    assert_eq!(inspect(LIMITS, &body(8)).map(|s| s.size), Ok(100));
    assert_eq!(inspect(LIMITS, &body(9)), Err(ContentError::TooLarge(100)));
    assert_eq!(inspect(LIMITS, &header(12)).map(|s| s.header_size), Ok(60));
    assert_eq!(
        inspect(LIMITS, &header(13)),
        Err(ContentError::HeaderTooLarge(60))
    );
    let hops = b"Received: x\r\n".repeat(3);
    assert_eq!(inspect(LIMITS, &hops[..26]).map(|s| s.hops), Ok(2));
    assert_eq!(inspect(LIMITS, &hops), Err(ContentError::TooManyHops(2)));
}

#[test]
fn line_ends_are_strict() {
    for (content, error) in [
        (&b"a\rb\r\n"[..], ContentError::BareCr),
        (b"a\r\r\n", ContentError::BareCr),
        (b"a\r", ContentError::BareCr),
        (b"a\r\0\r\n", ContentError::Nul),
        (b"a\nb\r\n", ContentError::BareLf),
        (b"\n", ContentError::BareLf),
        (b"a\0b\r\n", ContentError::Nul),
    ] {
        assert_eq!(inspect(LIMITS, content), Err(error), "{}", content.escape_ascii());
    }
}
