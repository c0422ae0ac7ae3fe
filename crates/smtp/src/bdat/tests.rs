use proptest::prelude::*;

use super::*;

/// Sends a message in chunks, each read in pieces; gives its end and its content.
fn receive(chunks: &[&[u8]], split: usize) -> (Event<'static>, Vec<u8>) {
    let mut receiver = Receiver::new(ContentLimits::UNBOUNDED);
    let mut content = Vec::new();
    let mut last_event = Event::NeedInput;
    for (at, chunk) in chunks.iter().enumerate() {
        receiver.chunk(chunk.len() as u64, at + 1 == chunks.len());
        let mut pieces = chunk.chunks(split);
        let mut input: &[u8] = b"";
        last_event = loop {
            match receiver.input(&mut input) {
                Event::NeedInput => input = pieces.next().expect("the chunk has been given whole"),
                Event::Chunk(octets) => content.extend_from_slice(octets),
                Event::ChunkDone(size) => break Event::ChunkDone(size),
                Event::Complete(summary) => break Event::Complete(summary),
                Event::Refused(error) => break Event::Refused(error),
            }
        };
    }
    (last_event, content)
}

#[test]
fn chunks_make_a_message() {
    let (event, content) = receive(&[b"Subject: x\r", b"\n\r\n.\r\nbo", b"dy\r\n"], 3);
    assert_eq!(content, b"Subject: x\r\n\r\n.\r\nbody\r\n");
    assert!(matches!(event, Event::Complete(summary) if summary.size == 23));
}

#[test]
fn an_empty_last_chunk_ends_the_message() {
    let (event, content) = receive(&[b"a\r\n", b""], 9);
    assert_eq!(content, b"a\r\n");
    assert!(matches!(event, Event::Complete(_)));
}

#[test]
fn a_last_line_without_crlf_gets_one() {
    let (event, content) = receive(&[b"body"], 9);
    assert_eq!(content, b"body\r\n");
    assert!(matches!(event, Event::Complete(summary) if summary.size == 6));
}

#[test]
fn the_octets_after_a_chunk_are_left() {
    let mut receiver = Receiver::new(ContentLimits::UNBOUNDED);
    receiver.chunk(3, false);
    let mut input: &[u8] = b"a\r\nQUIT\r\n";
    assert_eq!(receiver.input(&mut input), Event::Chunk(b"a\r\n"));
    assert_eq!(receiver.input(&mut input), Event::ChunkDone(3));
    assert_eq!(input, b"QUIT\r\n");
}

#[test]
fn a_refused_chunk_is_taken_whole() {
    let mut receiver = Receiver::new(ContentLimits::UNBOUNDED);
    receiver.chunk(12, false);
    let mut input: &[u8] = b"a\nQUIT\r\nb\r\n.NOOP\r\n";
    assert_eq!(receiver.input(&mut input), Event::Refused(ContentError::BareLf));
    assert_eq!(input, b"NOOP\r\n");
}

#[test]
fn a_cr_at_the_very_end_is_bare() {
    assert_eq!(receive(&[b"a\r"], 9).0, Event::Refused(ContentError::BareCr));
}

proptest! {
    #[test]
    fn chunks_and_splits_change_nothing(
        lines in proptest::collection::vec("[.]{0,2}[ -~]{0,9}", 1..8),
        cut in 1usize..20,
        split in 1usize..9,
    ) {
        let message = lines.join("\r\n").into_bytes();
        let chunks: Vec<&[u8]> = if message.is_empty() { vec![b""] } else { message.chunks(cut).collect() };
        prop_assert_eq!(receive(&chunks, split), receive(&[&message], 1000));
    }
}
