//! `postern selftest` must be able to fail: here it meets a server that gives way to everything. That it finds nothing
//! at a real node is shown in the relay's protocol tests.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

/// Reads any line end, forgets NULs, says yes to all: every fault that the self-test looks for but those of TLS.
fn give_way(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 lax.example\r\n")?;
    let (mut line, mut after_cr, mut in_data) = (Vec::new(), false, false);
    let mut octet = [0];
    while stream.read(&mut octet)? == 1 {
        let end_of_pair = after_cr && octet == *b"\n";
        after_cr = octet == *b"\r";
        match octet[0] {
            0 => continue,
            b'\n' if end_of_pair => continue,
            b'\r' | b'\n' => {}
            other => {
                line.push(other);
                continue;
            }
        }
        let said = String::from_utf8_lossy(&std::mem::take(&mut line)).to_ascii_uppercase();
        let reply: &[u8] = if in_data {
            if said != "." {
                continue;
            }
            in_data = false;
            b"250 taken\r\n"
        } else if said.starts_with("EHLO") {
            b"250-lax.example\r\n250 AUTH PLAIN\r\n"
        } else if said == "DATA" {
            in_data = true;
            b"354 go on\r\n"
        } else if said == "QUIT" {
            return stream.write_all(b"221 bye\r\n");
        } else {
            b"250 yes\r\n"
        };
        stream.write_all(reply)?;
    }
    Ok(())
}

fn selftest(node: &str, more: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["selftest", "--node", node, "--sender", "a@sender.example"])
        .args(["--recipient", "someone@example.org", "--timeout", "20"])
        .args(more)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_server_that_gives_way_fails_every_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that has seen enough resets the connection.
            std::thread::spawn(|| stream.and_then(give_way));
        }
    });
    let (success, out, err) = selftest(&node, &["--json"]);
    assert!(!success, "{out}");
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let named = |outcome: &str| -> Vec<&str> {
        lines
            .iter()
            .filter(|line| line["outcome"] == outcome)
            .map(|line| line["probe"].as_str().unwrap())
            .collect()
    };
    assert_eq!(named("held"), ["control"]);
    assert_eq!(named("not-reached"), ["session/starttls-injection"]);
    assert!(named("broken").len() >= 40, "{out}");
    assert!(err.contains("attempts were not refused"), "{err}");
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (success, out, err) = selftest(&free.to_string(), &[]);
    assert!(!success && out.is_empty(), "{out}");
    assert!(
        err.contains(&free.to_string()) && err.contains("may this machine reach it"),
        "{err}"
    );
}
