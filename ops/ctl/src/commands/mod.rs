//! One module a noun.

pub(crate) mod agent;
pub(crate) mod approval;
pub(crate) mod availability;
pub(crate) mod backup;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod context;
pub(crate) mod dataset;
pub(crate) mod drill;
pub(crate) mod key;
pub(crate) mod ledger;
mod left;
mod lines;
pub(crate) mod operator;
mod promote;
pub(crate) mod publish;
pub(crate) mod quarantine;
pub(crate) mod records;
mod renew;
pub(crate) mod site;
pub(crate) mod source;
mod source_row;
mod split;
mod text;

pub use records::to_json as record_document;
pub use text::time;
