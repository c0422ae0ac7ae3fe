//! A spool segment that holds anything: reading it never fails and never hangs; what cannot be read is reported.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use postern_relay::spool::disk::Directory;
use postern_relay::spool::recovery::recover;
use postern_relay::spool::writer::segment_name;

fuzz_target!(|octets: &[u8]| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    fs::write(directory.path().join(segment_name(1, 7)), octets).expect("it can be written");
    let mut disk = Directory::open(directory.path()).expect("it can be opened");
    let recovered =
        recover(directory.path(), &mut disk).expect("a damaged segment is no reason not to start");
    assert_eq!(recovered.segments.len(), 1);
    if !octets.is_empty() && recovered.messages.is_empty() {
        assert!(!recovered.damage.is_empty() || octets.len() < 64 || octets.iter().all(|octet| *octet == 0));
    }
});
