//! Drills that operators can write: a TOML file says what is loaded, broken, waited for and healed,
//! and against which targets it is judged.
//!
//! Pure: no clock, files, processes or network. [`Drill::parse`] reads a text, [`run`] does its
//! steps through [`Hands`] by a [`Clock`], and [`Report`] says what was done, when, and what came
//! of it. Whatever happens in between, [`run`] takes back what was done, last first.

mod action;
mod book;
mod drill;
mod error;
mod fields;
mod hands;
mod latest;
mod page;
mod plan;
mod register;
mod report;
mod run;

pub use action::{Action, DiskFault, Network, Until, Who};
pub use book::{BOOK, BookEntry};
pub use drill::{Drill, Expect, Step, TargetId, Targets, Titles};
pub use error::Error;
pub use hands::{Clock, Done, Failure, Hands, Measured, UnixMs};
pub use latest::{Latest, LatestDrill, LatestTarget};
pub use plan::{ClusterPlan, Layout, LayoutAsked, LinkQuality, Site};
pub use register::{Due, Past, Standing, due};
pub use report::{Healing, Judged, Outcome, Report, StepReport, Verdict};
pub use run::run;
