//! The manager where things go wrong: faults, damage, a full disk, a wrong clock.

mod hold;

use postern_control::{Change, Filter, Reply};
use postern_smtp::client::Outcome;
use postern_smtp::reply::Reply as SmtpReply;

use super::super::compaction;
use super::super::damage::Lost;
use super::super::page::Query;
use super::super::schedule::{Job, Reach};
use super::super::testing::{Bench, Breaks, message};
use super::*;
use crate::deliver::{Attempt, Contact};
use crate::events::Events;
use crate::spool::Status;
use crate::spool::hold::Standing;

fn manager(bench: &Bench) -> (Manager, mpsc::UnboundedSender<Command>) {
    let schedule = Manager::empty_schedule(&bench.worker.queue);
    Manager::new(bench.worker.clone(), schedule)
}

fn now() -> u64 {
    unix_millis(SystemTime::now())
}

fn silent() -> Events {
    Events::to("queue", std::io::sink())
}

fn order(id: MessageId, change: Change) -> (Command, oneshot::Receiver<Result<(), String>>) {
    let (answer, answered) = oneshot::channel();
    let order = Order {
        id,
        change,
        by: "the test".into(),
        reason: None,
        answer,
    };
    (Command::Change(Box::new(order)), answered)
}

#[tokio::test]
async fn a_message_whose_change_ended_by_a_fault_can_be_changed_again() {
    let bench = Bench::new(Events::to("queue", Breaks("\"dsn\"")), &[60]);
    let (id, location, mut message) = bench.message(&["user@example.org"], "Subject: x\r\n\r\n").await;
    message.held = true;
    let (mut manager, door) = manager(&bench);
    manager.insert(id, location, &message);
    tokio::spawn(manager.run());
    let (bounce, answered) = order(id, Change::Bounce);
    door.send(bounce).unwrap();
    assert!(answered.await.is_err(), "its notification ends by a fault");
    let (release, answered) = order(id, Change::Release);
    door.send(release).unwrap();
    let released = tokio::time::timeout(Duration::from_mins(1), answered).await;
    released
        .expect("the message stays as if it were being changed")
        .unwrap()
        .unwrap();
}

/// Each attempt, and each word about its fault, ends by a fault.
#[tokio::test]
async fn an_attempt_that_ends_by_faults_alone_is_made_again() {
    let bench = Bench::new(Events::to("queue", Breaks("warning")), &[60]);
    let (id, location, message) = bench.message(&["user@example.org"], "Subject: x\r\n\r\n").await;
    bench.damage("Subject");
    let (mut manager, _door) = manager(&bench);
    manager.insert(id, location, &message);
    manager.start(now());
    let Some(Command::Finished(finished)) = manager.commands.recv().await else {
        panic!("no word of the attempt")
    };
    manager.command(Command::Finished(finished));
    assert_eq!(manager.schedule.active(), 0);
    let again = manager.schedule.next_due().unwrap();
    assert!((now()..=now() + 60_000).contains(&again));
}

/// A job for the only message, and what `outcomes` make of it.
async fn conclude(bench: &Bench, manager: &mut Manager, outcomes: Vec<Outcome>) -> Finished {
    let job = manager.schedule.next(u64::MAX / 2).unwrap();
    let read = bench.worker.read(job.id, job.location).await.unwrap();
    let attempt = Attempt {
        contact: Contact::Made,
        ..Attempt::not_made(outcomes)
    };
    let concluded = bench.worker.conclude(job, &read.message, read.stored(), &attempt);
    tokio::time::timeout(Duration::from_mins(1), concluded)
        .await
        .expect("it holds its place until the disk has room")
}

fn delivered() -> Outcome {
    Outcome::Delivered(SmtpReply::new(250, (2, 0, 0), "taken"))
}

fn refused() -> Outcome {
    Outcome::Permanent(SmtpReply::new(550, (5, 1, 1), "unknown"))
}

