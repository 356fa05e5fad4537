//! The whole network: builds it from a plan, steers it, takes it down.

use std::collections::HashMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use parking_lot::Mutex;

use crate::block::Deaf;
use crate::plan::{RANGE, address, gateway};
use crate::probe::{End, reach};
use crate::router::{Links, Router};
use crate::{Counts, Error, Namespace, NodeId, Plan, Running, Settings, SiteId, tun};

/// A network of sites; gone with everything in it when dropped.
pub struct Wan {
    plan: Plan,
    /// Stops before the devices and namespaces go.
    router: Router,
    nodes: HashMap<NodeId, Namespace>,
    sites: Vec<Namespace>,
    deaf: Mutex<HashMap<NodeId, Deaf>>,
}

impl Wan {
    /// Builds the network; when it returns, every node reaches every other.
    ///
    /// # Errors
    /// When the plan does not fit, or the machine does not let it happen ([`crate::can_run`]).
    pub fn build(plan: Plan) -> Result<Self, Error> {
        plan.check()?;
        let mut nodes = HashMap::new();
        let mut sites = Vec::new();
        let mut tuns = Vec::new();
        for (at, site) in plan.sites.iter().enumerate() {
            let at = SiteId(at);
            let (switch, tun) = switch(at, plan.mtu)?;
            for index in 0..site.nodes {
                let node = NodeId { site: at, index };
                nodes.insert(node, attach(&switch, node, plan.mtu)?);
            }
            sites.push(switch);
            tuns.push(tun);
        }
        let packet_bytes_max = usize::try_from(plan.mtu).expect("an MTU fits a usize");
        let perfect = Links::new(plan.seed, plan.sites.len());
        let router = Router::start(tuns, perfect, packet_bytes_max)
            .map_err(Error::kernel("start the router"))?;
        let wan = Self { plan, router, nodes, sites, deaf: Mutex::default() };
        wan.probe()?;
        // The probes are not part of what the seed decides.
        *wan.router.links().lock() = Links::new(wan.plan.seed, wan.sites.len());
        wan.heal()?;
        Ok(wan)
    }

    /// Every way works, and no probe is under way any more.
    fn probe(&self) -> Result<(), Error> {
        let site = |site: SiteId| End { namespace: &self.sites[site.0], address: gateway(site) };
        for (node, namespace) in &self.nodes {
            let node = (End { namespace, address: address(*node) }, site(node.site));
            reach(node.0, node.1)?;
            reach(node.1, node.0)?;
        }
        for (from, to) in pairs(self.sites.len()) {
            reach(site(from), site(to))?;
        }
        let carried = || {
            let counts = pairs(self.sites.len()).map(|(from, to)| self.counts(from, to));
            counts.map(|counts| counts.map(|counts| counts.delivered)).sum::<Result<u64, Error>>()
        };
        let mut before = None;
        while before != Some(carried()?) {
            before = Some(carried()?);
            std::thread::sleep(PROBES_GONE_AFTER);
        }
        Ok(())
    }

