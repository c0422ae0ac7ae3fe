//! The console on real terminals (tmux plays them): live, through a dead relay, hostile text, keys and sizes.
//!
//! `systemctl` and `journalctl` are small scripts here; files and the control socket lie below a directory.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const SYSTEMCTL: &str = "#!/bin/sh
cat <<END
Id=postern-firewall.service
LoadState=loaded
ActiveState=active
SubState=exited
Result=success
NRestarts=0

Id=postern-queue.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
NRestarts=0
END
";

const JOURNALCTL: &str = r#"#!/bin/sh
echo '{"__REALTIME_TIMESTAMP":"1767225599000000","PRIORITY":"4","_SYSTEMD_UNIT":"postern-smtpd@public.service","MESSAGE":[69,72,76,79,32,27,91,50,74,7]}'
case "$*" in *--follow*) exec sleep 1000 ;; esac
"#;

/// A console in a terminal of its own, ended with the value.
struct Terminal {
    server: String,
    root: tempfile::TempDir,
}

impl Terminal {
    /// Starts the console with TERM set to `term`; `before` is a shell command run on the terminal first.
    fn start(name: &str, term: &str, before: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let terminal = Self {
            server: format!("postern-{name}-{}", std::process::id()),
            root,
        };
        terminal.script("systemctl", SYSTEMCTL);
        terminal.script("journalctl", JOURNALCTL);
        let (bin, root) = (terminal.root.path().join("bin"), terminal.root.path());
        let console = env!("CARGO_BIN_EXE_postern-console");
        let command = format!(
            "{before} TERM={term} PATH={}:/usr/bin:/bin exec {console} --root {} 2>{}",
            bin.display(),
            root.display(),
            root.join("errors").display()
        );
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            &command,
        ]);
        terminal
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.root.path().join("bin").join(name);
        fs::create_dir_all(path.parent().expect("bin")).expect("a directory");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.server])
            .args(arguments)
            .output();
        let output = output.expect("tmux starts; install it (apt-get install tmux)");
        assert!(
            output.status.success(),
            "tmux {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn pid(&self) -> String {
        self.tmux(&["list-panes", "-F", "#{pane_pid} #{pane_dead}"])
            .trim()
            .to_owned()
    }

    /// Waits until the screen shows every one of these.
    fn shows(&self, expected: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let screen = self.screen();
            if expected.iter().all(|text| screen.contains(text)) {
                return screen;
            }
            let errors = || fs::read_to_string(self.root.path().join("errors")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "{expected:?} did not appear on\n{screen}\nerrors: {}",
                errors()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        Command::new("tmux")
            .args(["-L", &self.server, "kill-server"])
            .output()
            .ok();
    }
}

/// Answers on the control socket while `alive`.
fn relay(root: &Path, alive: &'static AtomicBool) {
    let path: PathBuf = root.join("run/postern/control.sock");
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            if !alive.load(Ordering::SeqCst) {
                // Dropping the listener refuses whoever comes next.
                return;
            }
            for line in BufReader::new(stream.try_clone().expect("a duplicate")).lines() {
                let Ok(line) = line else { break };
                let answer = if line.contains("status") {
                    r#"{"reply":"status","node":"mx1","role":"gateway","version":"0.1.0","queue":{"messages":17,"recipients_due":23,"oldest_age_seconds":60,"spool_octets":4096}}"#
                } else if line.contains("queue-list") {
                    r#"{"reply":"queue-list","messages":[],"truncated":false}"#
                } else {
                    r#"{"reply":"dkim-records","records":[{"name":"s._domainkey.example.org","value":"v=DKIM1; p=AAAA"}]}"#
                };
                writeln!(&stream, "{answer}").ok();
            }
        }
    });
}

#[test]
fn the_screen_is_live_with_the_relay_alive_and_dead() {
    static ALIVE: AtomicBool = AtomicBool::new(true);
    let terminal = Terminal::start("live", "linux", "");
    terminal.shows(&[
        "node -",
        "NOT KNOWN: the queue process does not answer",
        "loaded: the site's rules are in force",
    ]);
    terminal.file("var/lib/postern/site/node", "gateway\n");
    terminal.file(
        "run/postern/relay.toml",
        "role = \"gateway\"\nhostname = \"mx1.example.org\"\n",
    );
    terminal.file("etc/os-release", "IMAGE_VERSION=9.8.7\n");
    relay(terminal.root.path(), &ALIVE);
    terminal.shows(&[
        "Postern 9.8.7",
        "node gateway",
        "mx1.example.org",
        "messages 17, recipients due 23",
    ]);
    terminal.script(
        "systemctl",
        &SYSTEMCTL.replacen("ActiveState=active", "ActiveState=failed", 1),
    );
    terminal.shows(&[
        "NO MAIL, NO NETWORK: the firewall's rules could not be loaded",
        "It said:",
        "EHLO",
    ]);
    terminal.script("systemctl", SYSTEMCTL);
    ALIVE.store(false, Ordering::SeqCst);
    terminal.shows(&[
        "NOT KNOWN: the queue process does not answer",
        "Connection refused",
    ]);
}

#[test]
fn no_key_ends_it_and_pages_turn() {
    for term in ["vt220", "linux"] {
        let terminal = Terminal::start(&format!("keys-{term}"), term, "");
        // What a stranger said is shown escaped: it neither clears the screen nor rings.
        terminal.shows(&["Last events", "EHLO \\u{1b}[2J\\u{7}"]);
        let pid = terminal.pid();
        terminal.keys(&[
            "C-c", "C-z", "C-\\", "C-d", "C-s", "C-q", "q", "Escape", "F10", "M-x", "C-]",
        ]);
        thread::sleep(Duration::from_secs(1));
        assert_eq!(terminal.pid(), pid, "{term}: the same process, still alive");
        terminal.keys(&["2"]);
        terminal.shows(&["restarts", "postern-queue"]);
        terminal.keys(&["Right"]);
        terminal.shows(&["NOT KNOWN: the queue process does not answer"]);
        terminal.keys(&["?"]);
        terminal.shows(&["there is no login and no shell behind it"]);
        let screen = terminal.screen();
        assert!(screen.is_ascii(), "{term}: {screen}");
    }
}

#[test]
fn any_size_of_terminal_is_filled() {
    let terminal = Terminal::start("size", "linux", "");
    terminal.shows(&["Last events", "EHLO"]);
    for (columns, rows) in [("132", "40"), ("40", "10"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", rows]);
        // The bar at the bottom stands in the last row, the overview above it.
        let last = rows.parse::<usize>().expect("a number") - 1;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !terminal
            .screen()
            .lines()
            .nth(last)
            .is_some_and(|line| line.contains("1-6 page"))
        {
            assert!(
                Instant::now() < deadline,
                "{columns}x{rows}:\n{}",
                terminal.screen()
            );
            thread::sleep(Duration::from_millis(100));
        }
        terminal.shows(&["1 Overview"]);
    }
}

#[test]
fn a_serial_line_without_a_size_gets_a_vt220_s() {
    let terminal = Terminal::start("serial", "vt220", "stty rows 0 cols 0;");
    let screen = terminal.shows(&["Last events", "EHLO"]);
    assert!(
        screen
            .lines()
            .nth(23)
            .is_some_and(|line| line.contains("1-6 page")),
        "{screen}"
    );
}