#[tokio::test]
async fn a_disk_without_room_for_a_notification_holds_up_no_delivery() {
    let bench = Bench::new(silent(), &[60]);
    let to = ["user@example.org", "gone@example.org"];
    let (id, location, message) = bench.message(&to, "Subject: x\r\n\r\n").await;
    let (mut manager, _door) = manager(&bench);
    manager.insert(id, location, &message);
    // Less than half of the reserve.
    bench.free.store(1 << 18, std::sync::atomic::Ordering::Relaxed);
    let finished = conclude(&bench, &mut manager, vec![delivered(), refused()]).await;
    assert!(finished.queued.is_none());
    assert_eq!(finished.news[0], (0, Status::Delivered));
    assert!(matches!(finished.news[1], (1, Status::Due { attempts: 1, .. })));
    manager.command(Command::Finished(Box::new(finished)));
    // The message is not done, and its sender hears of it when there is room.
    bench.free.store(1 << 40, std::sync::atomic::Ordering::Relaxed);
    let finished = conclude(&bench, &mut manager, vec![refused()]).await;
    assert_eq!(finished.news, [(1, Status::Failed)]);
    assert!(finished.queued.is_some());
}

#[tokio::test]
async fn a_fault_in_the_telling_does_not_undo_a_delivery() {
    let bench = Bench::new(Events::to("queue", Breaks("\"attempt\"")), &[60]);
    let (id, location, message) = bench.message(&["user@example.org"], "Subject: x\r\n\r\n").await;
    let (mut manager, _door) = manager(&bench);
    manager.insert(id, location, &message);
    let finished = conclude(&bench, &mut manager, vec![delivered()]).await;
    assert_eq!(finished.news, [(0, Status::Delivered)]);
}

/// The oldest segment holds this one message that is still wanted, and much is dead behind it.
async fn mostly_dead(bench: &Bench) -> (Manager, MessageId) {
    let (id, location, message) = bench
        .message(&["user@example.org"], "Subject: first\r\n\r\n")
        .await;
    for _ in 0..20 {
        bench.message(&["done@example.org"], &"x".repeat(2000)).await;
    }
    let (mut manager, _) = manager(bench);
    manager.insert(id, location, &message);
    (manager, id)
}

/// One step of compaction, and what came of the message.
async fn step(bench: &Bench, manager: &mut Manager) -> Command {
    let settled = bench.worker.store.settled_below();
    compaction::step(&mut manager.schedule, &bench.worker, &manager.sender, settled);
    let command = tokio::time::timeout(Duration::from_mins(1), manager.commands.recv());
    command.await.expect("no word of the message").unwrap()
}

#[tokio::test]
async fn a_message_whose_carrying_ended_by_a_fault_rests_again() {
    let bench = Bench::new(Events::to("queue", Breaks("carried over")), &[60]);
    let (mut manager, id) = mostly_dead(&bench).await;
    bench.damage("Subject: first");
    let carried = step(&bench, &mut manager).await;
    assert!(matches!(carried, Command::Carried(of, None) if of == id));
    manager.command(carried);
    assert!(manager.schedule.begin_change(id, true).is_ok());
}

#[tokio::test]
async fn a_message_that_cannot_be_read_does_not_keep_its_segment() {
    let bench = Bench::new(silent(), &[0]);
    let (mut manager, id) = mostly_dead(&bench).await;
    bench.damage("Subject: first");
    // Nobody has tried it, nor will: it is held.
    assert!(manager.schedule.begin_change(id, true).is_ok());
    manager.schedule.end_change(id, Vec::new(), Some(true));
    for _ in 0..2 {
        let carried = step(&bench, &mut manager).await;
        assert!(matches!(carried, Command::Carried(_, None)));
        manager.command(carried);
    }
    let Command::GivenUp(changed) = step(&bench, &mut manager).await else {
        panic!("it is not given up")
    };
    assert_eq!(changed.news, [(0, Status::Failed)]);
    let dsn = changed.queued.as_ref().expect("its sender is not told");
    assert_eq!(dsn.message.envelope.recipients[0].address, "app@example.org");
    let stored = bench.worker.store.message(dsn.location).unwrap();
    let text = String::from_utf8(stored.read(0, 1 << 20).unwrap()).unwrap();
    assert!(text.contains("Status: 5.3.0\r\n") && text.contains("was damaged on the disk"));
    manager.command(Command::GivenUp(changed));
    assert!(manager.schedule.entry(id).is_none());
    let settled = bench.worker.store.settled_below();
    compaction::step(&mut manager.schedule, &bench.worker, &manager.sender, settled);
    let aside = std::fs::read_dir(bench.directory.path()).unwrap();
    let aside = aside.filter(|entry| entry.as_ref().unwrap().path().extension() == Some("damaged".as_ref()));
    assert_eq!((bench.worker.store.oldest(2), aside.count()), (None, 1));
}

