//! Which sites there are, and who is in them.

use std::net::Ipv4Addr;

use crate::{Error, Settings};

/// A site, by its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub usize);

/// A node, by its site and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Where it stands.
    pub site: SiteId,
    /// From 0.
    pub index: usize,
}

impl NodeId {
    /// The node `index` of the site `site`.
    #[must_use]
    pub fn new(site: usize, index: usize) -> Self {
        Self { site: SiteId(site), index }
    }
}

/// One site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SitePlan {
    /// For people and for commands.
    pub name: String,
    /// How many nodes stand there.
    pub nodes: usize,
}

impl SitePlan {
    /// A site of this name with so many nodes.
    #[must_use]
    pub fn new(name: &str, nodes: usize) -> Self {
        Self { name: name.to_owned(), nodes }
    }
}

/// The whole network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides every fault of every link.
    pub seed: u64,
    /// At most [`Plan::SITES_MAX`].
    pub sites: Vec<SitePlan>,
    /// What each direction between two sites does at first.
    pub between_sites: Settings,
    /// Bytes of a packet, 576 to 9,000, within and between sites.
    pub mtu: u32,
}

impl Plan {
    /// Sites at most.
    pub const SITES_MAX: usize = 16;
    /// Nodes of a site at most.
    pub const NODES_MAX: usize = 64;

    /// Sites of so many nodes, named a, b, c and so on, with perfect wires and an MTU of 1,500.
    #[must_use]
    pub fn new(seed: u64, nodes: &[usize]) -> Self {
        let names = ('a'..='z').map(String::from);
        let sites = names.zip(nodes).map(|(name, &nodes)| SitePlan { name, nodes }).collect();
        Self { seed, sites, between_sites: Settings::default(), mtu: 1_500 }
    }

    /// Whether there is room for it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.sites.is_empty() || self.sites.len() > Self::SITES_MAX {
            return Err(Error::Plan("1 to 16 sites"));
        }
        if self.sites.iter().any(|site| site.nodes == 0 || site.nodes > Self::NODES_MAX) {
            return Err(Error::Plan("1 to 64 nodes in a site"));
        }
        if !(576..=9_000).contains(&self.mtu) {
            return Err(Error::Plan("an MTU of 576 to 9,000 bytes"));
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 32
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        for (at, site) in self.sites.iter().enumerate() {
            if !is_name(&site.name) {
                return Err(Error::Plan("names of sites of small letters and dashes"));
            }
            if self.sites[..at].iter().any(|other| other.name == site.name) {
                return Err(Error::Plan("each site a name of its own"));
            }
        }
        Ok(())
    }
}

/// The network of all sites, for routes.
pub(crate) const RANGE: &str = "198.18.0.0/15";

/// The address of a node. A plan that was checked has room for it.
pub(crate) fn address(node: NodeId) -> Ipv4Addr {
    let octet = |at: usize| u8::try_from(at).expect("a plan is checked before it is built");
    Ipv4Addr::new(198, 18, octet(node.site.0), octet(node.index + 1))
}

/// The router's address in a site.
pub(crate) fn gateway(site: SiteId) -> Ipv4Addr {
    let octet = u8::try_from(site.0).expect("a plan is checked before it is built");
    Ipv4Addr::new(198, 18, octet, 254)
}

/// The site that an address belongs to.
pub(crate) fn site_of(address: [u8; 4], sites: usize) -> Option<SiteId> {
    let [198, 18, site, _] = address else { return None };
    Some(SiteId(usize::from(site))).filter(|site| site.0 < sites)
}
