//! Load generator and peer comparison: the same records over the same number of connections to
//! our own cluster, to its peers and to ceilings of the machine, with every acknowledged record
//! read back from every node. Figures are ratios inside one run; see `results/`.
//!
//! A new arm implements [`driver::Driver`] and [`driver::Source`] and is named in [`arms`].

pub mod arms;
pub mod ceilings;
pub mod clock;
pub mod driver;
pub mod error;
pub mod load;
pub mod peers;
pub mod process;
pub mod record;
pub mod report;
pub mod runner;
pub mod stats;
pub mod targets;
pub mod tree;
pub mod usage;
pub mod verify;
pub mod workload;
