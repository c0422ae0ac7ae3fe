//! `postern`, the operator's command. Enters: a command line. Leaves: files, text, or an error that says what is
//! wrong, where, and how to mend it, with exit status 1 and nothing half-written.

#![forbid(unsafe_code)]

mod app_passwords;
mod control;
mod credentials;
mod dns;
mod files;
mod firewall;
mod import;
mod metrics;
mod passwords;
mod pki;
mod policy;
mod queue;
mod render;
mod reports;
mod selftest;
mod site;
mod status;
mod trace;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use signal_hook::consts::SIGPIPE;

/// The operator's command of the Postern mail gate.
#[derive(Parser)]
#[command(name = "postern", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a site file, and show what follows from it.
    #[command(subcommand)]
    Site(SiteCommand),
    /// The certificates by which the nodes know each other.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Mailbox users.
    #[command(subcommand)]
    User(UserCommand),
    /// Hand a site to a node; on the node, take it in.
    #[command(subcommand)]
    Node(NodeCommand),
    /// The firewall that the kernel holds.
    #[command(subcommand)]
    Firewall(FirewallCommand),
    /// What became of a message or a connection, and why.
    Trace(trace::Request),
    /// What a changed site file would have decided otherwise.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// What waits in the queue, and what becomes of it.
    Queue(queue::Queue),
    /// Sum up the DMARC and TLS reports that others send to the addresses in our DNS records.
    Reports(reports::Request),
    /// Try the known ways of smuggling through and relaying by an installed node, from outside.
    Selftest(selftest::Request),
    /// The figures of this node, in the text format that Prometheus reads.
    Metrics {
        /// The queue's control socket.
        #[arg(long, default_value = "/run/postern/control.sock")]
        socket: PathBuf,
    },
    /// What the site's domains publish.
    #[command(subcommand)]
    Dns(dns::Command),
    /// How this node and its queue are.
    Status {
        /// The queue's control socket.
        #[arg(long, default_value = "/run/postern/control.sock")]
        socket: PathBuf,
        /// One line of JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum SiteCommand {
    /// Say what is wrong with a site file.
    Check {
        /// The site file.
        file: PathBuf,
    },
    /// Write a node's configuration files.
    Render {
        /// The site file.
        file: PathBuf,
        /// Which node.
        #[arg(long)]
        node: String,
        /// Directory to write to; without it everything is printed.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Print the public DNS records of the site in zone-file form.
    Dns {
        /// The site file.
        file: PathBuf,
        /// The gateway's DKIM records: JSON as the control socket gives it, or lines of `name value`.
        #[arg(long)]
        dkim_records: Option<PathBuf>,
    },
    /// Print who can reach whom.
    Matrix {
        /// The site file.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum PkiCommand {
    /// Make the site's authority and a certificate for each node.
    Init {
        /// The site file.
        #[arg(long)]
        site: PathBuf,
        /// Directory to make; it must not hold anything yet.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum UserCommand {
    /// Add a user to a users database, or give an existing one a new password.
    Add {
        /// The database; made if it is not there.
        #[arg(long)]
        db: PathBuf,
        /// The user's mail address.
        address: String,
        /// Octets that the mailbox may hold.
        #[arg(long, default_value_t = users::DEFAULT_QUOTA)]
        quota: u64,
    },
    /// Print a user's line for the credential `postern.users`.
    Hash {
        /// The user's mail address.
        address: String,
        /// Octets that the mailbox may hold.
        #[arg(long, default_value_t = users::DEFAULT_QUOTA)]
        quota: u64,
    },
    /// Passwords by which one program of a user submits mail from outside, and does nothing else.
    #[command(subcommand)]
    AppPassword(AppPasswordCommand),
}

#[derive(Subcommand)]
enum AppPasswordCommand {
    /// Make one, and print it this once.
    Add {
        /// The users database.
        #[arg(long)]
        db: PathBuf,
        /// The user's mail address, which is the user name outside too.
        address: String,
        /// What it is for, such as "phone".
        name: String,
    },
    /// Print the names of a user's app passwords.
    List {
        /// The users database.
        #[arg(long)]
        db: PathBuf,
        /// The user's mail address.
        address: String,
    },
    /// Take one away.
    Remove {
        /// The users database.
        #[arg(long)]
        db: PathBuf,
        /// The user's mail address.
        address: String,
        /// Which.
        name: String,
    },
    /// Make one, and print its line for the credential `postern.users`; the password itself goes to standard error.
    Hash {
        /// The user's mail address.
        address: String,
        /// What it is for, such as "phone".
        name: String,
    },
}

#[derive(Subcommand)]
enum FirewallCommand {
    /// Whether the role's rule set is loaded, and what each rule has counted; an error if it is not.
    Status {
        /// One line of JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Write a node's credentials as SMBIOS type 11 strings, one on each line.
    Credentials(credentials::Request),
    /// On the node, at boot: credentials -> /var/lib/postern. The last good site is kept.
    Import {
        /// Directory that stands for `/`.
        #[arg(long, default_value = "/")]
        root: PathBuf,
        /// Where systemd put the credentials.
        #[arg(long, env = "CREDENTIALS_DIRECTORY")]
        credentials: Option<PathBuf>,
    },
    /// On the node, at boot: the imported site -> /run/postern and /run/systemd.
    Render {
        /// Directory that stands for `/`.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
}

/// `postern … | head` ends like any other program whose reader has left; Rust would make it a panic.
fn end_with_the_reader() -> std::io::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(SIGPIPE, 128 + SIGPIPE, always).map(drop)
}

fn main() -> ExitCode {
    if let Err(error) = end_with_the_reader() {
        eprintln!("postern: cannot handle SIGPIPE: {error}");
        return ExitCode::FAILURE;
    }
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Site(SiteCommand::Check { file }) => site::check(&file),
        Command::Site(SiteCommand::Render { file, node, out }) => site::render(&file, &node, out.as_deref()),
        Command::Site(SiteCommand::Dns { file, dkim_records }) => site::dns(&file, dkim_records.as_deref()),
        Command::Site(SiteCommand::Matrix { file }) => site::matrix(&file),
        Command::Pki(PkiCommand::Init { site, out }) => pki::init(&site, &out),
        Command::User(UserCommand::Add { db, address, quota }) => users::add(&db, &address, quota),
        Command::User(UserCommand::Hash { address, quota }) => users::hash(&address, quota),
        Command::User(UserCommand::AppPassword(command)) => app_password(command),
        Command::Node(NodeCommand::Credentials(request)) => credentials::write(&request),
        Command::Node(NodeCommand::Import { root, credentials }) => {
            import::run(&root, credentials.as_deref())
        }
        Command::Node(NodeCommand::Render { root }) => render::run(&root),
        Command::Firewall(FirewallCommand::Status { json }) => firewall::show(json),
        Command::Trace(request) => trace::show(&request),
        Command::Policy(policy) => policy::run(&policy),
        Command::Reports(request) => reports::run(&request),
        Command::Queue(queue) => queue::run(queue),
        Command::Selftest(request) => selftest::run(&request),
        Command::Metrics { socket } => metrics::show(&socket),
        Command::Dns(command) => dns::run(&command),
        Command::Status { socket, json } => status::show(&socket, json),
    }
}

fn app_password(command: AppPasswordCommand) -> anyhow::Result<()> {
    match command {
        AppPasswordCommand::Add { db, address, name } => app_passwords::add(&db, &address, &name),
        AppPasswordCommand::List { db, address } => app_passwords::list(&db, &address),
        AppPasswordCommand::Remove { db, address, name } => app_passwords::remove(&db, &address, &name),
        AppPasswordCommand::Hash { address, name } => app_passwords::hash(&address, &name),
    }
}
