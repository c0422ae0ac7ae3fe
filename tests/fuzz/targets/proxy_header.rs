//! The PROXY protocol's header, from anything: it asks for more than it has and never for too much, and what it takes is the same
//! whatever follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_relay::proxy_header::{Progress, parse};

fuzz_target!(|octets: &[u8]| {
    let mut have = 0;
    while let Ok(Progress::Needs(more)) = parse(&octets[..have]) {
        assert!(more > have && more <= 2048);
        if more > octets.len() {
            return;
        }
        have = more;
    }
    let first = parse(&octets[..have]);
    if let Ok(Progress::Whole(header)) = first {
        assert_eq!(header.length, have, "no octet of what follows was read");
    }
    assert_eq!(parse(octets), first);
});
