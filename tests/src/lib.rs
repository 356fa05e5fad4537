//! Contract suites, sandboxes, process clusters.

pub mod contract;
