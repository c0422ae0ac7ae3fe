//! Debian's Postfix as the next host: an instance of its own on loopback, with a port for each set of options. What it takes it
//! hands on to the test's sink by LMTP, as it came.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sink::Sink;

const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/log
maillog_file_prefixes = /
myhostname = mx.far.example
mydestination =
mynetworks =
local_header_rewrite_clients =
relay_domains = far.example
relay_transport = lmtp:inet:{sink}
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{ { refused@far.example = 550 5.1.1 no such mailbox } }
smtpd_discard_ehlo_keyword_address_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtputf8_enable = yes
alias_maps =
alias_database =
local_recipient_maps =
";

const MASTER_CF: &str = "\
cleanup   unix  n - n - 0    cleanup
qmgr      unix  n - n 300 1  qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - -    trivial-rewrite
bounce    unix  - - n - 0    bounce
defer     unix  - - n - 0    bounce
trace     unix  - - n - 0    bounce
verify    unix  - - n - 1    verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - -    proxymap
lmtp      unix  - - n - -    lmtp
error     unix  - - n - -    error
retry     unix  - - n - -    error
anvil     unix  - - n - 1    anvil
scache    unix  - - n - 1    scache
postlog   unix-dgram n - n - 1 postlogd
";

/// A running instance. Dropping it ends it.
pub(crate) struct Postfix {
    master: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
    /// Ports, one for each set of keywords that it was started with.
    pub(crate) ports: Vec<u16>,
}

impl Postfix {
    /// Listens at a port for each list of keywords that are not to be offered there.
    pub(crate) fn start(sink: &Sink, without: &[&str]) -> Self {
        let options = without
            .iter()
            .map(|list| vec![format!("smtpd_discard_ehlo_keywords={list}")]);
        Self::with_options(sink, &options.collect::<Vec<_>>(), |_| ())
    }

    /// Listens at a port for each list of options; `prepare` may put files beside its configuration, at `$config_directory`.
    pub(crate) fn with_options(sink: &Sink, options: &[Vec<String>], prepare: impl Fn(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        // Its processes run as a user of their own.
        set_mode(at, 0o755);
        let daemons = output("postconf", &["-dh", "daemon_directory"]);
        let config = at.join("config");
        for name in ["config", "queue", "data"] {
            std::fs::create_dir(at.join(name)).unwrap();
        }
        prepare(&config);
        let free: Vec<TcpListener> = options
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<u16> = free
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        drop(free);
        let main = MAIN_CF
            .replace("{directory}", &at.display().to_string())
            .replace("{daemons}", &daemons)
            .replace("{sink}", &sink.address.to_string());
        std::fs::write(config.join("main.cf"), main).unwrap();
        let services = ports.iter().zip(options).map(|(port, options)| {
            let options = options.iter().map(|option| format!("    -o {option}\n"));
            format!("{port} inet n - n - - smtpd\n{}", options.collect::<String>())
        });
        let master = services.chain([MASTER_CF.to_owned()]).collect::<String>();
        std::fs::write(config.join("master.cf"), master).unwrap();
        let postfix = nix::unistd::User::from_name("postfix").unwrap().unwrap();
        nix::unistd::chown(&at.join("data"), Some(postfix.uid), Some(postfix.gid)).unwrap();
        // "check" makes the queue's directories, with their owners.
        let config = config.to_str().unwrap().to_owned();
        output("postfix", &["-c", &config, "check"]);
        let master = Command::new(format!("{daemons}/master"))
            .args(["-c", &config, "-s"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Self {
            master,
            log: at.join("log"),
            _directory: directory,
            ports,
        };
        running.wait_for_ports();
        running
    }

    /// How many commands of this kind were counted in the sessions that have ended, as its log tells.
    pub(crate) fn counted(&self, verb: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let sessions = log.lines().filter(|line| line.contains("disconnect from"));
        let words = sessions.flat_map(str::split_ascii_whitespace);
        // "bdat=2", and "rcpt=1/2" where one of two was accepted.
        let counts = words.filter_map(|word| word.strip_prefix(verb)?.strip_prefix('='));
        counts
            .map(|count| count.rsplit('/').next().unwrap().parse::<usize>().unwrap())
            .sum()
    }

    /// Waits until so many commands of this kind are counted.
    pub(crate) fn wait_counted(&self, verb: &str, count: usize) {
        let until = Instant::now() + Duration::from_mins(1);
        while self.counted(verb) < count {
            assert!(
                Instant::now() < until,
                "{verb}: {} of {count} are counted",
                self.counted(verb)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for_ports(&mut self) {
        let until = Instant::now() + Duration::from_mins(2);
        for port in self.ports.clone() {
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                let ended = self.master.try_wait().unwrap();
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                assert!(
                    ended.is_none() && Instant::now() < until,
                    "Postfix does not listen: {ended:?}; {log}"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.master.id().cast_signed());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _ = self.master.wait();
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (Debian package postfix): {error}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
