//! A stub of both scanners, not the real ones: it says what the message tells it to say, and where the message says so, not
//! before it is asked a second time, or not before it is asked as the other scanner, too. `tests/components.rs` has the real ones.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Longer than any deadline of the tests.
const SLOW: Duration = Duration::from_secs(20);

/// What the two scanners have been asked already: names of messages, followed by the scanner.
#[derive(Default)]
struct Asked {
    of: Mutex<HashSet<String>>,
    more: Condvar,
}

impl Asked {
    /// Whether this is the first time.
    fn first(&self, name: String) -> bool {
        let first = self.of.lock().expect("no thread panicked").insert(name);
        self.more.notify_all();
        first
    }

    /// Waits for the question, in vain after [`SLOW`].
    fn wait_for(&self, name: &str) -> bool {
        let of = self.of.lock().expect("no thread panicked");
        let waited = self.more.wait_timeout_while(of, SLOW, |of| !of.contains(name));
        !waited.expect("no thread panicked").1.timed_out()
    }
}

/// Serves at `path`: SPAMC/1.5 and clamd's INSTREAM.
pub(crate) fn serve(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    let asked = Arc::new(Asked::default());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = Arc::clone(&asked);
            // A client whose time is over has gone.
            std::thread::spawn(move || drop(answer(stream, &asked)));
        }
    });
}

fn answer(mut stream: UnixStream, earlier: &Asked) -> std::io::Result<()> {
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
        && earlier.first(name + who)
    {
        std::thread::sleep(SLOW);
        return Ok(());
    }
    if let Some(name) = of("together ") {
        earlier.first(format!("{name} {who}"));
        if !earlier.wait_for(&format!("{name} {}", if spam { "virus" } else { "spam" })) {
            return Ok(());
        }
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
