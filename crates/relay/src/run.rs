//! `run`: all processes of one configuration, as an ordinary user and without systemd, for evaluation and benchmarks.
//!
//! It does what the socket units do on an appliance: makes the runtime directory, binds every socket, and starts each
//! process with its own. The processes are the same, their sandboxes too. When one ends, all end.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_sandbox::{child, seqpacket};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::config::{Config, Submission};
use crate::{proxy, scan, smtpd};

/// A little more than the processes give their connections to finish.
const GRACE: Duration = Duration::from_secs(35);

/// Octets that a pipe holds.
const PIPE: usize = 64 * 1024;

type Sockets = Vec<(String, OwnedFd)>;

/// One process to start.
struct Part {
    name: String,
    arguments: Vec<String>,
    sockets: Sockets,
}

/// Starts everything and waits for the end.
pub fn main(config: &Config, file: &Path) -> anyhow::Result<()> {
    let parts = parts(config)?;
    // One thread: the children's parent-death signal is bound to the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(supervise(parts, file))
}

/// Binds every socket first, so that nothing has started when one cannot be had.
fn parts(config: &Config) -> anyhow::Result<Vec<Part>> {
    let runtime = &config.runtime_directory;
    let queue_directory = runtime.join("queue");
    private_directory(&queue_directory)?;
    private_directory(&config.state_directory)?;
    let mut queue = vec![(
        "control".to_owned(),
        control_socket(&runtime.join("control.sock"))?,
    )];
    let mut smtpds = Vec::new();
    for (name, instance) in &config.instance {
        let mut sockets = Sockets::new();
        let listeners = [
            (smtpd::MX, &instance.listen),
            (smtpd::SUBMISSION, &instance.listen_submission),
            (smtpd::SUBMISSIONS, &instance.listen_submissions),
        ];
        for (kind, addresses) in listeners {
            for address in addresses {
                sockets.push((kind.to_owned(), listen(*address, name)?));
            }
        }
        if sockets.is_empty() {
            bail!(
                "[instance.{name}] has no `listen`; `run` binds sockets itself, so name at least one address"
            );
        }
        queue.push((
            format!("handover-{name}"),
            packet_socket(&config.handover_socket(name))?,
        ));
        if instance.submission == Submission::FromGateway {
            let name = Config::SUBMISSION;
            queue.push((
                format!("handover-{name}"),
                packet_socket(&config.handover_socket(name))?,
            ));
        }
        smtpds.push(Part {
            name: format!("smtpd/{name}"),
            arguments: vec!["smtpd".into(), "--instance".into(), name.clone()],
            sockets,
        });
    }
    let mut parts = vec![Part {
        name: "queue".into(),
        arguments: vec!["queue".into()],
        sockets: queue,
    }];
    if config.proxy.is_some() {
        let sockets = vec![(
            proxy::DESCRIPTOR.to_owned(),
            packet_socket(&config.proxy_socket())?,
        )];
        parts.push(Part {
            name: "proxy".into(),
            arguments: vec!["proxy".into()],
            sockets,
        });
    }
    if config.content.is_some() {
        let sockets = vec![(scan::DESCRIPTOR.to_owned(), packet_socket(&config.scan_socket())?)];
        parts.push(Part {
            name: "scan".into(),
            arguments: vec!["scan".into()],
            sockets,
        });
    }
    parts.extend(smtpds);
    Ok(parts)
}

fn private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        format!("{} cannot be made; name a directory that you may write to in state-directory and runtime-directory", path.display())
    })
}

fn listen(address: SocketAddr, instance: &str) -> anyhow::Result<OwnedFd> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program holds the port: stop it, or choose another in `listen`"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are for root: choose a higher one in `listen`"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no link has this address: choose one of this machine in `listen`"
            }
            _ => "correct `listen`",
        };
        anyhow::anyhow!("[instance.{instance}] cannot listen on {address}: {error}; {remedy}")
    })?;
    Ok(listener.into())
}

fn packet_socket(path: &Path) -> anyhow::Result<OwnedFd> {
    seqpacket::listen(path).with_context(|| unusable(path))
}

fn control_socket(path: &Path) -> anyhow::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(unusable(path)),
        _ => {}
    }
    Ok(UnixListener::bind(path).with_context(|| unusable(path))?.into())
}

fn unusable(path: &Path) -> String {
    format!(
        "the socket {} cannot be made; choose a short runtime-directory (at most 90 octets) that you may write to",
        path.display()
    )
}

async fn supervise(parts: Vec<Part>, file: &Path) -> anyhow::Result<()> {
    let mut stop = crate::service::stop_signal()?;
    let program = std::env::current_exe().context("the program does not know where it is")?;
    let mut ends = JoinSet::new();
    let mut running = Vec::new();
    for part in parts {
        let mut command = StdCommand::new(&program);
        command.args(&part.arguments).arg("--config").arg(file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        child::pass_descriptors(&mut command, part.sockets);
        let child = Command::from(command)
            .spawn()
            .with_context(|| format!("{} cannot be started", part.name))?;
        running.extend(child.id());
        ends.spawn(follow(part.name, child));
    }
    let result = tokio::select! {
        () = stop.wait() => Ok(()),
        Some(Ok(end)) = ends.join_next() => {
            running.retain(|id| *id != end.id);
            Err(anyhow::anyhow!("{} ended ({}), so everything ends; its reason is above", end.name, end.status))
        }
    };
    for id in &running {
        // A child that has just ended is not yet reaped, so that its number cannot be another's.
        let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM);
    }
    let rest = async { while ends.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        bail!(
            "a process did not end in {} s and was left to the kernel",
            GRACE.as_secs()
        );
    }
    result
}

/// How a process ended.
struct End {
    name: String,
    id: u32,
    status: String,
}

/// Prints what a process says, with its name in front, until it ends.
async fn follow(name: String, mut child: Child) -> End {
    let id = child.id().unwrap_or(0);
    let said = child.stdout.take().map(|out| forward(name.clone(), out));
    let complained = child.stderr.take().map(|out| forward(name.clone(), out));
    tokio::join!(
        async {
            if let Some(said) = said {
                said.await;
            }
        },
        async {
            if let Some(complained) = complained {
                complained.await;
            }
        },
    );
    let status = child
        .wait()
        .await
        .map_or_else(|error| error.to_string(), |status| status.to_string());
    End { name, id, status }
}

/// Lines that have come together go out together: under load there are thousands a second.
async fn forward(name: String, from: impl AsyncRead + Unpin) {
    let mut from = BufReader::with_capacity(PIPE, from);
    let (mut line, mut out) = (Vec::new(), Vec::new());
    while let Ok(1..) = from.read_until(b'\n', &mut line).await {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
        out.push(b'\n');
        line.clear();
        if out.len() >= PIPE || !from.buffer().contains(&b'\n') {
            // Where nobody reads what is said there is nowhere left to tell of it.
            let _ = io::stdout().lock().write_all(&out);
            out.clear();
        }
    }
}