/// Whoever hears that a message was damaged hears that it was there.
#[tokio::test]
async fn of_what_is_in_quarantine_nobody_hears_even_where_it_is_lost() {
    let bench = Bench::new(silent(), &[0]);
    let (mut manager, id) = mostly_dead(&bench).await;
    bench.damage("Subject: first");
    let bad = Standing::Bad {
        reason: "virus: x".into(),
    };
    bench.worker.hold.place(id, Provenance::Public, 1, bad);
    assert!(manager.schedule.begin_change(id, true).is_ok());
    manager.schedule.end_change(id, Vec::new(), Some(true));
    for _ in 0..2 {
        let carried = step(&bench, &mut manager).await;
        manager.command(carried);
    }
    let Command::GivenUp(changed) = step(&bench, &mut manager).await else {
        panic!("it is not given up")
    };
    assert_eq!(changed.news, [(0, Status::Failed)]);
    assert!(changed.queued.is_none(), "its sender is told");
    manager.command(Command::GivenUp(changed));
    assert!(manager.schedule.entry(id).is_none() && bench.worker.hold.standing(id).is_none());
}

#[tokio::test]
async fn a_message_whose_envelope_cannot_be_read_either_ends_with_a_word_to_the_operator() {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let bench = Bench::new(Events::to("queue", journal.reopen().unwrap()), &[0]);
    let (mut manager, id) = mostly_dead(&bench).await;
    bench.damage("Subject: first");
    bench.damage("app@example.org");
    for _ in 0..3 {
        let command = step(&bench, &mut manager).await;
        manager.command(command);
    }
    assert!(manager.schedule.entry(id).is_none());
    let told = std::fs::read_to_string(journal.path()).unwrap();
    assert!(told.contains("nobody can be told") && told.contains(&id.to_string()));
}

#[tokio::test]
async fn what_can_be_read_again_is_not_given_up() {
    let bench = Bench::new(silent(), &[0]);
    let (id, location, _) = bench.message(&["user@example.org"], "Subject: x\r\n\r\n").await;
    let for_good = |read: Result<_, Lost>| read.is_err_and(|lost: Lost| lost.for_good);
    for _ in 0..2 {
        bench.damage("Subject");
        let read = bench.worker.read(id, location).await.unwrap();
        assert!(!for_good(read.content));
        bench.damage("Rubject");
        assert!(bench.worker.read(id, location).await.unwrap().stored().is_some());
    }
    bench.damage("Subject");
    assert!(!for_good(bench.worker.read(id, location).await.unwrap().content));
}

#[tokio::test]
async fn a_message_from_the_future_is_late_and_given_up_in_time() {
    let year = 31_536_000_000;
    let bench = Bench::new(silent(), &[60, 300]);
    let (mut manager, _door) = manager(&bench);
    let queue = bench.worker.queue.clone();
    let (before, mut future) = (now(), message(&["user@example.org"], 0));
    future.arrived = before + year;
    let location = Location {
        segment: 1,
        offset: 0,
        meta_length: 1,
        body_length: 1,
    };
    manager.insert(MessageId(1), location, &future);
    let arrived = |manager: &Manager, id| manager.schedule.entry(MessageId(id)).unwrap().arrived;
    assert!((before..=now()).contains(&arrived(&manager, 1)));
    // Another start does not make it young again: it was tried four times.
    future.statuses = vec![Status::Due {
        at: before,
        attempts: 4,
        reply: "451 4.4.1 no".into(),
        warned: false,
    }];
    manager.insert(MessageId(2), location, &future);
    assert!(arrived(&manager, 2) <= now() - 960_000);
    // The clock is put back while the process runs.
    manager.tick(before + 1);
    manager.tick(before - 3_600_000);
    assert_eq!(arrived(&manager, 1), before - 3_600_000);
    let first = manager.looks.iter().map(|Reverse((at, _))| *at).min().unwrap();
    assert!(first <= queue.late_at(before - 3_600_000));
}

