//! The durability of the spool, proved without the page cache.
//!
//! [`workload`] (in it each [`process`]) drives the real store, writer, schedule, compaction and recording of outcomes against a directory whose
//! operations [`recorder`] writes down. After each operation [`model`] builds disks that a power cut may leave there, the
//! real recovery reads them, and [`ledger`] says what should be found. `docs/durability.md` says what is modelled.
//!
//! Environment: `PROOF_POINTS` (crash points, at least), `PROOF_SEED` with `PROOF_POINT` (replays one crash point).

#![allow(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

mod ledger;
mod log;
mod model;
mod mutants;
mod process;
mod proof;
mod recorder;
mod workload;

use proof::{Plan, examine};

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

#[test]
fn whatever_a_power_cut_leaves_nothing_acknowledged_is_lost() {
    let wanted = number("PROOF_POINTS").unwrap_or(800);
    let mut plan = Plan {
        only: number("PROOF_POINT"),
        ..Plan::default()
    };
    let mut total = proof::Totals::default();
    let mut seed = number("PROOF_SEED").unwrap_or(1);
    loop {
        plan.seed = seed;
        examine(&plan, &mut total);
        println!("seed {seed}: {} of {wanted} crash points", total.points);
        seed += 1;
        if plan.only.is_some() || total.points >= wanted {
            break;
        }
    }
    println!("proof: {total}");
    for failure in total.failures.iter().take(10) {
        println!("{failure}");
    }
    assert!(total.failures.is_empty(), "{} faults", total.failures.len());
    // A proof that looked at nothing proves nothing.
    if plan.only.is_none() {
        assert!(total.acknowledged > 0 && total.allowed > 0 && total.second > 0 && total.indexed > 0);
        let counts = [
            total.kills,
            total.carried,
            total.judged,
            total.removed,
            total.refused,
        ];
        assert!(
            counts.iter().all(|count| *count > 0),
            "kills, carried, judged, removed, refused: {counts:?}"
        );
    }
}

#[test]
fn the_same_seed_records_the_same_operations() {
    let shape = |seed| workload::record(seed).shape();
    assert_eq!(shape(5), shape(5));
    assert_ne!(shape(5), shape(6));
}
