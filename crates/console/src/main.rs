//! The appliance console.

fn main() {}
