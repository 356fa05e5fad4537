//! A node of the third site of a stretched layout leads only where nobody else can: what it was
//! elected for it hands over at once, without waiting for the controller, which may be led here too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_placement::Layout;
use dtm_types::command::LayoutKind;
use dtm_types::{GroupId, NodeId};

use crate::group::Group;
use crate::registry::Registry;

/// Between two looks at what is led here.
const EVERY: Duration = Duration::from_millis(200);
/// After one in which nobody took a group over, or where this node may lead.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until it is dropped. `site` is where this node stands.
pub(crate) async fn watch(registry: Arc<Registry>, site: String) {
    loop {
        let layout = layout(&registry).unwrap_or_default();
        if layout.kind != LayoutKind::Stretched || !layout.is_arbiter(&site) {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let led = registry.groups().into_iter().filter(|group| group.is_leader());
        let site = site.as_str();
        let handed = led.map(|group| async move { group.hand_over(site).await });
        let all_went = futures::future::join_all(handed).await.into_iter().all(|went| went);
        tokio::time::sleep(if all_went { EVERY } else { PAUSE }).await;
    }
}

/// As meta is applied here.
fn layout(registry: &Registry) -> Option<Layout> {
    let meta = registry.group(GroupId::META)?;
    reads::layout(&*meta.store.freeze()).ok().map(Layout::from)
}

impl Group {
    /// Hands leadership to a voter of another site; whether one took it.
    async fn hand_over(&self, site: &str) -> bool {
        let (members, configs) = self.members();
        let voters: BTreeSet<u64> = configs.into_iter().flatten().collect();
        let is_elsewhere = |id: &u64| members.get(id).is_some_and(|peer| peer.site != site);
        if !voters.iter().any(|id| is_elsewhere(id) && self.is_caught_up(*id)) {
            return false;
        }
        let here = members.values().filter(|peer| peer.site == site);
        let here: BTreeSet<NodeId> = here.map(|peer| peer.node).collect();
        match self.give_up_leadership(&here).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(group = self.id.0, %error, "the third site still leads");
                false
            }
        }
    }
}
