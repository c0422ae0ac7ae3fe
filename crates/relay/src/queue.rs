//! The queue process: owns the spool, routes, signs, delivers.

pub mod config;
pub mod provenance;
pub mod reasons;
