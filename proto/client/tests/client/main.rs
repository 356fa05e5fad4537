//! The SDK against an ingest server in this process that can be told to misbehave.
#![allow(clippy::unwrap_used)]

mod agent;
mod failover;
mod fake;
mod publish;
mod publisher;
mod python;
mod python_env;
mod reader;
mod routes;
mod speed;
mod spool;
