//! Where replicas and leaders should be, from what meta says and what the nodes say of themselves.
//! Pure: the controller of the cluster crate reads rows, asks nodes and acts.
//!
//! ```text
//!  rows of meta ──▶ Plan ──▶ next_row   a replica is allocated, confirmed, given up
//!  layout ────────┘   ▲      members    who votes, who learns
//!  answers of nodes ──┘      left       what left its group; what stands by from now on
//!                            next_move  one replica leaves, another comes
//!                            lacks      what the layout still waits for
//!                            copy_holders, Copies, SiteBoard: how far the standby has a group
//! ```

mod answers;
mod balance;
mod board;
mod copies;
mod course;
mod lacks;
mod layout;
mod leaders;
mod plan;

#[cfg(test)]
mod change_test;

pub use answers::Answers;
pub use board::{SiteBoard, SitePosition};
pub use copies::{Copies, CopyHolders, CopyQuestion, Sight};
pub use course::Course;
pub use lacks::Lack;
pub use layout::Layout;
pub use leaders::stand_in;
pub use plan::{Members, Plan};
