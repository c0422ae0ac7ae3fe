//! Who scans is the test, without a socket.

use tempfile::TempDir;

use super::*;
use crate::events::Events;
use crate::queue::change::Order;
use crate::queue::figures::Figures;
use crate::queue::manager::Manager;
use crate::queue::provenance::Provenance;
use crate::queue::snapshots::Snapshots;
use crate::queue::testing::Bench;

const CONTENT: &str = "Subject: x\r\n\r\n";

/// An intake, and the only message that is held.
struct Scanning {
    bench: Bench,
    intake: Intake,
    id: MessageId,
    location: Location,
    lent: Option<Lent>,
    _directory: TempDir,
}

impl Scanning {
    async fn start(events: Events) -> Self {
        let bench = Bench::new(events, &[0]);
        let since = unix_millis(SystemTime::now());
        let held = bench.held(&["user@example.org"], CONTENT, Standing::Unscanned { since });
        let (id, location, message) = held.await;
        let schedule = Manager::empty_schedule(&bench.worker.queue);
        let (mut manager, door) = Manager::new(bench.worker.clone(), schedule);
        manager.insert(id, location, &message);
        tokio::spawn(manager.run());
        let directory = tempfile::tempdir().unwrap();
        let events = bench.worker.events.clone();
        let intake = Intake {
            provenance: Provenance::Inside,
            worker: bench.worker.clone(),
            manager: door,
            figures: Arc::new(Figures::new(events.meter().clone())),
            snapshots: Arc::new(Snapshots::open(directory.path(), events).unwrap()),
            max_octets: 1000,
            postmaster: "postmaster@example.org".into(),
            reports: None,
        };
        Self {
            bench,
            intake,
            id,
            location,
            lent: None,
            _directory: directory,
        }
    }

    async fn next(&mut self) -> Answer {
        let next = self.intake.next_to_scan(&mut self.lent);
        let next = tokio::time::timeout(Duration::from_mins(1), next).await;
        next.expect("neither a message nor none").0
    }

    async fn scanned(&mut self, outcome: Outcome) -> Answer {
        self.intake.scanned(outcome, &mut self.lent).await
    }

    fn standing(&self) -> Option<Standing> {
        self.bench.worker.hold.standing(self.id)
    }
}

#[tokio::test]
async fn a_message_over_which_its_scanner_dies_comes_later_and_that_is_told() {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let mut scanning = Scanning::start(Events::to("queue", journal.reopen().unwrap())).await;
    assert!(matches!(scanning.next().await, Answer::ToScan(_)));
    let now = unix_millis(SystemTime::now());
    scanning.lent = None;
    let hold = &scanning.bench.worker.hold;
    let next = hold.next(Provenance::Inside, now).unwrap();
    assert!(next >= now + 10_000, "it is scanned again at once");
    scanning.bench.worker.events.write_out();
    let told = std::fs::read_to_string(journal.path()).unwrap();
    assert!(told.contains("ended without an answer"), "{told}");
}

#[tokio::test]
async fn whoever_scans_what_is_cancelled_meanwhile_hears_of_no_failure() {
    let mut scanning = Scanning::start(Events::to("queue", std::io::sink())).await;
    assert!(matches!(scanning.next().await, Answer::ToScan(_)));
    let id = scanning.id;
    let cancel = |answer| {
        Command::Change(Box::new(Order {
            id,
            change: postern_control::Change::Cancel,
            by: "the test".into(),
            reason: None,
            answer,
        }))
    };
    ask(&scanning.intake.manager, cancel).await.unwrap().unwrap();
    let clean = Outcome::Clean(String::new());
    assert_eq!(scanning.scanned(clean).await, Answer::Kept);
}

#[tokio::test]
async fn what_scanners_do_not_get_to_the_end_of_comes_into_quarantine() {
    let mut scanning = Scanning::start(Events::to("queue", std::io::sink())).await;
    let slow = || Outcome::Unfinished("virus: MaxScanTime".into());
    assert!(matches!(scanning.next().await, Answer::ToScan(_)));
    assert_eq!(scanning.scanned(slow()).await, Answer::Kept);
    assert!(matches!(scanning.standing(), Some(Standing::Unscanned { .. })));
    assert!(!scanning.bench.worker.hold.unfinished(scanning.id));
    let now = unix_millis(SystemTime::now());
    let later = |_| true;
    scanning
        .bench
        .worker
        .hold
        .lend(Provenance::Inside, now + 20_000, later)
        .unwrap();
    scanning.lent = Some(Lent {
        id: scanning.id,
        worker: scanning.bench.worker.clone(),
        ended: false,
    });
    assert_eq!(scanning.scanned(slow()).await, Answer::Kept);
    assert_eq!(scanning.standing(), Some(Standing::Expired));
    let why = scanning.bench.worker.hold.why(scanning.id);
    assert_eq!(why.as_deref(), Some("virus: MaxScanTime"));
}

#[tokio::test]
async fn of_a_reason_so_much_is_kept() {
    let mut scanning = Scanning::start(Events::to("queue", std::io::sink())).await;
    assert!(matches!(scanning.next().await, Answer::ToScan(_)));
    let reason = Outcome::Bad("ü".repeat(5000));
    assert_eq!(scanning.scanned(reason).await, Answer::Kept);
    let reason = "ü".repeat(2000).into();
    assert_eq!(scanning.standing(), Some(Standing::Bad { reason }));
}

#[tokio::test]
async fn what_was_carried_over_meanwhile_is_found_where_it_is() {
    let scanning = Scanning::start(Events::to("queue", std::io::sink())).await;
    let gone = Location {
        segment: 99,
        ..scanning.location
    };
    let (message, memory) = scanning.intake.found_to_scan(scanning.id, gone).await.unwrap();
    assert_eq!(message.id, scanning.id.to_string());
    assert_eq!(memfd::read(memory, 1000).unwrap(), CONTENT.as_bytes());
}

#[tokio::test]
async fn what_is_held_and_lost_is_given_up_and_its_sender_hears_of_it() {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let mut scanning = Scanning::start(Events::to("queue", journal.reopen().unwrap())).await;
    scanning.bench.damage("Subject");
    let (id, location, worker) = (scanning.id, scanning.location, scanning.bench.worker.clone());
    for _ in 0..2 {
        let read = worker.read(id, location).await.unwrap();
        assert!(read.content.is_err_and(|lost| !lost.for_good));
    }
    let manager = scanning.intake.manager.clone();
    let asking = tokio::spawn(async move { scanning.next().await });
    let until = Instant::now() + Duration::from_mins(1);
    while ask(&manager, |answer| Command::Show(id, answer))
        .await
        .flatten()
        .is_some()
    {
        assert!(Instant::now() < until, "it is not given up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asking.abort();
    worker.events.write_out();
    let told = std::fs::read_to_string(journal.path()).unwrap();
    assert!(
        told.contains("\"dsn\"") && told.contains("app@example.org"),
        "{told}"
    );
}
