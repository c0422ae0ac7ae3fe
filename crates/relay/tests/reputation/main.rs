//! What is remembered about strangers: every back end answers alike, and nothing is forgotten by a restart; and
//! what a node tells of itself in figures.

mod conformance;
mod figures;
mod merged;
mod node;
mod restart;
mod server;
mod shared;
