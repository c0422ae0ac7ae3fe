//! The manager's part of the hold.

use super::*;
use crate::queue::hold::{Asker, Found, Judged, Judgement};

fn unscanned(since: u64) -> Standing {
    Standing::Unscanned { since }
}

fn bad() -> Standing {
    Standing::Bad {
        reason: "virus: x".into(),
    }
}

/// The next command, done.
async fn step(manager: &mut Manager) {
    let command = tokio::time::timeout(Duration::from_mins(1), manager.commands.recv());
    let command = command.await.expect("nothing comes of it").unwrap();
    manager.command(command);
}

#[tokio::test]
async fn nobody_hears_what_becomes_of_what_was_released_although_it_is_bad() {
    let bench = Bench::new(silent(), &[60]);
    let (id, location, message) = bench
        .held(&["gone@example.org"], "Subject: x\r\n\r\n", bad())
        .await;
    let (mut manager, _door) = manager(&bench);
    manager.insert(id, location, &message);
    let (release, answered) = order(id, Change::ReleaseBad);
    manager.command(release);
    step(&mut manager).await;
    answered.await.unwrap().unwrap();
    let entry = manager.schedule.entry(id).unwrap();
    assert!(!entry.held && bench.worker.hold.standing(id).is_none());
    // A copy of it says the same.
    let stored = bench.worker.store.message(entry.location).unwrap();
    assert!(
        !stored.message.held
            && stored
                .message
                .hold
                .as_ref()
                .is_some_and(|hold| hold.standing.is_none())
    );
    let finished = conclude(&bench, &mut manager, vec![refused()]).await;
    assert_eq!(finished.news, [(0, Status::Failed)]);
    assert!(finished.queued.is_none(), "somebody is sent what is bad");
}

#[tokio::test]
async fn what_is_found_clean_is_not_delivered_again_to_whoever_has_it() {
    let bench = Bench::new(silent(), &[60]);
    let to = ["one@example.org", "two@example.org"];
    let (id, location, message) = bench.held(&to, "Subject: x\r\n\r\n", unscanned(now())).await;
    let (mut manager, _door) = manager(&bench);
    manager.insert(id, location, &message);
    assert!(manager.schedule.begin_change(id, true).is_ok());
    manager
        .schedule
        .end_change(id, vec![(0, Status::Delivered)], None);
    let (answer, answered) = oneshot::channel();
    manager.command(Command::Judge(Box::new(Judgement {
        id,
        found: Found::Clean(String::new()),
        asker: Asker::Scanner(answer),
    })));
    step(&mut manager).await;
    answered.await.unwrap().unwrap();
    let entry = manager.schedule.entry(id).unwrap();
    assert_ne!(entry.location, location);
    let stored = bench.worker.store.message(entry.location).unwrap();
    assert_eq!(stored.message.statuses[0], Status::Delivered);
    assert!(matches!(stored.message.statuses[1], Status::Due { .. }));
}

#[tokio::test]
async fn a_disk_without_room_for_the_quarantine_is_said_once() {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let bench = Bench::new(Events::to("queue", journal.reopen().unwrap()), &[60]);
    let (mut manager, _door) = manager(&bench);
    for _ in 0..2 {
        let (id, location, message) = bench.held(&["user@example.org"], "x", unscanned(0)).await;
        manager.insert(id, location, &message);
    }
    let ids: Vec<_> = manager.schedule.entries(None).map(|(id, _)| id).collect();
    let mut ended = |written: &dyn Fn() -> Result<Option<Location>, String>| {
        for id in &ids {
            assert!(manager.schedule.begin_change(*id, true).is_ok());
            manager.under_way += 1;
            let judgement = Judgement {
                id: *id,
                found: Found::Stands(Standing::Expired),
                asker: Asker::Time,
            };
            let written = written();
            manager.command(Command::Judged(Box::new(Judged { judgement, written })));
        }
    };
    let full = || Err("no space left on device".to_owned());
    let told = || {
        bench.worker.events.write_out();
        let told = std::fs::read_to_string(journal.path()).unwrap();
        told.matches("no space left").count()
    };
    ended(&full);
    ended(&full);
    assert_eq!(told(), 1);
    // With room again they come into quarantine, and the next full disk is said.
    ended(&|| Ok(None));
    ended(&full);
    assert_eq!(told(), 2);
}

#[tokio::test]
async fn the_hold_ends_where_the_clock_was_ahead_when_it_began() {
    let bench = Bench::new(silent(), &[60]);
    let (mut manager, _door) = manager(&bench);
    let (before, year) = (now(), 31_536_000_000);
    let (id, location, message) = bench
        .held(&["user@example.org"], "x", unscanned(before + year))
        .await;
    manager.insert(id, location, &message);
    manager.tick(before);
    assert_eq!(bench.worker.hold.next_expiry(before), Some(before + 86_400_000));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_no_scanner_will_answer_is_refused() {
    let bench = Bench::new(silent(), &[60]);
    let (mut manager, _door) = manager(&bench);
    let (id, location, message) = bench.held(&["user@example.org"], "x", Standing::Expired).await;
    manager.insert(id, location, &message);
    tokio::time::advance(Duration::from_mins(5)).await;
    let (release, answered) = order(id, Change::Release);
    manager.command(release);
    let why = answered.await.unwrap().unwrap_err();
    assert!(why.contains("no scanner asks for it"), "{why}");
    assert_eq!(
        manager
            .listed(id, manager.schedule.entry(id).unwrap())
            .unscanned
            .as_deref(),
        Some("no scanner asks for it")
    );
}
