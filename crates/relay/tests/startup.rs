//! What a wrong start gets: a message that says what, where and how to mend it, and an exit status that is not zero.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn relay(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern-relay"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("the program can be started")
}

/// The evaluation file with replacements, in a directory of its own.
fn configured(edits: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::with_prefix("postern-").expect("a directory");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = std::fs::read_to_string(top.join("docs/evaluate.toml")).expect("docs/evaluate.toml");
    let any_port = [
        ("127.0.0.1:2525", "127.0.0.1:0"),
        ("127.0.0.1:2526", "127.0.0.1:0"),
    ];
    for (from, to) in edits.iter().chain(
        any_port
            .iter()
            .filter(|(from, _)| !edits.iter().any(|edit| edit.0 == *from)),
    ) {
        assert!(text.contains(from), "the evaluation file has no {from:?}");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(directory.path().join("relay.toml"), text).expect("it can be written");
    directory
}

fn fails_saying(output: &Output, words: &[&str]) {
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "it ended well: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

const RUN: &[&str] = &["run", "--config", "relay.toml"];

#[test]
fn an_occupied_port() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let directory = configured(&[("127.0.0.1:2525", &address)]);
    fails_saying(
        &relay(RUN, directory.path()),
        &[
            "[instance.public]",
            &address,
            "in use",
            "another program holds the port",
        ],
    );
}

#[test]
fn an_unreadable_key_ends_everything() {
    let once = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = once.local_addr().expect("an address").to_string();
    drop(once);
    let directory = configured(&[
        ("127.0.0.1:2525", &address),
        (
            "tls = \"off\"",
            "tls = \"required\"\ncertificate = \"no.crt\"\nkey = \"no.key\"",
        ),
    ]);
    fails_saying(
        &relay(RUN, directory.path()),
        &["no.crt", "No such file", "PEM", "smtpd/public ended"],
    );
    assert!(TcpListener::bind(&address).is_ok(), "nothing is left listening");
}

#[test]
fn a_key_that_is_none() {
    let directory = configured(&[(
        "tls = \"off\"",
        "listen-submission = []\ntls = \"required\"\ncertificate = \"relay.toml\"\nkey = \"relay.toml\"",
    )]);
    let arguments = ["smtpd", "--instance", "public", "--config", "relay.toml"];
    fails_saying(
        &relay(&arguments, directory.path()),
        &["no socket was passed", "socket units", "`run`"],
    );
    let output = relay(RUN, directory.path());
    fails_saying(&output, &["relay.toml", "holds nothing of this kind"]);
}

#[test]
fn no_such_instance_and_no_such_file() {
    let directory = configured(&[]);
    let arguments = ["smtpd", "--instance", "dmz", "--config", "relay.toml"];
    fails_saying(
        &relay(&arguments, directory.path()),
        &["no [instance.dmz]", "inside, public"],
    );
    let arguments = ["check-config", "--config", "elsewhere.toml"];
    fails_saying(
        &relay(&arguments, directory.path()),
        &["elsewhere.toml", "cannot be read", "remedy"],
    );
    let arguments = ["proxy", "--config", "relay.toml"];
    fails_saying(&relay(&arguments, directory.path()), &["no [proxy] table"]);
}

#[test]
fn a_directory_that_cannot_be_made() {
    let directory = configured(&[(
        "runtime-directory = \"run\"",
        "runtime-directory = \"relay.toml/run\"",
    )]);
    fails_saying(
        &relay(RUN, directory.path()),
        &["relay.toml/run", "cannot be made", "runtime-directory"],
    );
}

#[test]
fn a_right_file_is_said_to_be_right() {
    let directory = configured(&[]);
    let output = relay(&["check-config", "--config", "relay.toml"], directory.path());
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("in order"));
}
