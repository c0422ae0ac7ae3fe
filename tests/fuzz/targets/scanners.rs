//! Answers of scanners that say anything: only the one word means clean, and a score is a number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_relay::checks::clamd::{self, Scanned};
use postern_relay::checks::spamd;

fuzz_target!(|answer: &[u8]| {
    if let Ok(Scanned::Clean) = clamd::parse(answer) {
        let text = answer.strip_suffix(b"\0").unwrap_or(answer);
        assert!(text.starts_with(b"stream: OK"));
    }
    if let Ok(scored) = spamd::parse(answer) {
        assert!(scored.score.is_finite());
    }
});
