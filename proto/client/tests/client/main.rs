//! The SDK against an ingest server in this process that can be told to misbehave.
#![allow(clippy::unwrap_used)]

mod fake;
mod publisher;
