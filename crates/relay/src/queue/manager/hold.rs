//! The manager's part of the hold: it lends messages to those who scan, and has what they found, or time brings, written, one
//! record of a message at a time.

use std::time::SystemTime;

use postern_control::Change;

use super::{Command, Manager};
use crate::events::unix_millis;
use crate::queue::change::Order;
use crate::queue::hold::{Asker, Found, Judged, Judgement, Means, means};
use crate::queue::notice::GivenUp;
use crate::queue::provenance::Provenance;
use crate::queue::schedule::{Entry, Unready};
use crate::spool::hold::Standing;
use crate::spool::{Location, MessageId};

impl Manager {
    /// The next message to scan, lent.
    pub(super) fn lend(&self, provenance: Provenance) -> Option<(MessageId, Location)> {
        let now = unix_millis(SystemTime::now());
        // The place of what is being written may be gone before it is read.
        let rests = |id| self.schedule.entry(id).is_none_or(Entry::rests);
        let id = self.worker.hold.lend(provenance, now, rests)?;
        let entry = self.schedule.entry(id);
        if entry.is_none() {
            self.worker.hold.forget(id);
        }
        entry.map(|entry| (id, entry.location))
    }

    /// Begins to write a judgement, or says why not.
    pub(super) fn judge(&mut self, judgement: Judgement) {
        let id = judgement.id;
        let (location, statuses) = match self.schedule.begin_change(id, true) {
            Ok(entry) => (entry.location, entry.statuses().cloned().collect()),
            Err(Unready::Soon) => return self.postponed_judgements.push(judgement),
            Err(Unready::Unknown | Unready::Tried) => {
                return judgement
                    .asker
                    .answer(Err("it is not in the hold any more".into()));
            }
        };
        let awaited = match self.worker.hold.standing(id) {
            Some(Standing::Unscanned { .. } | Standing::Expired) => judgement.found != Found::LetGo,
            Some(Standing::Bad { .. }) => judgement.found == Found::LetGo,
            None => false,
        };
        if !awaited {
            self.schedule.end_change(id, Vec::new(), None);
            return judgement
                .asker
                .answer(Err("nobody waits for its scan any more".into()));
        }
        self.under_way += 1;
        let (worker, sender) = (self.worker.clone(), self.sender.clone());
        tokio::spawn(async move {
            let (doer, found) = (worker.clone(), judgement.found.clone());
            let write =
                tokio::spawn(async move { doer.record_judgement(id, location, statuses, &found).await });
            let written = match write.await {
                Ok(written) => written.map_err(|error| error.to_string()),
                Err(fault) => Err(fault.to_string()),
            };
            let judged = Judged { judgement, written };
            let _ = sender.send(Command::Judged(Box::new(judged)));
        });
    }

    /// A judgement is on disk, or could not be written: then the message is as it was.
    pub(super) fn judged(&mut self, judged: Judged) {
        self.under_way -= 1;
        let Judged { judgement, written } = judged;
        let Judgement { id, found, asker } = judgement;
        let result = match written {
            Ok(place) => {
                self.schedule.end_change(id, Vec::new(), None);
                if let Some(place) = place {
                    self.schedule.let_go(id, place);
                }
                if let Asker::Operator(order) = &asker {
                    self.worker.tell_change(order);
                }
                self.worker.tell_judgement(id, &found);
                self.cannot_expire &= !matches!(asker, Asker::Time);
                Ok(())
            }
            Err(error) => {
                self.schedule.end_change(id, Vec::new(), None);
                let text = format!("what becomes of it in the hold could not be recorded: {error}");
                // A full disk meets all whose time is over, again and again; once is enough.
                let of_time = matches!(asker, Asker::Time);
                if !(of_time && std::mem::replace(&mut self.cannot_expire, of_time)) {
                    self.worker.warn_of(id, &text);
                }
                Err(text)
            }
        };
        asker.answer(result);
        self.again();
    }

    /// A message that is to be scanned could not be read for so long that it is given up. Its sender is told, as of any other: nothing
    /// bad is known of it.
    pub(super) fn lost(&mut self, id: MessageId) {
        let held = matches!(self.worker.hold.standing(id), Some(Standing::Unscanned { .. }));
        let Some(Ok(entry)) = held.then(|| self.schedule.begin_change(id, true)) else {
            return;
        };
        let (location, given_up) = (entry.location, GivenUp::lost(entry.waiting(), false));
        self.under_way += 1;
        let (worker, sender) = (self.worker.clone(), self.sender.clone());
        tokio::spawn(async move {
            let (giver, now) = (worker.clone(), unix_millis(SystemTime::now()));
            let work = async move { giver.give_up(id, location, given_up, now).await };
            let changed = worker.see_through(id, work).await;
            let _ = sender.send(Command::Changed(Box::new(changed)));
        });
    }

    /// Whoever has waited too long for a scanner comes into quarantine.
    pub(super) fn expire(&mut self, now: u64) {
        for id in self.worker.hold.expired(now) {
            // One that is just being written, or cannot be, is looked at again.
            self.worker.hold.look_later(id, now);
            if self.schedule.entry(id).is_some_and(Entry::rests) {
                self.judge(Judgement {
                    id,
                    found: Found::Stands(Standing::Expired),
                    asker: Asker::Time,
                });
            }
        }
    }

    /// An operator's change of a message in the hold, where it is another than for any message that is held. `None`: done with.
    pub(super) fn change_in_hold(&mut self, order: Order) -> Option<Order> {
        let Some(standing) = self.worker.hold.standing(order.id) else {
            return Some(Order {
                change: if order.change == Change::ReleaseBad {
                    Change::Release
                } else {
                    order.change
                },
                ..order
            });
        };
        match means(order.change, &standing) {
            Means::Same => return Some(order),
            Means::Refused(why) => drop(order.answer.send(Err(why))),
            Means::LetGo => self.judge(Judgement {
                id: order.id,
                found: Found::LetGo,
                asker: Asker::Operator(order),
            }),
            Means::ScanNow if !self.worker.hold.is_asked_for(order.id) => {
                let why = "no scanner asks for it: the instance that took it does not run, or has neither spam nor virus in \
                           its checks any more; add one there, or cancel the message";
                drop(order.answer.send(Err(why.into())));
            }
            Means::ScanNow if standing == Standing::Expired => {
                let since = unix_millis(SystemTime::now());
                self.judge(Judgement {
                    id: order.id,
                    found: Found::Stands(Standing::Unscanned { since }),
                    asker: Asker::Operator(order),
                });
            }
            Means::ScanNow => {
                self.worker.hold.scan_now(order.id);
                // It is not released by this.
                let order = Order {
                    change: Change::Retry,
                    ..order
                };
                self.worker.tell_change(&order);
                drop(order.answer.send(Ok(())));
            }
        }
        None
    }
}
