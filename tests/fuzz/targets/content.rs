//! Content after DATA: however it is cut into pieces, it ends at the same place and says the same; what is taken could
//! not be read as anything else by the next server; what is written out reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_smtp::data::{self, ContentError, ContentLimits, Event, Receiver, Stuffer, Summary};

type End = Option<Result<Summary, ContentError>>;

/// The content, how it ended, and how many octets came after its end.
fn receive(octets: &[u8], piece: usize) -> (Vec<u8>, End, usize) {
    let mut receiver = Receiver::new(ContentLimits::UNBOUNDED, u64::MAX);
    let mut content = Vec::new();
    let mut given = 0;
    for part in octets.chunks(piece.max(1)) {
        let mut input = part;
        given += part.len();
        loop {
            let end = match receiver.input(&mut input) {
                Event::NeedInput => break,
                Event::Chunk(chunk) => {
                    content.extend_from_slice(chunk);
                    continue;
                }
                Event::Complete(summary) => Ok(summary),
                Event::Refused(error) | Event::Overrun(error) => Err(error),
            };
            return (content, Some(end), octets.len() - given + input.len());
        }
    }
    (content, None, 0)
}

fuzz_target!(|octets: &[u8]| {
    let Some((&first, octets)) = octets.split_first() else {
        return;
    };
    let whole = receive(octets, octets.len());
    let pieces = receive(octets, usize::from(first % 7) + 1);
    assert_eq!((&whole.1, whole.2), (&pieces.1, pieces.2));
    let Some(Ok(summary)) = &whole.1 else {
        return;
    };
    assert_eq!(whole.0, pieces.0);
    assert!(octets[..octets.len() - whole.2].ends_with(b".\r\n"));
    assert_eq!(data::check(&whole.0).as_ref(), Ok(summary));

    let mut wire = Vec::new();
    let mut stuffer = Stuffer::default();
    stuffer.push(&whole.0, &mut wire).expect("it was checked");
    stuffer.finish(&mut wire).expect("it was checked");
    let again = receive(&wire, wire.len());
    assert_eq!((again.0, again.1, again.2), (whole.0, whole.1, 0));
});
