//! The mail daemon.

fn main() {}
