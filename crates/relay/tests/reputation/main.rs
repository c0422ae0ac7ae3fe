//! What is remembered about strangers: every back end answers alike, and nothing is forgotten by a restart.

mod conformance;
mod node;
mod restart;
mod server;
mod shared;