    /// What it was built from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All nodes, by site and place.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.sort_unstable();
        nodes
    }

    /// The site of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn site(&self, name: &str) -> Result<SiteId, Error> {
        let found = self.plan.sites.iter().position(|site| site.name == name);
        found.map(SiteId).ok_or_else(|| unknown("site", name))
    }

    /// A node by the name of its site and its number there from 1: `a1`.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<NodeId, Error> {
        let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let (site, number) = name.split_at(digits);
        let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let index = index.ok_or_else(|| unknown("node", name))?;
        let node = NodeId { site: self.site(site)?, index };
        self.namespace(node).map(|_| node)
    }

    /// The node's address, on its only interface `eth0`.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Ipv4Addr {
        address(node)
    }

    /// The node's namespace, to run things in.
    ///
    /// # Errors
    /// When the plan has no such node.
    pub fn namespace(&self, node: NodeId) -> Result<&Namespace, Error> {
        let name = || format!("{} of site {}", node.index + 1, node.site.0 + 1);
        self.nodes.get(&node).ok_or_else(|| unknown("node", &name()))
    }

    /// Starts a process on a node; it is killed when what is returned is dropped, or the network.
    ///
    /// # Errors
    /// When the node is unknown or the process cannot be started.
    pub fn spawn(&self, node: NodeId, command: &mut Command) -> Result<Running, Error> {
        self.namespace(node)?.spawn(command)
    }

    /// Changes one direction between two sites, from the next packet on.
    ///
    /// # Errors
    /// When there is no such direction.
    pub fn change(
        &self,
        from: SiteId,
        to: SiteId,
        change: impl FnOnce(&mut Settings),
    ) -> Result<(), Error> {
        let mut links = self.router.links().lock();
        let link = links.link(from, to).ok_or_else(|| direction(from, to))?;
        let mut settings = link.settings();
        change(&mut settings);
        link.set(settings);
        Ok(())
    }

    /// Changes both directions between two sites.
    ///
    /// # Errors
    /// As [`Wan::change`].
    pub fn change_both(
        &self,
        one: SiteId,
        other: SiteId,
        change: impl Fn(&mut Settings),
    ) -> Result<(), Error> {
        self.change(one, other, &change)?;
        self.change(other, one, change)
    }

    /// Nothing passes from one site to another; the way back is left as it is.
    ///
    /// # Errors
    /// As [`Wan::change`].
    pub fn cut(&self, from: SiteId, to: SiteId) -> Result<(), Error> {
        self.change(from, to, |settings| settings.is_cut = true)
    }

    /// Nothing passes between a site and all others: the site is lost to them.
    ///
    /// # Errors
    /// As [`Wan::change`].
    pub fn cut_off(&self, site: SiteId) -> Result<(), Error> {
        for other in (0..self.sites.len()).map(SiteId).filter(|other| *other != site) {
            self.change_both(site, other, |settings| settings.is_cut = true)?;
        }
        Ok(())
    }

    /// Every link is again what the plan says and every node hears every other. Counts stay.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn heal(&self) -> Result<(), Error> {
        for (from, to) in pairs(self.sites.len()) {
            self.change(from, to, |settings| *settings = self.plan.between_sites)?;
        }
        for (node, deaf) in self.deaf.lock().iter_mut() {
            for sender in self.nodes.keys() {
                deaf.set(self.namespace(*node)?, address(*sender), false)?;
            }
        }
        Ok(())
    }

    /// What one direction is set to.
    ///
    /// # Errors
    /// As [`Wan::change`].
    pub fn settings(&self, from: SiteId, to: SiteId) -> Result<Settings, Error> {
        let mut links = self.router.links().lock();
        links.link(from, to).map(|link| link.settings()).ok_or_else(|| direction(from, to))
    }

    /// What one direction really did since the network was built.
    ///
    /// # Errors
    /// As [`Wan::change`].
    pub fn counts(&self, from: SiteId, to: SiteId) -> Result<Counts, Error> {
        let mut links = self.router.links().lock();
        links.link(from, to).map(|link| link.counts()).ok_or_else(|| direction(from, to))
    }

    /// `to` no longer hears `from`, in one site or in two. Both ways are two calls; a bridge node
    /// is one that is left out while two halves are made deaf to each other.
    ///
    /// # Errors
    /// When a node is unknown or `nft` fails.
    pub fn block(&self, from: NodeId, to: NodeId) -> Result<(), Error> {
        self.set_blocked(from, to, true)
    }

    /// `to` hears `from` again.
    ///
    /// # Errors
    /// As [`Wan::block`].
    pub fn unblock(&self, from: NodeId, to: NodeId) -> Result<(), Error> {
        self.set_blocked(from, to, false)
    }

    /// Two groups of nodes do not hear each other; who is in neither hears all and is heard.
    ///
    /// # Errors
    /// As [`Wan::block`].
    pub fn part(&self, some: &[NodeId], others: &[NodeId]) -> Result<(), Error> {
        for (one, other) in some.iter().flat_map(|one| others.iter().map(move |o| (*one, *o))) {
            self.block(one, other)?;
            self.block(other, one)?;
        }
        Ok(())
    }

    /// Packets of `from` that `to` dropped because it was blocked.
    ///
    /// # Errors
    /// As [`Wan::block`].
    pub fn blocked_packets(&self, from: NodeId, to: NodeId) -> Result<u64, Error> {
        let namespace = self.namespace(to)?;
        self.deaf.lock().get(&to).map_or(Ok(0), |deaf| deaf.dropped(namespace, address(from)))
    }

    fn set_blocked(&self, from: NodeId, to: NodeId, is_blocked: bool) -> Result<(), Error> {
        self.namespace(from)?;
        let namespace = self.namespace(to)?;
        self.deaf.lock().entry(to).or_default().set(namespace, address(from), is_blocked)
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        // A process that is left would keep its namespace.
        for namespace in self.nodes.values().chain(&self.sites) {
            namespace.end_processes();
        }
    }
}

