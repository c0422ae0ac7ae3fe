//! Whether SPF says that a client may send for its reverse-path, asked while it waits at RCPT.
//!
//! The answer only spares a sender the greylist's wait, and its lookups are of the sender's choice: many, slow, and aimed
//! at whom he likes. So they are remembered, few run at a time, and each client has only some in an hour. Where one of
//! these bounds says no, the sender counts as not proven, which costs nothing but the wait.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mail_auth::MessageAuthenticator;
use tokio::sync::Semaphore;

use super::{Facts, authentication};
use crate::rate::{Rate, client};
use crate::table::Table;

/// Evaluations at a time.
const AT_A_TIME: usize = 16;
/// Evaluations of one client in an hour.
const AN_HOUR: u32 = 60;
/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_mins(10);
const ANSWERS: usize = 65_536;

/// All answers of one process.
#[derive(Debug)]
pub struct Senders {
    answers: Mutex<Table<bool>>,
    asked: Mutex<Rate>,
    places: Semaphore,
}

impl Default for Senders {
    fn default() -> Self {
        Self {
            answers: Mutex::new(Table::new(ANSWERS)),
            asked: Mutex::new(Rate::new(AN_HOUR)),
            places: Semaphore::new(AT_A_TIME),
        }
    }
}

impl Senders {
    /// Whether SPF passes, as far as that is known soon and within the bounds.
    pub async fn is_proven(
        &self,
        authenticator: &MessageAuthenticator,
        hostname: &str,
        facts: Facts<'_>,
    ) -> bool {
        let now = Instant::now();
        let key = (client(facts.peer), facts.reverse_path.to_lowercase());
        if let Some(known) = lock(&self.answers).get(&key, now) {
            return *known;
        }
        let Ok(_place) = self.places.try_acquire() else {
            return false;
        };
        if !lock(&self.asked).take(facts.peer, now) {
            return false;
        }
        let proven = authentication::spf_passes(authenticator, hostname, facts).await;
        lock(&self.answers).insert(&key, proven, now + REMEMBERED, now);
        proven
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A name server that counts what it is asked and answers that nothing is there.
    fn nothing_there() -> (MessageAuthenticator, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                count.fetch_add(1, Ordering::Relaxed);
                // QR and RD, RA and NXDOMAIN (RFC 1035 section 4.1.1).
                (packet[2], packet[3]) = (0x81, 0x83);
                socket.send_to(&packet[..length], from).unwrap();
            }
        });
        (crate::resolver::authenticator(address).unwrap(), asked)
    }

    #[tokio::test]
    async fn a_client_has_lookups_made_only_so_often() {
        let (authenticator, asked) = nothing_there();
        let senders = Senders::default();
        let prove = async |path: &str| {
            let facts = Facts {
                peer: "192.0.2.1".parse().unwrap(),
                listed: false,
                helo: "client.example",
                reverse_path: path,
                recipient: "",
                message: &[],
                memory: None,
            };
            senders.is_proven(&authenticator, "mx.example.org", facts).await
        };
        assert!(!prove("a@one.example").await);
        let first = asked.load(Ordering::Relaxed);
        assert!(first > 0);
        assert!(!prove("A@one.example").await);
        assert_eq!(asked.load(Ordering::Relaxed), first, "it was remembered");
        for number in 0..AN_HOUR - 1 {
            prove(&format!("a@{number}.example")).await;
        }
        let most = asked.load(Ordering::Relaxed);
        assert!(most > first);
        for number in 0..20 {
            prove(&format!("b@more-{number}.example")).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), most, "no more in this hour");
    }
}
