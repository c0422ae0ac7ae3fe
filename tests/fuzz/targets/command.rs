//! One command line: it is read or refused, never anything else; what an address reads as, it reads as again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_smtp::command::{self, Command};

fuzz_target!(|line: &[u8]| {
    if let Ok(Command::Mail(path, _)) = command::parse(line) {
        let again = format!("MAIL FROM:<{path}>");
        match command::parse(again.as_bytes()) {
            Ok(Command::Mail(same, _)) => assert_eq!(same, path),
            other => panic!("{again}: {other:?}"),
        }
    }
});