/// A probe that nobody has seen for so long is not under way.
const PROBES_GONE_AFTER: Duration = Duration::from_millis(30);

/// A site's namespace: a bridge for its nodes, a TUN device towards the router.
fn switch(site: SiteId, mtu: u32) -> Result<(Namespace, File), Error> {
    let namespace = Namespace::new()?;
    let tun = namespace.enter(tun::open)?.map_err(Error::kernel("open a TUN device"))?;
    let name = tun::NAME;
    namespace.ip(&[
        "link add br0 type bridge",
        &format!("addr add {}/24 dev br0", gateway(site)),
        &format!("link set br0 mtu {mtu} up"),
        &format!("link set {name} mtu {mtu} txqueuelen 4096 up"),
        &format!("route add {RANGE} dev {name}"),
    ])?;
    namespace
        .enter(|| {
            ask_again_soon("br0")?;
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            std::fs::write("/proc/sys/net/ipv4/conf/all/send_redirects", "0")?;
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")
        })?
        .map_err(Error::kernel("set up forwarding"))?;
    Ok((namespace, tun))
}

/// A node's namespace, with one interface on the bridge of its site.
fn attach(switch: &Namespace, node: NodeId, mtu: u32) -> Result<Namespace, Error> {
    let namespace = Namespace::new()?;
    let port = format!("n{}", node.index + 1);
    switch.ip(&[
        &format!(
            "link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            namespace.path()
        ),
        &format!("link set {port} master br0 up"),
    ])?;
    namespace.enter(|| ask_again_soon("eth0"))?.map_err(Error::kernel("set up an interface"))?;
    namespace.ip(&[
        &format!("addr add {}/24 dev eth0", address(node)),
        "link set eth0 up",
        &format!("route add default via {}", gateway(node.site)),
    ])?;
    Ok(namespace)
}

/// An address that does not answer, as while its interface comes up, is asked again after 50 ms
/// instead of a second.
fn ask_again_soon(interface: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/neigh/{interface}/retrans_time_ms"), "50")
}

/// All directions between different sites.
fn pairs(sites: usize) -> impl Iterator<Item = (SiteId, SiteId)> {
    (0..sites)
        .flat_map(move |from| (0..sites).map(move |to| (SiteId(from), SiteId(to))))
        .filter(|(from, to)| from != to)
}

fn unknown(kind: &'static str, name: &str) -> Error {
    Error::Unknown { kind, name: name.to_owned() }
}

fn direction(from: SiteId, to: SiteId) -> Error {
    unknown("direction", &format!("{} to {}", from.0 + 1, to.0 + 1))
}
