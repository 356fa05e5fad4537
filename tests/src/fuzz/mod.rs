//! Fuzz targets: whatever the bytes are, nothing panics, hangs or breaks a promise. Each is a plain
//! function; `drive` feeds it the kept corpus and seeded mutations of it.
//!
//! `make test` gives each two seconds under a fixed seed, `make fuzz` as long as one likes. A
//! libfuzzer wrapper needs no more than to call [`TARGETS`].

pub mod drive;
mod formats;
mod log;
mod record;
mod session;

/// A target's name, what it runs, and inputs to begin with beside the kept ones.
pub struct Target {
    /// Name of the folder of its corpus.
    pub name: &'static str,
    /// Runs one input; panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that reach deep.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: record::record, seeds: record::record_seeds },
    Target { name: "dossier_code", run: record::dossier_code, seeds: record::dossier_seeds },
    Target { name: "definition", run: record::definition, seeds: record::definition_seeds },
    Target { name: "bundle", run: formats::bundle, seeds: formats::bundle_seeds },
    Target { name: "header", run: formats::header, seeds: formats::header_seeds },
    Target { name: "snapshot", run: formats::snapshot, seeds: formats::snapshot_seeds },
    Target { name: "log", run: log::open, seeds: log::seeds },
    Target { name: "session", run: session::publish, seeds: session::seeds },
];
