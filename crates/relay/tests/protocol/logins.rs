//! Dovecot's side of its authentication protocol, as far as smtpd sees it. The real Dovecot is asked in the components and
//! machine tiers; here the answers can be chosen: `down@example.org` is a failure of the moment.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PASSWORD: &str = "correct horse";

/// Answers at `path` until the test ends.
pub(crate) fn serve(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is the daemon's affair.
            std::thread::spawn(move || drop(converse(stream)));
        }
    });
}

fn converse(mut stream: UnixStream) -> std::io::Result<()> {
    stream.write_all(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")?;
    let lines = BufReader::new(stream.try_clone()?).lines();
    for line in lines {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[0] != "AUTH" {
            continue;
        }
        let whole = fields.contains(&"service=smtp") && fields.contains(&"secured") && fields[2] == "PLAIN";
        let response = fields
            .iter()
            .find_map(|field| field.strip_prefix("resp="))
            .unwrap_or_default();
        let decoded = STANDARD.decode(response).unwrap_or_default();
        let mut parts = decoded.split(|octet| *octet == 0).map(String::from_utf8_lossy);
        let (_, user, password) = (
            parts.next(),
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let answer = if user.starts_with("down@") {
            format!("FAIL\t{}\tuser={user}\ttemp\n", fields[1])
        } else if whole && password == PASSWORD {
            format!("OK\t{}\tuser={}\n", fields[1], user.to_lowercase())
        } else {
            format!("FAIL\t{}\tuser={user}\n", fields[1])
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}
