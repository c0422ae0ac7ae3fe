//! What an instance makes of its own memory and the shared one, with a proxy that the suite can empty and end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use postern_relay::events::{Events, unix_millis};
use postern_relay::reputation::hourly::{Hourly, Proof, Who, within};
use postern_relay::reputation::local::Local;
use postern_relay::reputation::shared::{Asked, Reply, Shared};
use postern_relay::reputation::{Answer, Key, Question, Reputation};
use postern_relay::throttle;
use postern_sandbox::packet::{Connection, Listener};
use postern_sandbox::seqpacket;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// The shared memory behind a proxy's socket.
struct Proxy {
    path: PathBuf,
    memory: Arc<Mutex<Arc<Local>>>,
    /// It ends over each outcome of a login.
    deaf: Arc<AtomicBool>,
    serving: JoinHandle<()>,
    _directory: TempDir,
}

impl Proxy {
    fn start() -> Self {
        let directory = TempDir::with_prefix("postern-").expect("a directory");
        let path = directory.path().join("proxy.sock");
        let listener = seqpacket::listen(&path)
            .and_then(Listener::new)
            .expect("a socket");
        let memory = Arc::new(Mutex::new(Arc::new(Local::new(1000))));
        let shared = memory.clone();
        let deaf = Arc::new(AtomicBool::new(false));
        let is_deaf = deaf.clone();
        let serving = tokio::spawn(async move {
            while let Ok(connection) = listener.accept().await {
                // One connection after the other, so that none outlives the loop.
                while answer(&connection, &shared, &is_deaf).await.is_some() {}
            }
        });
        Self {
            path,
            memory,
            deaf,
            serving,
            _directory: directory,
        }
    }

    /// It has lost all.
    fn empty(&self) {
        *self.memory.lock().expect("no thread panicked") = Arc::new(Local::new(1000));
    }

    /// It answers no more.
    async fn end(self) {
        self.serving.abort();
        let ended = self.serving.await.expect_err("it does not end by itself");
        assert!(ended.is_cancelled());
    }
}

async fn answer(connection: &Connection, memory: &Mutex<Arc<Local>>, deaf: &AtomicBool) -> Option<()> {
    let mut buffer = vec![0; 4096];
    let packet = connection.recv(&mut buffer).await.ok()?;
    let asked: Asked = serde_json::from_slice(&buffer[..packet.len]).ok()?;
    if matches!(asked.remembered, Question::Right(_)) && deaf.load(Ordering::Relaxed) {
        return None;
    }
    let memory = memory.lock().expect("no thread panicked").clone();
    let answer = memory.answer(&asked.remembered, unix_millis(SystemTime::now()));
    let reply = serde_json::to_vec(&Reply::Answer(answer)).expect("JSON");
    connection.send(&reply, None).await.ok()
}

fn gateway(path: &Path) -> Reputation {
    let events = Events::to("smtpd/public", io::sink());
    Reputation::new().sharing(Some(Shared::new(path.to_owned(), events)))
}

#[tokio::test]
async fn wrong_passwords_at_one_gateway_count_at_the_other() {
    let proxy = Proxy::start();
    let guesser = throttle::from("192.0.2.1".parse().expect("an address"));
    let first = gateway(&proxy.path);
    for _ in 0..6 {
        throttle::attempt(&first, &guesser).await.expect("there is room");
    }
    drop(first);
    let second = gateway(&proxy.path);
    for _ in 0..10 {
        throttle::attempt(&second, &guesser)
            .await
            .expect_err("six were wrong elsewhere");
    }
    proxy.end().await;
    // Alone, it knows of none: what was not let through was no guess.
    let delay = throttle::attempt(&second, &guesser).await;
    assert_eq!(delay, Ok(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_right_login_that_could_not_be_told_is_told_when_the_other_answers_again() {
    let proxy = Proxy::start();
    let gateway = gateway(&proxy.path);
    let login = throttle::from("192.0.2.1".parse().expect("an address"));
    throttle::attempt(&gateway, &login).await.expect("there is room");
    let wrong = || {
        let memory = proxy.memory.lock().expect("no thread panicked").clone();
        let [.., guesses, _] = memory.tables(unix_millis(SystemTime::now()));
        guesses.iter().map(|one| one.value[1]).sum::<u64>()
    };
    proxy.deaf.store(true, Ordering::Relaxed);
    throttle::succeeded(&gateway, login).await;
    assert_eq!(wrong(), 2, "of the address and of the network");
    proxy.deaf.store(false, Ordering::Relaxed);
    let told = tokio::time::timeout(Duration::from_mins(1), async {
        while wrong() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let client = Key::new("whatever is asked next", &[]);
            gateway.ask(Question::Prove { client }).await;
        }
    });
    told.await.expect("it is told");
}

#[tokio::test]
async fn a_full_count_of_ones_own_is_not_asked_about() {
    let proxy = Proxy::start();
    let guesser = throttle::from("192.0.2.1".parse().expect("an address"));
    let gateway = gateway(&proxy.path);
    for _ in 0..6 {
        throttle::attempt(&gateway, &guesser)
            .await
            .expect("there is room");
    }
    proxy.empty();
    throttle::attempt(&gateway, &guesser)
        .await
        .expect_err("it knows that itself");
}

#[tokio::test]
async fn a_history_is_known_to_both_whoever_loses_it() {
    let limits = postern_relay::config::Limits {
        messages_per_hour: 1,
        proven_messages: 2,
        proven_age: 0,
        ..Default::default()
    };
    let hourly = Hourly::new(&limits);
    let good = Who {
        peer: "192.0.2.1".parse().expect("an address"),
        reverse_path: "a@good.example",
    };
    let accepted = || {
        let mut questions = hourly.accepted(good, &[], &[Proof::Spf], true);
        assert_eq!(questions.len(), 1);
        questions.remove(0)
    };
    let takes = async |gateway: &Reputation| within(gateway.ask(hourly.begin(good)).await).is_ok();
    let proxy = Proxy::start();
    let first = gateway(&proxy.path);
    assert_eq!(first.ask(accepted()).await, Answer::No);
    assert_eq!(first.ask(accepted()).await, Answer::Yes);
    // The server is emptied, and learns it from who knows it.
    proxy.empty();
    assert!(takes(&first).await && takes(&first).await);
    assert_eq!(first.ask(accepted()).await, Answer::Yes);
    drop(first);
    let second = gateway(&proxy.path);
    assert!(takes(&second).await && takes(&second).await);
    assert_eq!(second.ask(accepted()).await, Answer::Yes);
    proxy.end().await;
    assert!(takes(&second).await && takes(&second).await, "it has learned it");
    let stranger = Who {
        reverse_path: "b@other.example",
        ..good
    };
    assert!(within(second.ask(hourly.begin(stranger)).await).is_err());
}
