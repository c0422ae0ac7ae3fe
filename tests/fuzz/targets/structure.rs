//! Messages of any structure: the walk ends, keeps to its bounds, says the same twice, and answers in one small packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_relay::scan::config::Content;
use postern_relay::scan::{Seen, examine};

fuzz_target!(|message: &[u8]| {
    let bounds = Content {
        max_depth: 5,
        max_parts: 20,
        max_header_fields: 50,
        max_header_size: 4096,
        max_unpacked_size: 1 << 20,
        max_entries: 20,
        max_nesting: 2,
        ..Content::default()
    };
    let report = examine(&bounds, message);
    assert_eq!(report, examine(&bounds, message));
    assert!(serde_json::to_vec(&report).is_ok_and(|packet| packet.len() < 64 * 1024));
    // Whoever passed no bound kept to all of them.
    if !report.seen.iter().any(|seen| matches!(seen, Seen::Beyond { .. })) {
        assert!(report.parts <= bounds.max_parts);
        assert!(report.header_fields <= bounds.max_header_fields);
        assert!(report.header_size <= bounds.max_header_size);
        assert!(report.entries <= bounds.max_entries);
        assert!(report.unpacked <= bounds.max_unpacked_size);
    }
});
