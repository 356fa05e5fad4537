//! The network between nodes: each node is reached through forwarders of this process, which know
//! who calls and can cut a node off, both ways, without a word to anybody.
//!
//! ```text
//!  node i ──▶ 127.0.1.k:port ──forwarder, asks whose connection it is──▶ 127.0.0.1:port of node k
//! ```
//! A connection that is cut stays open and silent until the network heals; then it breaks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The address under which others reach a node.
pub(crate) fn host(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(at).expect("few nodes"))
}

/// All forwarders of a cluster.
#[derive(Debug)]
pub(crate) struct Wires {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    /// Process of each node.
    processes: Mutex<Vec<Option<i32>>>,
    /// Nodes that are cut off.
    cut: watch::Sender<BTreeSet<usize>>,
}

impl Wires {
    /// Forwards `ports` of each node from its public address to 127.0.0.1.
    pub(crate) async fn start(ports: &[Vec<u16>]) -> Result<Self> {
        let shared = Arc::new(Shared {
            processes: Mutex::new(vec![None; ports.len()]),
            cut: watch::Sender::new(BTreeSet::new()),
        });
        let mut tasks = JoinSet::new();
        for (at, ports) in ports.iter().enumerate() {
            for port in ports {
                let listener = TcpListener::bind((host(at), *port)).await;
                let listener =
                    listener.with_context(|| format!("forwarder {}:{port}", host(at)))?;
                tasks.spawn(listen(shared.clone(), at, listener));
            }
        }
        Ok(Self { shared, _tasks: tasks })
    }

    /// Whose connections are a node's.
    pub(crate) fn runs(&self, at: usize, process: i32) {
        self.shared.processes.lock()[at] = Some(process);
    }

    /// Nothing more between this node and the others.
    pub(crate) fn cut_off(&self, at: usize) {
        self.shared.cut.send_modify(|cut| {
            cut.insert(at);
        });
    }

    /// All is as before.
    pub(crate) fn heal(&self) {
        self.shared.cut.send_modify(BTreeSet::clear);
    }
}

async fn listen(shared: Arc<Shared>, at: usize, listener: TcpListener) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((inbound, _)) = accepted else { continue };
                carried.spawn(carry(shared.clone(), at, inbound));
            }
            Some(_) = carried.join_next() => {}
        }
    }
}

/// Carries one connection until it ends, or until a cut that it was part of is healed.
async fn carry(shared: Arc<Shared>, at: usize, mut inbound: TcpStream) {
    let (Ok(from), Ok(to)) = (inbound.peer_addr(), inbound.local_addr()) else { return };
    let known = shared.clone();
    let caller = tokio::task::spawn_blocking(move || known.caller(from, to)).await;
    let Ok(Some(caller)) = caller else { return both(&mut inbound, to.port()).await };
    let mut cuts = shared.cut.subscribe();
    let hit = |cut: &BTreeSet<usize>| cut.contains(&at) || cut.contains(&caller);
    tokio::select! {
        biased;
        _ = cuts.wait_for(hit) => {}
        () = both(&mut inbound, to.port()) => return,
    }
    // Open and silent. What was not carried by now is lost with the connection.
    let mut cuts = shared.cut.subscribe();
    let _ = cuts.wait_for(|cut| !hit(cut)).await;
}

async fn both(inbound: &mut TcpStream, port: u16) {
    if let Ok(mut outbound) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        let _ = inbound.set_nodelay(true).and(outbound.set_nodelay(true));
        let _ = tokio::io::copy_bidirectional(inbound, &mut outbound).await;
    }
}

impl Shared {
    /// The node whose process holds the other end of a connection; none = it is no node.
    fn caller(&self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let (from, to) = (in_table(from)?, in_table(to)?);
        let inode = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields.get(1) == Some(&&*from) && fields.get(2) == Some(&&*to);
            is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        })?;
        let processes = self.processes.lock().clone();
        processes.iter().position(|process| {
            let Some(process) = process else { return false };
            let Ok(held) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
            held.flatten().any(|entry| {
                std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == &*inode)
            })
        })
    }
}

/// An address as /proc/net/tcp writes it.
fn in_table(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port()))
}
