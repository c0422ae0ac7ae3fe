//! What the spool has promised up to some point, and whether a recovery kept it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use postern_relay::handover::Notify;
use postern_relay::queue::hold::Found;
use postern_relay::queue::provenance::Provenance;
use postern_relay::spool::body::Stored;
use postern_relay::spool::disk::Directory;
use postern_relay::spool::recovery::{LiveMessage, Recovered, recover};
use postern_relay::spool::{Digest, MessageId, Status, StoredMessage};

use crate::log::{Note, Offered, Tried};

/// A recipient.
#[derive(Debug, Clone, Default)]
struct Fate {
    /// Some attempt ended for good, whether that was recorded or not.
    done: bool,
    /// And its sender is to be told.
    failed: bool,
    /// The news whose recording has returned.
    recorded: Option<Status>,
}

#[derive(Debug, Clone)]
struct Known {
    offered: Arc<Offered>,
    acknowledged: bool,
    fates: Vec<Fate>,
    /// What may have become of it in the hold, and what has, durably.
    judging: Vec<Found>,
    judged: Option<Found>,
}

/// All promises so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    messages: BTreeMap<MessageId, Known>,
    /// Messages that were tried before they had been scanned.
    unscanned: Vec<String>,
}

/// What one recovery made of the promises.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// Acknowledged, not done, and not found.
    pub(crate) lost: Vec<String>,
    /// Found with another envelope or content.
    pub(crate) altered: Vec<String>,
    /// Done, recorded, and found as not done.
    pub(crate) redelivered: Vec<String>,
    /// Given up, and nobody is told.
    pub(crate) untold: Vec<String>,
    /// Nobody ever handed it over; or it counts fewer attempts than were recorded; or recovery refused.
    pub(crate) wrong: Vec<String>,
    /// Recipients done, whose outcome was not recorded yet, and that are found as not done.
    pub(crate) allowed: u64,
    /// Segments that were read by their index.
    pub(crate) indexed: u64,
}

impl Findings {
    pub(crate) fn faults(&self) -> Vec<String> {
        let kinds = [
            ("lost", &self.lost),
            ("altered", &self.altered),
            ("redelivered after a durable outcome", &self.redelivered),
            ("nobody told", &self.untold),
            ("wrong", &self.wrong),
        ];
        let line = |kind: &'static str| move |fault: &String| format!("{kind}: {fault}");
        kinds
            .into_iter()
            .flat_map(|(kind, faults)| faults.iter().map(line(kind)))
            .collect()
    }
}

impl Ledger {
    pub(crate) fn apply(&mut self, note: &Note) {
        match note {
            Note::Offered(id, offered) => {
                let known = Known {
                    offered: offered.clone(),
                    acknowledged: false,
                    fates: vec![Fate::default(); offered.message.envelope.recipients.len()],
                    judging: Vec::new(),
                    judged: None,
                };
                self.messages.entry(*id).or_insert(known);
            }
            Note::Acknowledged(id) => self.known(*id).acknowledged = true,
            Note::Judging(id, found) => self.known(*id).judging.push(found.clone()),
            Note::Judged(id, found) => self.known(*id).judged = Some(found.clone()),
            Note::Tried(id, results) => {
                if self.known(*id).is_unscanned() {
                    self.unscanned.push(format!("{id}: tried unscanned"));
                }
                let known = self.known(*id);
                let told = !known.offered.message.envelope.reverse_path.is_empty() && !known.may_be_let_go();
                // Whoever is tried again was found as not done: what an earlier attempt brought is gone for good.
                for (index, tried) in results {
                    let fate = &mut known.fates[*index as usize];
                    fate.done = *tried != Tried::Deferred;
                    fate.failed = *tried == Tried::Failed && told;
                }
            }
            Note::Recorded(id, news) => {
                for (index, status) in news {
                    self.known(*id).fates[*index as usize].recorded = Some(status.clone());
                }
            }
            Note::Carrying(_) | Note::Killed => {}
        }
    }

    fn known(&mut self, id: MessageId) -> &mut Known {
        self.messages.get_mut(&id).unwrap()
    }

