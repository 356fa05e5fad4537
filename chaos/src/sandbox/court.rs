//! Judges a sandbox: every checker over everything that its nodes hold.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use dtm_types::GroupId;

use super::{GROUP, Load, Sandbox};
use crate::checker::{Breach, Nonces, Origins, Property, Verdict, compare, explain};

/// How long the nodes have to find a leader after the last fault.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

/// Keeps what was seen of the ledgers while the scenario goes on.
#[derive(Debug, Default)]
pub struct Court {
    origins: Origins,
}

/// What was found.
#[derive(Debug)]
pub struct Findings {
    /// ING-1 to ING-4.
    pub verdict: Verdict,
    /// The others.
    pub breaches: Vec<Breach>,
    /// Nodes that would not start.
    pub refused_starts: Vec<String>,
    /// Nodes that run and gave no view of a group at the end, and why: they were not judged.
    pub unread: Vec<String>,
}

impl Findings {
    /// Every property that is broken.
    pub fn broken(&self) -> BTreeSet<Property> {
        let others = self.breaches.iter().map(Breach::property);
        self.verdict.broken().into_iter().chain(others).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        self.breaches.iter().try_for_each(|breach| writeln!(f, "{breach}"))?;
        self.refused_starts.iter().try_for_each(|start| writeln!(f, "not started: {start}"))?;
        self.unread.iter().try_for_each(|node| writeln!(f, "not read: {node}"))
    }
}

impl Court {
    /// Looks at the ledgers as they are now: later ones must be consistent with them.
    pub async fn look(&mut self, sandbox: &Sandbox) {
        for group in [GroupId::META, GROUP] {
            sandbox.images(group).await.0.iter().for_each(|image| self.origins.ledger(image));
        }
    }

    /// Reads everything back from every node that serves, and judges it.
    ///
    /// # Panics
    /// When meta holds a bundle that cannot be applied.
    pub async fn judge(mut self, sandbox: &Sandbox, mut load: Load) -> Findings {
        let served = [GroupId::META, GROUP].map(|group| sandbox.is_served(group, SERVED_WITHIN));
        let [meta, ingest] = served;
        // Where nobody serves, nothing is read back: everything acked is lost then.
        let _ = tokio::join!(meta, ingest);
        let (meta, mut unread) = sandbox.images(GroupId::META).await;
        let (ingest, more) = sandbox.images(GROUP).await;
        unread.extend(more);
        let mut breaches = Vec::new();
        let mut nonces = Nonces::default();
        for images in [&meta, &ingest] {
            breaches.extend(compare(images));
            images.iter().for_each(|image| self.origins.ledger(image));
            images.iter().for_each(|image| nonces.image(image));
        }
        for image in &meta {
            breaches.extend(explain(image).expect("committed bundles can be applied"));
        }
        breaches.extend_from_slice(self.origins.breaches());
        breaches.extend_from_slice(nonces.breaches());
        breaches.extend_from_slice(sandbox.promises().lock().breaches());
        let refused_starts = sandbox.refused_starts();
        Findings { verdict: load.read_back(&ingest), breaches, refused_starts, unread }
    }
}