#[tokio::test]
async fn released_mail_is_tried_once_before_it_is_given_up() {
    let bench = Bench::new(silent(), &[1]);
    let (mut manager, _door) = manager(&bench);
    let location = Location {
        segment: 1,
        offset: 0,
        meta_length: 1,
        body_length: 1,
    };
    let down = |until| Reach::Unreachable("451 4.4.1 no".into(), until);
    for id in 1..=7 {
        let mut message = message(&["user@example.org"], 0);
        message.held = id == 7;
        manager.insert(MessageId(id), location, &message);
    }
    let schedule = &mut manager.schedule;
    let jobs: Vec<Job> = std::iter::from_fn(|| schedule.next(10)).collect();
    for job in jobs {
        schedule.finish(job.id, job.to, Vec::new(), &down(100));
    }
    let given_up = |schedule: &Schedule, id| {
        let entry = schedule.entry(MessageId(id)).unwrap();
        !super::super::notice::expired(schedule, entry, 1).is_empty()
    };
    assert!(given_up(schedule, 6));
    for change in ["release", "retry", "scan"] {
        assert!(given_up(schedule, 7), "{change}");
        match change {
            "release" => {
                assert!(schedule.begin_change(MessageId(7), false).is_ok());
                schedule.end_change(MessageId(7), Vec::new(), Some(false));
            }
            "retry" => schedule.retry(MessageId(7), 50),
            _ => schedule.let_go(MessageId(7), location),
        }
        assert!(!given_up(schedule, 7), "{change}: it expires untried");
        let probe = schedule.next(100).unwrap();
        assert_eq!(
            probe.id,
            MessageId(7),
            "{change}: it is not the next that is tried"
        );
        schedule.finish(probe.id, probe.to, Vec::new(), &down(100));
    }
    assert!(given_up(schedule, 7));
}

#[tokio::test]
async fn a_list_asks_the_manager_for_little_at_a_time() {
    let bench = Bench::new(silent(), &[60]);
    let (_, location, message) = bench.message(&["user@example.org"], "x").await;
    let (mut manager, door) = manager(&bench);
    for id in 1..=450 {
        manager.insert(MessageId(id), location, &message);
    }
    let (asked, mut requests) = mpsc::unbounded_channel();
    let answering = tokio::spawn(async move {
        let mut most_at_once = 0;
        while let Some(command) = requests.recv().await {
            if let Command::List(_, most, _) = &command {
                most_at_once = most_at_once.max(*most);
            }
            manager.command(command);
        }
        most_at_once
    });
    let query = Query {
        worker: &bench.worker,
        manager: &asked,
    };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let Some(Reply::QueueList { messages, next, .. }) =
            query.list(Filter::default(), after, Some(430)).await
        else {
            panic!("no list")
        };
        seen.extend(messages.into_iter().map(|message| message.id));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let all: Vec<String> = (1..=450).map(|id| MessageId(id).to_string()).collect();
    assert_eq!(seen, all);
    drop((asked, door));
    assert!(
        answering.await.unwrap() <= 100,
        "the manager is held up by a list"
    );
}

/// Whoever has much to carry over does not wait for the next look after each step.
#[tokio::test]
async fn compaction_goes_on_until_the_spool_is_small() {
    let bench = Bench::new(silent(), &[60]);
    let (mut manager, _door) = manager(&bench);
    for _ in 0..14 {
        let (id, location, message) = bench.message(&["user@example.org"], "waits").await;
        manager.insert(id, location, &message);
    }
    // What is done: in the spool, and not in the schedule.
    for _ in 0..100 {
        bench.message(&["user@example.org"], "done").await;
    }
    let store = bench.worker.store.clone();
    let full = store.octets();
    manager.compact();
    assert!((1..14).contains(&manager.carrying), "one step takes one segment");
    while manager.carrying > 0 {
        let command = manager.commands.recv().await.unwrap();
        manager.command(command);
        manager.compact_on();
    }
    assert!(
        store.octets() < full / 3,
        "{} of {full} octets are left",
        store.octets()
    );
    let read = manager
        .schedule
        .entries(None)
        .map(|(_, entry)| store.message(entry.location).is_ok());
    assert_eq!(read.filter(|readable| *readable).count(), 14);
}