    pub(crate) fn knows(&self, id: MessageId) -> bool {
        self.messages.contains_key(&id)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.messages.values().filter(|known| known.acknowledged).count() as u64
    }

    /// Recovers the spool in `directory` and compares.
    pub(crate) fn check(&self, directory: &Path) -> Findings {
        let mut findings = Findings {
            wrong: self.unscanned.clone(),
            ..Findings::default()
        };
        let mut disk = Directory::open(directory).unwrap();
        let recovered = match recover(directory, &mut disk) {
            Ok(recovered) => recovered,
            Err(error) => {
                findings.wrong.push(error.to_string());
                return findings;
            }
        };
        findings.indexed = recovered.indexed;
        // Notifications that will still go out, or have gone.
        let mut notices: Vec<Vec<u8>> = Vec::new();
        for (id, live) in &recovered.messages {
            let body = read(&recovered, live);
            match (self.messages.get(id), body) {
                (_, Err(error)) => findings.altered.push(format!("{id}: {error}")),
                (Some(known), Ok((message, body))) => {
                    findings.compare(*id, known, live, &message, &body);
                    if live.message.provenance == Provenance::Own {
                        notices.push(body);
                    }
                }
                // A notification on whose recording a power cut or a kill came.
                (None, Ok((_, body))) if self.explains(live) => notices.push(body),
                (None, Ok(_)) => findings.wrong.push(format!("{id}: nobody handed it over")),
            }
        }
        let gone = self.messages.values().filter(|known| {
            known.offered.message.provenance == Provenance::Own && known.fates.iter().all(|fate| fate.done)
        });
        notices.extend(gone.map(|known| known.offered.body.clone()));
        for (id, known) in self.messages.iter().filter(|(_, known)| known.acknowledged) {
            let live = recovered.messages.get(id);
            if live.is_none() && known.fates.iter().any(|fate| !fate.done) {
                findings.lost.push(format!("{id}"));
            }
            for (index, _) in known.fates.iter().enumerate().filter(|(_, fate)| fate.failed) {
                let again = live.is_some_and(|live| !live.message.statuses[index].is_final());
                let address = known.offered.message.envelope.recipients[index]
                    .address
                    .as_bytes();
                let names = |notice: &Vec<u8>| notice.windows(address.len()).any(|part| part == address);
                if !again && !notices.iter().any(names) {
                    findings.untold.push(format!("{id}, recipient {index}"));
                }
            }
        }
        findings
    }

    /// The same once more without indexes: by the octets the same is to be found.
    pub(crate) fn check_twice(&self, directory: &Path) -> Findings {
        let find = || recover(directory, &mut Directory::open(directory).unwrap());
        let by_index = find();
        let mut findings = self.check(directory);
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "index") {
                std::fs::remove_file(path).unwrap();
            }
        }
        if let (Ok(by_index), Ok(by_octets)) = (by_index, find())
            && by_index.messages != by_octets.messages
        {
            findings
                .wrong
                .push("by the indexes it is not the same as by the octets".into());
        }
        findings
    }

    /// Whether this is the notification of a message that failed.
    fn explains(&self, live: &LiveMessage) -> bool {
        let (envelope, own) = (&live.message.envelope, live.message.provenance == Provenance::Own);
        let mut failed = self
            .messages
            .values()
            .filter(|known| known.fates.iter().any(|fate| fate.failed));
        own && envelope.reverse_path.is_empty()
            && failed
                .any(|known| known.offered.message.envelope.reverse_path == envelope.recipients[0].address)
    }
}

impl Known {
    fn fields(&self) -> Option<&str> {
        self.judging.iter().find_map(|found| match found {
            Found::Clean(fields) => Some(fields.as_str()),
            Found::LetGo | Found::Stands(_) => None,
        })
    }

    /// It was taken into the hold, no scan has found it clean, and the operator has not let it go.
    fn is_unscanned(&self) -> bool {
        self.offered.message.hold.is_some() && self.fields().is_none() && !self.may_be_let_go()
    }

