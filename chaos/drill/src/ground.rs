//! What a drill's cluster stands on: loopback, or network namespaces where the drill breaks the
//! network; faulty disks and turned clocks where it needs them.
//!
//! ```text
//!  loopback    127.0.0.1:port for every node
//!  namespaces  n1 ── 198.18.0.1 ┐
//!              n2 ── 198.18.1.1 ┤ one router (wansim), a place a node: each way can be cut,
//!              n3 ── 198.18.2.1 ┤ delayed and made to lose by itself
//!              sources ─────────┘ and the operator
//! ```
//! Nodes of different sites of the drill's cluster are as far from each other as it says; sources
//! and the operator are near to all.
//! Owner of the state: this process; all of it is gone with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use dtm_faultfs::{FaultFs, Options};
use dtm_scenario::{Action, ClusterPlan, DiskFault, Drill, LinkQuality};
use dtm_wansim::nemesis::TurnedClock;
use dtm_wansim::{Namespace, NodeId, Plan, Ppm, Settings, SiteId, Wan};

use crate::node::Listen;

/// Below the range from which the system takes ports of outgoing connections: a node that is
/// started again finds its port free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Ports of nodes that have an address of their own.
const OWN_PORTS: [u16; 3] = [8443, 9443, 9444];
/// There nodes of other sites connect.
const SITES_PORT: u16 = 9445;

/// What a drill needs of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Network namespaces.
    pub(crate) network: bool,
    /// Disks that fail as they are told.
    pub(crate) disks: bool,
    /// Clocks of processes that can be turned.
    pub(crate) clocks: bool,
    /// Nodes that join in the course of it.
    pub(crate) joining: usize,
}

impl Needs {
    /// Of a drill's steps.
    pub(crate) fn of(drill: &Drill) -> Self {
        let mut needs = Self { network: drill.cluster.sites.len() > 1, ..Self::default() };
        for step in &drill.steps {
            match &step.action {
                Action::Cut { .. } | Action::Network(_) => needs.network = true,
                Action::Disk { fault: DiskFault::Lost, .. } => {}
                Action::Disk { .. } => needs.disks = true,
                Action::Clock { .. } => needs.clocks = true,
                Action::Replace(_) | Action::Join { .. } => needs.joining += 1,
                _ => {}
            }
        }
        needs
    }
}

/// What the cluster stands on.
pub(crate) struct Ground {
    /// Which it was built for.
    pub(crate) needs: Needs,
    home: PathBuf,
    wan: Option<Wan>,
    /// By number of the node.
    disks: BTreeMap<usize, FaultFs>,
    clocks: BTreeMap<usize, TurnedClock>,
    listens: Vec<Listen>,
    link: LinkQuality,
    /// The site of each node that stands.
    sites: BTreeMap<usize, usize>,
}

impl Ground {
    /// Builds it for the nodes of a cluster and those that join.
    ///
    /// # Errors
    /// What this machine lacks, and how to have it.
    pub(crate) fn build(home: &Path, needs: Needs, plan: &ClusterPlan) -> Result<Self> {
        let count = plan.nodes() + needs.joining;
        let mut ground = Self {
            needs,
            home: home.to_owned(),
            wan: None,
            disks: BTreeMap::new(),
            clocks: BTreeMap::new(),
            listens: Vec::new(),
            link: plan.link,
            sites: BTreeMap::new(),
        };
        if needs.network {
            // A place for each node, and one for the sources.
            let wan = Wan::build(Plan::new(1, &vec![1; count + 1])).context(
                "network namespaces (they take root, iproute2 and /dev/net/tun: \
                 ops/bootstrap.sh tests)",
            )?;
            let at = |at| IpAddr::V4(wan.address(NodeId::new(at, 0)));
            ground.listens = (0..count).map(|node| listen(at(node), OWN_PORTS)).collect();
            ground.wan = Some(wan);
        } else {
            let ports = free_ports(count * 3)?;
            let own = ports.chunks_exact(3).map(|ports| [ports[0], ports[1], ports[2]]);
            ground.listens = own.map(|own| listen(Ipv4Addr::LOCALHOST.into(), own)).collect();
        }
        for at in 0..count {
            if needs.disks {
                let disk = ground.mount(at).context(
                    "a disk that fails as it is told (it takes root, /dev/fuse and fuse3: \
                     ops/bootstrap.sh tests)",
                )?;
                ground.disks.insert(at, disk);
            }
            if needs.clocks {
                let clock = TurnedClock::new(&home.join(format!("n{}.clock", at + 1))).context(
                    "clocks that can be turned (they take libfaketime: ops/bootstrap.sh tests)",
                )?;
                ground.clocks.insert(at, clock);
            }
        }
        Ok(ground)
    }

    fn mount(&self, at: usize) -> Result<FaultFs> {
        let name = format!("n{}", at + 1);
        let (backing, mount) = (self.home.join(format!("{name}.disk")), self.home.join(&name));
        std::fs::create_dir_all(&backing)?;
        std::fs::create_dir_all(&mount)?;
        let seed = u64::try_from(at).unwrap_or_default();
        Ok(FaultFs::mount(Options::new(&backing, &mount, seed))?)
    }

