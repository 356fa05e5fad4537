//! Who hears whom: packets of single nodes that a node drops on arrival, by nftables in the
//! node's own namespace. The sender is not told, as with a broken wire.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::{Error, Namespace};

/// The senders that one node does not hear.
#[derive(Debug, Default)]
pub(crate) struct Deaf {
    /// Those that are dropped now.
    blocked: BTreeSet<Ipv4Addr>,
    /// Those that were ever dropped: their counters stay.
    counted: BTreeSet<Ipv4Addr>,
}

impl Deaf {
    /// From now on packets of `sender` are dropped, or are not.
    pub(crate) fn set(
        &mut self,
        namespace: &Namespace,
        sender: Ipv4Addr,
        is_blocked: bool,
    ) -> Result<(), Error> {
        let changed =
            if is_blocked { self.blocked.insert(sender) } else { self.blocked.remove(&sender) };
        if !changed {
            return Ok(());
        }
        self.counted.insert(sender);
        namespace.tool("nft", &["-f", "-"], &self.rules()).map(drop)
    }

    /// Packets of `sender` that were dropped so far.
    pub(crate) fn dropped(&self, namespace: &Namespace, sender: Ipv4Addr) -> Result<u64, Error> {
        if !self.counted.contains(&sender) {
            return Ok(0);
        }
        let listed =
            namespace.tool("nft", &["list", "counter", "inet", TABLE, &counter(sender)], "")?;
        let mut words = listed.split_whitespace();
        words.find(|word| *word == "packets");
        words.next().and_then(|number| number.parse().ok()).ok_or(Error::Tool {
            program: "nft",
            message: "printed a counter without its packets".to_owned(),
        })
    }

    /// All rules anew, in one transaction; counters that exist keep their values.
    fn rules(&self) -> String {
        let mut text = format!("add table inet {TABLE}\n");
        for sender in &self.counted {
            let _infallible = writeln!(text, "add counter inet {TABLE} {}", counter(*sender));
        }
        let _infallible = writeln!(
            text,
            "add chain inet {TABLE} arriving {{ type filter hook input priority 0; }}\n\
             flush chain inet {TABLE} arriving"
        );
        for sender in &self.blocked {
            let name = counter(*sender);
            let _infallible = writeln!(
                text,
                "add rule inet {TABLE} arriving ip saddr {sender} counter name {name} drop"
            );
        }
        text
    }
}

const TABLE: &str = "wansim";

fn counter(sender: Ipv4Addr) -> String {
    let [.., site, host] = sender.octets();
    format!("from_{site}_{host}")
}
