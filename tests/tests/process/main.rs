//! Real clusters: three `dtm` processes on loopback, killed, paused and read back.
//!
//! ```text
//!  Cluster   three nodes, their folders and logs; one cluster at a time
//!  Load      streams at a steady pace, each with the history of what was sent
//!  readback  every node's records against that history (ING-1 to ING-4), and the quarantine
//!  Wires     the network between the nodes, where a test cuts it
//!  Agent     `dtm agent` as a process; python: the example client
//!  faulty    nodes with a planted bug
//!  log_file  blocks of a node's log, to damage them
//! ```
//! Each wait looks at a state again and again until it holds or a bound passes. `DTM_LONG=1` makes
//! the long form of the tests.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

mod agent;
mod agreed;
mod approvals;
mod availability;
mod backup;
mod bad_config;
mod bad_frames;
mod bad_records;
mod by_hand;
mod certificates;
mod cluster;
mod clustering;
mod config_cluster;
mod connections;
mod damage;
mod detach;
mod disk_full;
mod disturbance;
mod drained;
mod faulty;
mod gaps;
mod hostile;
mod https;
mod isolation;
mod keys;
mod kills;
mod labels;
mod layout;
mod live;
mod load;
mod log_file;
mod matrix;
mod membership;
mod node;
mod odd_streams;
mod own_limits;
mod promotion;
mod publish;
mod python;
#[path = "../../../proto/client/tests/client/python_env.rs"]
mod python_env;
mod readback;
mod refusals;
mod request_ids;
mod resend;
mod rewinds;
mod rules;
mod secrecy;
mod source_certificate;
mod sources;
mod strangers;
mod survival;
mod tour;
mod unfinished;
mod wait;
mod wires;