    /// Where a node listens.
    ///
    /// # Errors
    /// When the drill joins more nodes than it said.
    pub(crate) fn listen(&self, at: usize) -> Result<Listen> {
        self.listens.get(at).copied().with_context(|| format!("there is no place for n{}", at + 1))
    }

    /// A node stands at a site from now on: as far from those of other sites as the lines say.
    ///
    /// # Errors
    /// When the drill joins more nodes than it said.
    pub(crate) fn stand(&mut self, at: usize, site: usize) -> Result<()> {
        let far = self.sites.iter().filter(|(_, other)| **other != site).map(|(node, _)| *node);
        let far: Vec<usize> = far.collect();
        self.sites.insert(at, site);
        if self.link == LinkQuality::default() || far.is_empty() {
            return Ok(());
        }
        let (wan, link) = (self.wan()?, self.link);
        for other in far {
            wan.change_both(Self::place(at), Self::place(other), |way| *way = quality(link))?;
        }
        Ok(())
    }

    /// Where nodes of other sites reach a node; None: the cluster has one site.
    pub(crate) fn sites_address(&self, at: usize, plan: &ClusterPlan) -> Option<SocketAddr> {
        let listen = self.listens.get(at).filter(|_| plan.sites.len() > 1)?;
        Some(SocketAddr::new(listen.grpc.ip(), SITES_PORT))
    }

    /// Where a process of a node runs, and by which clock.
    pub(crate) fn prepare(&self, at: usize, command: &mut Command) {
        if let Some(clock) = self.clocks.get(&at) {
            clock.prepare(command);
        }
        if let Some(namespace) = self.namespace(at) {
            namespace.prepare(command);
        }
    }

    /// Where sources and the operator are; None: where this process is.
    pub(crate) fn outside(&self) -> Option<&Namespace> {
        self.namespace(self.listens.len())
    }

    fn namespace(&self, at: usize) -> Option<&Namespace> {
        self.wan.as_ref().and_then(|wan| wan.namespace(NodeId::new(at, 0)).ok())
    }

    /// The network.
    ///
    /// # Errors
    /// When the drill did not need one.
    pub(crate) fn wan(&self) -> Result<&Wan> {
        self.wan.as_ref().context("this cluster stands on loopback")
    }

    /// The place of a node in the network.
    pub(crate) fn place(at: usize) -> SiteId {
        SiteId(at)
    }

    /// The disk of a node.
    ///
    /// # Errors
    /// When the drill did not need one.
    pub(crate) fn disk(&self, at: usize) -> Result<&FaultFs> {
        self.disks.get(&at).with_context(|| format!("n{} has a usual disk", at + 1))
    }

    /// The clock of a node.
    ///
    /// # Errors
    /// When the drill did not need one.
    pub(crate) fn clock(&self, at: usize) -> Result<&TurnedClock> {
        self.clocks.get(&at).with_context(|| format!("n{} lives by the machine's clock", at + 1))
    }

    /// What it is, for the report.
    pub(crate) fn describe(&self) -> String {
        let mut words = vec![if self.wan.is_some() { "network namespaces" } else { "loopback" }];
        if self.needs.disks {
            words.push("faultfs");
        }
        if self.needs.clocks {
            words.push("libfaketime");
        }
        words.join(", ")
    }
}

/// A way between two sites.
fn quality(link: LinkQuality) -> Settings {
    let ms = std::time::Duration::from_millis;
    Settings {
        jitter: ms(link.jitter_ms),
        bytes_per_second: link.bytes_per_second,
        ..Settings::wan(ms(link.delay_ms), Ppm::new(link.loss_ppm))
    }
}

fn listen(address: IpAddr, ports: [u16; 3]) -> Listen {
    let [https, grpc, peers] = ports.map(|port| SocketAddr::new(address, port));
    Listen { https, grpc, peers }
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let span = PORTS.end - PORTS.start;
    // Runs beside each other start at different places.
    let first = u16::try_from(std::process::id() * 61 % u32::from(span))?;
    let mut held = Vec::with_capacity(count);
    for step in 0..span {
        let port = PORTS.start + (first + step) % span;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((listener, port));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(_, port)| port).collect());
        }
    }
    bail!("no {count} free ports in {PORTS:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_says_what_it_needs_of_the_machine() {
        let needs = |name: &str| {
            let entry = dtm_scenario::BOOK.iter().find(|entry| entry.name == name).unwrap();
            Needs::of(&Drill::parse(entry.text).unwrap())
        };
        assert_eq!(needs("leader-kill"), Needs::default());
        assert!(needs("partition").network && needs("slow-disk").disks);
        assert!(needs("clock-jump").clocks);
        let loss = needs("node-loss");
        assert_eq!((loss.joining, loss.disks), (1, false), "a lost disk is only removed");
        assert!(needs("site-loss").network && !needs("leader-kill").network, "sites are apart");
    }
}
