//! What another site holds of the groups: how far records are safe from the loss of this one.

use dtm_types::GroupId;

/// What this node was told last of the site that stands by.
pub trait SiteCopies: Send + Sync {
    /// Whether the layout has a site that stands by.
    fn has_standby(&self) -> bool;

    /// Through which index of a group's log a majority of its replicas at that site has everything on
    /// disk; 0 = not known (yet). Never more than is so; it may fall when another leader begins or
    /// replicas are replaced, and what was told before stays true. `None` where no other site holds
    /// copies of the group. Cheap: asked with each ack.
    fn through(&self, group: GroupId) -> Option<u64>;
}

/// There is one site.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneSite;

impl SiteCopies for OneSite {
    fn has_standby(&self) -> bool {
        false
    }

    fn through(&self, _: GroupId) -> Option<u64> {
        None
    }
}