    fn may_be_let_go(&self) -> bool {
        self.judging.contains(&Found::LetGo)
    }

    /// The same envelope and content; with the header fields of its scan, once there may be any.
    fn is_found_as(&self, found: &Digest, stored: &StoredMessage, body: &[u8]) -> bool {
        let offered = &self.offered.message;
        let same = (&offered.brief().envelope, offered.provenance, offered.arrived)
            == (&found.envelope, found.provenance, found.arrived)
            && offered.statuses.len() == found.statuses.len();
        let as_offered = offered.envelope == stored.envelope && self.offered.body == body;
        let with_fields = |fields: &str| {
            let mut envelope = offered.envelope.clone();
            envelope.size += fields.len() as u64;
            let at = offered.hold.as_ref().map_or(0, |hold| hold.unscanned.fields);
            let (front, rest) = self.offered.body.split_at(usize::try_from(at).unwrap());
            envelope == stored.envelope && [front, fields.as_bytes(), rest].concat() == body
        };
        let let_go = || {
            let mut envelope = offered.envelope.clone();
            for recipient in &mut envelope.recipients {
                recipient.notify = Some(vec![Notify::Never]);
            }
            envelope == stored.envelope && self.offered.body == body
        };
        // Whoever is to hear of nothing must not be told after a power cut either.
        let silenced = self.judged == Some(Found::LetGo);
        same && (as_offered && !silenced
            || self.fields().is_some_and(with_fields)
            || self.may_be_let_go() && let_go())
    }

    /// What is wrong with how it stands in the hold.
    fn misplaced(&self, found: &Digest) -> Option<String> {
        self.offered.message.hold.as_ref()?;
        let standing = found.hold.as_ref().and_then(|hold| hold.standing.clone());
        let wrong = match (&standing, &self.judged) {
            (None, _) if self.is_unscanned() => "released unscanned",
            (Some(_), _) if !found.held => "not scanned and not held",
            (Some(_), Some(Found::Clean(_) | Found::LetGo)) => "held again after a durable release",
            // The operator's word to let it go was being written.
            (None, Some(Found::Stands(_))) if self.may_be_let_go() => return None,
            (found, Some(Found::Stands(recorded))) if found.as_ref() != Some(recorded) => {
                "not in quarantine after a durable verdict"
            }
            _ => return None,
        };
        Some(format!("{wrong}: {standing:?}, recorded {:?}", self.judged))
    }
}

impl Findings {
    fn compare(
        &mut self,
        id: MessageId,
        known: &Known,
        live: &LiveMessage,
        stored: &StoredMessage,
        body: &[u8],
    ) {
        let found = &live.message;
        if !known.is_found_as(found, stored, body) {
            self.altered.push(format!("{id}"));
            return;
        }
        self.wrong
            .extend(known.misplaced(found).map(|what| format!("{id}: {what}")));
        for (index, (fate, status)) in known.fates.iter().zip(&found.statuses).enumerate() {
            let at = || {
                format!(
                    "{id}, recipient {index}: {status:?}, recorded {:?}",
                    fate.recorded
                )
            };
            match (status, &fate.recorded) {
                (Status::Due { .. }, Some(recorded)) if recorded.is_final() => self.redelivered.push(at()),
                (
                    Status::Due { attempts, .. },
                    Some(Status::Due {
                        attempts: recorded, ..
                    }),
                ) if attempts < recorded => {
                    self.wrong.push(at());
                }
                (Status::Due { .. }, _) => self.allowed += u64::from(fate.done),
                (Status::Delivered | Status::Failed, _) if !fate.done => self.lost.push(at()),
                _ => {}
            }
        }
    }
}

/// A recovered message as it was written, and all of its content.
pub(crate) fn read(recovered: &Recovered, live: &LiveMessage) -> Result<(StoredMessage, Vec<u8>), String> {
    let segment = &recovered.segments[&live.location.segment];
    let stored = Stored::open(segment, live.location).map_err(|error| error.to_string())?;
    let body = stored.read(0, usize::MAX).map_err(|error| error.to_string())?;
    Ok((stored.message, body))
}
