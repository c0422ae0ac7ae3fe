//! A stub of both scanners, not the real ones: it says what the message tells it to say, and where the message says so, not
//! before it is asked a second time. `tests/components.rs` has the real ones.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than any deadline of the tests.
const SLOW: Duration = Duration::from_secs(20);

/// Serves at `path`: SPAMC/1.5 and clamd's INSTREAM.
pub(crate) fn serve(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    let slow = Arc::new(Mutex::new(HashSet::new()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let slow = Arc::clone(&slow);
            // A client whose time is over has gone.
            std::thread::spawn(move || drop(answer(stream, &slow)));
        }
    });
}

fn answer(mut stream: UnixStream, slow: &Mutex<HashSet<String>>) -> std::io::Result<()> {
    let (mut asked, mut piece) = (Vec::new(), vec![0; 65_536]);
    let spam = loop {
        let length = stream.read(&mut piece)?;
        asked.extend_from_slice(&piece[..length]);
        let spam = asked.starts_with(b"SYMBOLS");
        // INSTREAM ends with a chunk of no octets, SPAMC with the stream.
        if length == 0 || !spam && asked.ends_with(&[0; 4]) {
            break spam;
        }
    };
    let text = String::from_utf8_lossy(&asked);
    let of = |word: &str| {
        let rest = text.split_once(word)?.1;
        rest.split_ascii_whitespace().next().map(str::to_owned)
    };
    let who = if spam { "spam" } else { "virus" };
    if let Some(name) = of(&format!("slow-{who} "))
        && slow.lock().expect("no thread panicked").insert(name + who)
    {
        std::thread::sleep(SLOW);
        return Ok(());
    }
    let found = if spam {
        let score = of("score ").unwrap_or("0.0".into());
        format!("SPAMD/1.1 0 EX_OK\r\nSpam: False ; {score} / 5.0\r\n\r\nSTUB\r\n")
    } else if let Some(name) = of("virus-found ") {
        format!("stream: {name} FOUND\0")
    } else {
        "stream: OK\0".into()
    };
    stream.write_all(found.as_bytes())
}
