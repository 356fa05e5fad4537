//! Contract suites and fuzz targets.

pub mod contract;
pub mod fuzz;
