//! From a site file to a node that has taken it in, by the commands an operator gives: `pki init`, `user hash`,
//! `node credentials`, then on the node `node import` and `node render`; and what each does with bad input.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../docs/site.example.toml");

/// One operator's desk and one node's file system.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(bench.path("site.toml"), EXAMPLE).unwrap();
        bench.ok(&["pki", "init", "--site", "site.toml", "--out", "pki"]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// The error text of a command that must fail.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        assert!(
            output.stdout.is_empty(),
            "{arguments:?} printed a result: {}",
            text(&output)
        );
        String::from_utf8(output.stderr).unwrap()
    }

    /// Makes a node's credentials and puts them where systemd would.
    fn hand_over(&self, node: &str, more: &[&str]) {
        let mut arguments = vec![
            "node",
            "credentials",
            "--site",
            "site.toml",
            "--node",
            node,
            "--pki",
            "pki",
        ];
        arguments.extend(["--out", "smbios.txt"]);
        arguments.extend(more);
        self.ok(&arguments);
        assert_eq!(mode(&self.path("smbios.txt")), 0o600);
        let directory = self.path("credentials");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        for line in fs::read_to_string(self.path("smbios.txt")).unwrap().lines() {
            let line = line
                .strip_prefix("io.systemd.credential.binary:")
                .expect("an SMBIOS credential");
            let (name, value) = line.split_once('=').unwrap();
            let value = base64::engine::general_purpose::STANDARD.decode(value).unwrap();
            fs::write(directory.join(name), value).unwrap();
        }
    }

    fn import(&self) -> String {
        self.ok(&["node", "import", "--root", "root", "--credentials", "credentials"])
    }

    fn import_fails(&self) -> String {
        self.fails(&["node", "import", "--root", "root", "--credentials", "credentials"])
    }

    /// Every file of the node: path, permission bits, contents.
    fn node_files(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.path("root")];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(self.path("root")).unwrap().to_owned();
                    files.insert(name, (mode(&path), fs::read(&path).unwrap()));
                }
            }
        }
        files
    }

    fn edit_site(&self, from: &str, to: &str) {
        let before = fs::read_to_string(self.path("site.toml")).unwrap();
        assert!(before.contains(from));
        fs::write(self.path("site.toml"), before.replace(from, to)).unwrap();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(files: &BTreeMap<PathBuf, (u32, Vec<u8>)>) -> Vec<String> {
    files.keys().map(|path| path.display().to_string()).collect()
}

#[test]
fn a_gateway_takes_in_its_site_and_renders() {
    let bench = Bench::new();
    bench.hand_over("gateway", &[]);
    let said = bench.import();
    assert!(
        said.contains("site example imported; this node is gateway (gateway)"),
        "{said}"
    );
    assert!(said.contains("WARNING: no postern.smtp-cert"), "{said}");
    let files = bench.node_files();
    assert_eq!(
        names(&files),
        [
            "var/lib/postern/credentials/ca.crt",
            "var/lib/postern/credentials/dmz-state.password",
            "var/lib/postern/credentials/node.crt",
            "var/lib/postern/credentials/node.key",
            "var/lib/postern/credentials/smarthost.login",
            "var/lib/postern/credentials/smtp.crt",
            "var/lib/postern/credentials/smtp.key",
            "var/lib/postern/credentials/smtp.self-signed",
            "var/lib/postern/site/node",
            "var/lib/postern/site/site.toml",
        ]
    );
    for key in ["node.key", "smtp.key", "dmz-state.password"] {
        assert_eq!(
            files[Path::new("var/lib/postern/credentials").join(key).as_path()].0,
            0o600,
            "{key}"
        );
    }
    for (directory, bits) in [
        ("credentials", 0o700),
        ("spool", 0o700),
        ("dkim", 0o700),
        ("site", 0o755),
    ] {
        assert_eq!(
            mode(&bench.path("root/var/lib/postern").join(directory)),
            bits,
            "{directory}"
        );
    }

    bench.ok(&["node", "render", "--root", "root"]);
    let files = bench.node_files();
    for link in [
        "10-dmz.link",
        "10-dmz.network",
        "10-outside.link",
        "10-outside.network",
    ] {
        let read_by_networkd = &files[Path::new("run/systemd/network").join(link).as_path()];
        assert_eq!(
            read_by_networkd,
            &files[Path::new("run/postern/network").join(link).as_path()]
        );
    }
    bench.ok(&[
        "site",
        "render",
        "site.toml",
        "--node",
        "gateway",
        "--out",
        "rendered",
    ]);
    for name in [
        "relay.toml",
        "site.nft",
        "unbound.conf",
        "suricata-site.yaml",
        "resolv.conf",
    ] {
        let on_desk = fs::read(bench.path("rendered").join(name)).unwrap();
        assert_eq!(
            files[Path::new("run/postern").join(name).as_path()],
            (0o644, on_desk),
            "{name}"
        );
    }
}

/// An app password of the users credential reaches the database with its user, is named, and goes with the next credential.
#[test]
fn app_passwords_come_with_the_users_credential_and_go_with_it() {
    let bench = Bench::new();
    let hashed = |words: &[&str]| {
        let mut child = bench
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"hers\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let user = hashed(&["user", "hash", "alice@example.org"]);
    let app = hashed(&["user", "app-password", "hash", "alice@example.org", "her phone"]);
    let db = "root/var/lib/postern/users.db";
    let names = || bench.ok(&["user", "app-password", "list", "--db", db, "alice@example.org"]);
    for (users, expected) in [
        (format!("{user}{app}"), "her phone\n"),
        (user.clone(), "laptop\n"),
    ] {
        fs::write(bench.path("users"), users).unwrap();
        bench.hand_over("internal", &["--users", "users"]);
        bench.ok(&["node", "import", "--root", "root", "--credentials", "credentials"]);
        assert_eq!(names(), expected);
        if expected.starts_with("her") {
            let add = [
                "user",
                "app-password",
                "add",
                "--db",
                db,
                "alice@example.org",
                "laptop",
            ];
            assert_eq!(bench.ok(&add).lines().next().unwrap().len(), 32);
            assert!(bench.fails(&add).contains("choose another name"));
        }
    }
    let mut words = [
        "user",
        "app-password",
        "remove",
        "--db",
        db,
        "alice@example.org",
        "laptop",
    ];
    bench.ok(&words);
    assert_eq!(names(), "");
    assert!(bench.fails(&words).contains("has no app password named laptop"));
    words[2] = "add";
    words[5] = "nobody@example.org";
    assert!(
        bench
            .fails(&words)
            .contains("there is no user nobody@example.org")
    );
}

#[test]
fn a_site_with_a_smarthost_needs_the_login_there() {
    let bench = Bench::new();
    bench.edit_site(
        "[policy]",
        "[smarthost]\nhost = \"smtp.provider.example\"\n\n[policy]",
    );
    bench.hand_over("gateway", &[]);
    let said = bench.import_fails();
    assert!(
        said.contains("postern.smarthost-login does not hold the login"),
        "{said}"
    );
    assert!(!bench.path("root/var/lib/postern/site").exists());
    fs::write(bench.path("login"), "app@example.org\ns3cret\n").unwrap();
    bench.hand_over("gateway", &["--extra", "postern.smarthost-login=login"]);
    bench.import();
    let kept = bench.path("root/var/lib/postern/credentials/smarthost.login");
    assert_eq!(mode(&kept), 0o600);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "app@example.org\ns3cret\n");
    // It stays where nothing new is handed over, and no inner node gets it.
    bench.hand_over("gateway", &[]);
    bench.import();
    assert_eq!(fs::read_to_string(&kept).unwrap(), "app@example.org\ns3cret\n");
    bench.hand_over("internal", &["--extra", "postern.smarthost-login=login"]);
    assert!(
        bench
            .import_fails()
            .contains("only the gateway talks to the smarthost")
    );
}

#[test]
fn the_internal_node_gets_its_users() {
    let bench = Bench::new();
    let mut child = bench
        .command(&["user", "hash", "Alice@example.org"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let line = child.wait_with_output().unwrap().stdout;
    assert!(
        line.starts_with(b"alice@example.org:{ARGON2ID}$argon2id$"),
        "{}",
        String::from_utf8_lossy(&line)
    );
    fs::write(bench.path("users"), line).unwrap();

    bench.hand_over("internal", &["--users", "users"]);
    let said = bench.import();
    assert!(
        said.contains("postmaster@example.org receives mail but has no password"),
        "{said}"
    );
    let db = rusqlite::Connection::open(bench.path("root/var/lib/postern/users.db")).unwrap();
    let quota: i64 = db
        .query_row(
            "SELECT quota FROM users WHERE address = 'alice@example.org'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(quota, 1 << 30);
    let target: String = db
        .query_row(
            "SELECT target FROM aliases WHERE address = 'abuse@example.org'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(target, "postmaster@example.org");
    assert_eq!(mode(&bench.path("root/var/lib/postern/users.db")), 0o640);
    bench.ok(&["node", "render", "--root", "root"]);
    assert!(bench.path("root/run/postern/dovecot.conf").exists());
}

#[test]
fn without_new_credentials_the_last_good_site_stands() {
    let bench = Bench::new();
    bench.hand_over("gateway", &[]);
    bench.import();
    let before = bench.node_files();
    let said = bench.ok(&["node", "import", "--root", "root"]);
    assert!(
        said.contains("site example unchanged") && said.contains("WARNING"),
        "{said}"
    );
    assert_eq!(bench.node_files(), before);
    // The same hand-over again changes nothing either, the certificate that the node made included.
    bench.import();
    assert_eq!(bench.node_files(), before);
}

#[test]
fn a_new_site_replaces_the_old_one_which_is_kept() {
    let bench = Bench::new();
    bench.hand_over("gateway", &[]);
    bench.import();
    bench.edit_site("max-recipients = 100", "max-recipients = 7");
    bench.hand_over("gateway", &[]);
    bench.import();
    let (new, old) = (
        "root/var/lib/postern/site/site.toml",
        "root/var/lib/postern/site.previous/site.toml",
    );
    assert!(
        fs::read_to_string(bench.path(new))
            .unwrap()
            .contains("max-recipients = 7")
    );
    assert_eq!(fs::read_to_string(bench.path(old)).unwrap(), EXAMPLE);
    bench.ok(&["node", "render", "--root", "root"]);
    let relay = fs::read_to_string(bench.path("root/run/postern/relay.toml")).unwrap();
    assert!(relay.contains("max-recipients = 7"));
}

#[test]
fn a_bad_hand_over_changes_nothing() {
    let bench = Bench::new();
    bench.hand_over("gateway", &[]);
    bench.import();
    let before = bench.node_files();
    let bad: [(&str, &[u8], &str); 7] = [
        ("site", b"[site]\nname = 7\n", "the last good one stays"),
        ("site", b"\xff\xfe", "not text in UTF-8"),
        ("node", b"elsewhere", "its nodes are: gateway, internal"),
        ("ca", b"nonsense", "-----BEGIN CERTIFICATE-----"),
        ("node-key", b"nonsense", "-----BEGIN PRIVATE KEY-----"),
        ("smtp-cert", b"nonsense", "hand over both"),
        (
            "users",
            b"alice@example.org:{PLAIN}secret:1",
            "users never go into the DMZ",
        ),
    ];
    for (name, contents, expected) in bad {
        bench.hand_over("gateway", &[]);
        fs::write(
            bench.path("credentials").join(format!("postern.{name}")),
            contents,
        )
        .unwrap();
        let said = bench.import_fails();
        assert!(said.contains(expected), "postern.{name}: {said}");
        assert_eq!(bench.node_files(), before, "postern.{name} changed the node");
    }
    // The other node's certificate, with its key, is not this node's.
    bench.hand_over("gateway", &[]);
    for end in ["crt", "key"] {
        let credential = if end == "crt" { "node-cert" } else { "node-key" };
        fs::copy(
            bench.path(&format!("pki/internal.{end}")),
            bench.path("credentials").join(format!("postern.{credential}")),
        )
        .unwrap();
    }
    let said = bench.import_fails();
    assert!(said.contains("is not for mx1.example.org"), "{said}");
    assert_eq!(bench.node_files(), before);
    // The other node's key does not fit this node's certificate.
    bench.hand_over("gateway", &[]);
    fs::copy(
        bench.path("pki/internal.key"),
        bench.path("credentials/postern.node-key"),
    )
    .unwrap();
    let said = bench.import_fails();
    assert!(said.contains("do not belong together"), "{said}");
    assert_eq!(bench.node_files(), before);
}

#[test]
fn a_hand_over_that_cannot_be_written_changes_nothing() {
    let bench = Bench::new();
    bench.hand_over("gateway", &[]);
    bench.import();
    // New credentials and a new site, and for the site there is no room: a file in the way stands for every reason.
    fs::remove_dir_all(bench.path("pki")).unwrap();
    bench.ok(&["pki", "init", "--site", "site.toml", "--out", "pki"]);
    bench.edit_site("max-recipients = 100", "max-recipients = 7");
    bench.hand_over("gateway", &[]);
    fs::write(bench.path("root/var/lib/postern/site.new"), "in the way").unwrap();
    let state = |bench: &Bench| {
        let mut files = bench.node_files();
        files.retain(|path, _| !path.starts_with("var/lib/postern/credentials.new"));
        files
    };
    let before = state(&bench);
    let said = bench.import_fails();
    assert!(said.contains("site.new"), "{said}");
    assert_eq!(state(&bench), before);
    fs::remove_file(bench.path("root/var/lib/postern/site.new")).unwrap();
    bench.import();
    assert!(!bench.path("root/var/lib/postern/credentials.new").exists());
}

#[test]
fn a_reader_that_leaves_early_is_no_fault() {
    let bench = Bench::new();
    let mut child = bench
        .command(&["site", "matrix", "site.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output), "");
}

#[test]
fn a_node_without_a_site_says_how_to_give_it_one() {
    let bench = Bench::new();
    let said = bench.fails(&["node", "import", "--root", "root"]);
    assert!(
        said.contains("no site yet") && said.contains("postern node credentials"),
        "{said}"
    );
    let said = bench.fails(&["node", "render", "--root", "root"]);
    assert!(said.contains("postern node import"), "{said}");
    assert_eq!(bench.node_files().len(), 0);
    // A credential that is missing is called by its name.
    for name in ["node", "ca", "node-cert", "node-key"] {
        bench.hand_over("gateway", &[]);
        fs::remove_file(bench.path("credentials").join(format!("postern.{name}"))).unwrap();
        let said = bench.import_fails();
        assert!(said.contains(&format!("postern.{name} is missing")), "{said}");
        assert_eq!(bench.node_files().len(), 0);
    }
}

#[test]
fn a_write_that_fails_leaves_all_rendered_files_as_they_were() {
    let bench = Bench::new();
    bench.hand_over("gateway", &[]);
    bench.import();
    bench.ok(&["node", "render", "--root", "root"]);
    bench.edit_site("max-recipients = 100", "max-recipients = 7");
    bench.hand_over("gateway", &[]);
    bench.import();
    let before = bench.node_files();
    // A directory in the way of one staged file stands for every reason why a write can fail.
    fs::create_dir(bench.path("root/run/postern/site.nft.new")).unwrap();
    let said = bench.fails(&["node", "render", "--root", "root"]);
    assert!(
        said.contains("cannot write") && said.contains("site.nft"),
        "{said}"
    );
    assert_eq!(bench.node_files(), before);
}

#[test]
fn signatures_get_the_name_that_clamd_knows_them_by() {
    let bench = Bench::new();
    for (line, file) in [
        ("Postern.Test:0:*:414243444546", "postern.ndb"),
        ("44d88612fea8a8f36de82e1278abb02f:68:Postern.Test", "postern.hdb"),
    ] {
        fs::write(bench.path("signatures"), format!("{line}\n")).unwrap();
        bench.hand_over("gateway", &["--extra", "postern.clamav-db=signatures"]);
        bench.import();
        let found = fs::read_dir(bench.path("root/var/lib/clamav"))
            .unwrap()
            .map(|e| e.unwrap().file_name());
        assert_eq!(found.collect::<Vec<_>>(), [file]);
    }
}

#[test]
fn an_authority_is_never_overwritten() {
    let bench = Bench::new();
    let key = fs::read(bench.path("pki/ca.key")).unwrap();
    let said = bench.fails(&["pki", "init", "--site", "site.toml", "--out", "pki"]);
    assert!(said.contains("never overwritten"), "{said}");
    assert_eq!(fs::read(bench.path("pki/ca.key")).unwrap(), key);
    for name in ["ca.key", "gateway.key", "internal.key"] {
        assert_eq!(mode(&bench.path("pki").join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_site_with_shared_state_needs_its_password() {
    let bench = Bench::new();
    let option = "\n[dmz-state]\naddress = \"10.200.9.20\"\nhostname = \"state.example.org\"\n";
    fs::write(bench.path("site.toml"), format!("{EXAMPLE}{option}")).unwrap();
    bench.ok(&["pki", "init", "--site", "site.toml", "--out", "pki-2"]);
    for file in ["dmz-state.crt", "dmz-state.key"] {
        assert!(bench.path("pki-2").join(file).exists(), "{file}");
    }
    bench.hand_over("gateway", &[]);
    let said = bench.import_fails();
    assert!(said.contains("postern.dmz-state.password is missing"), "{said}");
    fs::write(bench.path("credentials/postern.dmz-state.password"), "secret\n").unwrap();
    bench.import();
    fs::remove_file(bench.path("credentials/postern.dmz-state.password")).unwrap();
    bench.import();
    let kept = bench.path("root/var/lib/postern/credentials/dmz-state.password");
    assert_eq!(fs::read_to_string(kept).unwrap(), "secret\n", "it is kept");
}

#[test]
fn credentials_of_another_site_or_role_are_refused() {
    let bench = Bench::new();
    fs::write(bench.path("users"), "").unwrap();
    let common = [
        "node",
        "credentials",
        "--site",
        "site.toml",
        "--out",
        "smbios.txt",
    ];
    let with = |more: &[&str]| bench.fails(&[&common[..], more].concat());
    let said = with(&["--pki", "pki", "--node", "gateway", "--users", "users"]);
    assert!(said.contains("users never go into the DMZ"), "{said}");
    let said = with(&["--pki", "pki", "--node", "gatway"]);
    assert!(said.contains("its nodes are: gateway, internal"), "{said}");
    let said = with(&["--pki", ".", "--node", "gateway"]);
    assert!(said.contains("postern pki init"), "{said}");
    assert!(!bench.path("smbios.txt").exists());
}

#[test]
fn a_wrong_site_file_is_cited() {
    let bench = Bench::new();
    bench.edit_site(
        "public-addresses = [\"203.0.113.10\"]",
        "public-addresses = [\"10.0.0.1\"]",
    );
    for arguments in [
        &["site", "check", "site.toml"][..],
        &["site", "matrix", "site.toml"],
        &["site", "dns", "site.toml"],
        &[
            "site",
            "render",
            "site.toml",
            "--node",
            "gateway",
            "--out",
            "rendered",
        ],
    ] {
        let said = bench.fails(arguments);
        assert!(
            said.contains("site.toml:16:21: error: the public address 10.0.0.1 is a private address"),
            "{said}"
        );
    }
    assert!(!bench.path("rendered").exists());
    let said = bench.fails(&["site", "check", "nowhere.toml"]);
    assert!(said.contains("cannot read nowhere.toml"), "{said}");
}

#[test]
fn status_without_a_queue_says_so() {
    let bench = Bench::new();
    let said = bench.fails(&["status", "--socket", "control.sock"]);
    assert!(
        said.contains("control.sock") && said.contains("is postern-queue running"),
        "{said}"
    );
}

#[test]
fn status_shows_what_the_queue_answers() {
    use std::io::{BufRead as _, BufReader};
    let bench = Bench::new();
    let listener = std::os::unix::net::UnixListener::bind(bench.path("control.sock")).unwrap();
    let queue = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        let reply = postern_control::Reply::Status {
            node: "mx1.example.org".into(),
            role: "gateway".into(),
            version: "1.2.3".into(),
            queue: postern_control::QueueStatus {
                messages: 4,
                recipients_due: 5,
                ..Default::default()
            },
        };
        writeln!(stream, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
        line
    });
    let said = bench.ok(&["status", "--socket", "control.sock"]);
    assert_eq!(queue.join().unwrap(), "{\"request\":\"status\"}\n");
    assert!(
        said.contains("mx1.example.org (gateway, postern 1.2.3)"),
        "{said}"
    );
    assert!(said.contains("4 messages, 5 recipients due"), "{said}");
}
