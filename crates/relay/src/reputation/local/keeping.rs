//! The tables as a snapshot takes them, and back.

use std::collections::HashSet;

use super::values::{Begun, Known, Messages, Of, Tiers, Wrong};
use super::{Kept, Local, NOT_BY_THE_CLOCK, Tables};
use crate::reputation::{HOUR, Key, LOGIN_WINDOW, Millis, PASS_WINDOW, RETRY_WINDOW, millis};

impl Local {
    /// What is remembered at `now`, and what of the earned seems to be over by then.
    pub fn tables(&self, now: Millis) -> Tables {
        let state = self.state();
        let nothing = |(): &()| [0, 0];
        let [addresses, networks, senders, recipients] = &state.messages;
        let messages = |tiers: &Tiers<Messages>| {
            all_kept(tiers.tables(), now, |messages| {
                [
                    messages.began,
                    u64::from(messages.this) << 32 | u64::from(messages.before),
                ]
            })
        };
        [
            kept(&state.waiting, now, |since| [*since, 0]),
            kept(&state.passed, now, nothing),
            kept(&state.clients, NOT_BY_THE_CLOCK, |proofs| [u64::from(*proofs), 0]),
            messages(addresses),
            messages(networks),
            messages(senders),
            messages(recipients),
            kept(&state.beginnings, NOT_BY_THE_CLOCK, |begun| {
                [begun.first, u64::from(begun.messages)]
            }),
            kept(&state.histories, NOT_BY_THE_CLOCK, nothing),
            all_kept(state.guesses.tables(), now, |wrong| {
                [wrong.forgiven, u64::from(wrong.passwords)]
            }),
            kept(&state.logins, NOT_BY_THE_CLOCK, nothing),
        ]
    }

    /// Takes in what was kept. What is known already is newer and stays; what would hold longer than anything put in
    /// now is cut to that.
    pub fn restore(&self, tables: Tables, now: Millis) {
        let mut state = self.state();
        let [
            waiting,
            passed,
            clients,
            addresses,
            networks,
            senders,
            recipients,
            beginnings,
            histories,
            guesses,
            logins,
        ] = tables;
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let (retry, pass, login) = (millis(RETRY_WINDOW), millis(PASS_WINDOW), millis(LOGIN_WINDOW));
        let forget = now;
        fill(&mut state.waiting, waiting, retry, (now, forget), |[since, _]| {
            since.min(now)
        });
        fill(&mut state.passed, passed, pass, (now, forget), |_| ());
        let forget = NOT_BY_THE_CLOCK;
        fill(&mut state.clients, clients, pass, (now, forget), |[proofs, _]| {
            low(proofs)
        });
        let lists = [addresses, networks, senders, recipients];
        for (tiers, list) in state.messages.iter_mut().zip(lists) {
            for (kept, expires) in live(list, 2 * millis(HOUR), (now, now)) {
                let [began, both] = kept.value;
                let value = Messages {
                    began,
                    this: low(both >> 32),
                    before: low(both),
                };
                if tiers.get(kept.key, now).is_none() {
                    tiers.insert(kept.key, value, value.are_many(), expires, now);
                }
            }
        }
        fill(
            &mut state.beginnings,
            beginnings,
            pass,
            (now, forget),
            |[first, messages]| Begun {
                first: first.min(now),
                messages: low(messages),
            },
        );
        fill(&mut state.histories, histories, pass, (now, forget), |_| ());
        for (kept, expires) in live(guesses, retry, (now, now)) {
            let [forgiven, passwords] = kept.value;
            let value = Wrong {
                passwords: low(passwords),
                forgiven,
            };
            if state.guesses.get(kept.key, now).is_none() {
                state
                    .guesses
                    .insert(kept.key, value, value.are_many(), expires, now);
            }
        }
        fill(&mut state.logins, logins, login, (now, forget), |_| ());
    }
}

fn kept<V>(table: &Of<V>, now: Millis, value: impl Fn(&V) -> [u64; 2]) -> Vec<Kept> {
    let live = table.iter().filter(|(_, expires)| *expires > now);
    live.map(|(known, expires)| Kept {
        key: known.key,
        expires,
        value: value(&known.value),
    })
    .collect()
}

fn all_kept<V>(tables: [&Of<V>; 2], now: Millis, value: impl Fn(&V) -> [u64; 2]) -> Vec<Kept> {
    let [seldom, often] = tables.map(|table| kept(table, now, &value));
    let seen_often: HashSet<Key> = often.iter().map(|kept| kept.key).collect();
    // What is left of those among the others is of before.
    let seldom = seldom.into_iter().filter(|kept| !seen_often.contains(&kept.key));
    seldom.chain(often).collect()
}

/// What has not expired at `forget`, and until when it holds, which is not longer than `longest` from now.
fn live(
    kept: Vec<Kept>,
    longest: Millis,
    (now, forget): (Millis, Millis),
) -> impl Iterator<Item = (Kept, Millis)> {
    let live = kept.into_iter().filter(move |kept| kept.expires > forget);
    live.map(move |kept| (kept, kept.expires.min(now + longest)))
}

fn fill<V>(
    table: &mut Of<V>,
    list: Vec<Kept>,
    longest: Millis,
    (now, forget): (Millis, Millis),
    value: impl Fn([u64; 2]) -> V,
) {
    for (kept, expires) in live(list, longest, (now, forget)) {
        if table.get(&kept.key, now).is_none() {
            let known = Known {
                key: kept.key,
                value: value(kept.value),
            };
            table.insert(&kept.key, known, expires, forget);
        }
    }
}
