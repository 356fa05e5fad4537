//! The lines to nodes of other sites, as the configuration says. What happens to them goes to the log and
//! into the journal for the ledger; dtm-sites counts it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path as File;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::{LineTls, PeerTls, QuicSites};
use dtm_doors::SiteLines;
use dtm_machine::seams::Clock;
use dtm_sites::{
    Channel, ChannelKind, Congestion, Event, Events, Journal, Lines, Path, Settings, StandbyRule,
};
use dtm_types::NodeId;
use dtm_types::command::NodeRow;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::config::{Config, Sites, Tls, host_and_port, second_peer};
use crate::shell::Shell;
use crate::tls::{self, Material, Peers};

/// Opens the lines, and puts into the row where others reach them; none where `node.sites` is empty.
pub(super) fn open(
    shell: &Shell,
    tls: &Arc<dyn PeerTls>,
    clock: &Arc<dyn Clock>,
    row: &mut NodeRow,
) -> Result<Option<SiteLines>, Error> {
    let config = &shell.loaded.config;
    // The configuration was checked: what does not parse is empty.
    let Ok(bind) = config.node.sites.parse() else { return Ok(None) };
    let (_, node) = shell.material.node();
    let first = (ChannelKind::Quic, bind);
    let mut channels = vec![channel("first", first, &config.tls.key, Arc::clone(tls))];
    if let Ok(bind) = config.sites.second_listen.parse() {
        let second = second_material(config, &shell.material, &shell.shutdown)?;
        let kind = match &*config.sites.second_kind {
            "tcp" => ChannelKind::Tcp,
            _ => ChannelKind::Quic,
        };
        let key = &config.sites.second_key;
        channels.push(channel("second", (kind, bind), key, Peers::new(second)));
    }
    let further = if channels.len() > 1 { further(&config.sites) } else { BTreeMap::new() };
    let journal = Arc::new(Journal::new(Arc::clone(clock)));
    let told = Told { journal: Arc::clone(&journal), contact: config.sites.contact.clone() };
    if !config.sites.contact.is_empty() {
        let contact = config.sites.contact.clone();
        metrics::gauge!("dtm_sites_contact", "contact" => contact).set(1.0);
    }
    let seams = (Arc::clone(clock), Arc::new(told) as _);
    let bound = Lines::bind(node, channels, settings(&config.sites), seams)?;
    let host = config.node.advertise.first().map(String::as_str).unwrap_or_default();
    let port = bound.0.addresses().first().map_or(bind.port(), SocketAddr::port);
    row.sites_address = host_and_port(host, port);
    Ok(Some(SiteLines { peers: QuicSites::new(bound, further), journal }))
}

fn channel(
    name: &str,
    (kind, bind): (ChannelKind, SocketAddr),
    key: &File,
    tls: Arc<dyn PeerTls>,
) -> Channel {
    let credentials = key.display().to_string();
    Channel { name: name.to_owned(), kind, bind, credentials, tls: Arc::new(LineTls(tls)) }
}

/// The certificates of the second channel, which are this node's too. They reload as the first do.
fn second_material(
    config: &Config,
    first: &Material,
    shutdown: &CancellationToken,
) -> Result<Arc<Material>, Error> {
    let (certificate, key) =
        (config.sites.second_certificate.clone(), config.sites.second_key.clone());
    let has_own_ca = !config.sites.second_ca.as_os_str().is_empty();
    let ca = if has_own_ca { &config.sites.second_ca } else { &config.tls.ca }.clone();
    let second = Material::load(&Tls { certificate, key, ca, ..config.tls.clone() })?;
    if second.node() != first.node() {
        let path = config.sites.second_certificate.clone();
        return Err(Error::SecondCertificate { path });
    }
    let interval = Duration::from_millis(config.tls.reload_interval_ms);
    tokio::spawn(tls::watch(Arc::clone(&second), interval, shutdown.clone()));
    Ok(second)
}

fn further(sites: &Sites) -> BTreeMap<NodeId, Vec<Path>> {
    let named = sites.second_peers.iter().filter_map(|text| second_peer(text));
    let path = |remote: &str| vec![Path { channel: 1, remote: remote.to_owned() }];
    named.map(|(node, remote)| (node, path(remote))).collect()
}

fn settings(sites: &Sites) -> Settings {
    let bytes = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Settings {
        congestion: match &*sites.congestion {
            "cubic" => Congestion::Cubic,
            _ => Congestion::Bbr,
        },
        standby: match &*sites.standby {
            "automatic" => StandbyRule::Automatic,
            "confirmed" => StandbyRule::Confirmed,
            _ => StandbyRule::AtOnce,
        },
        copies_bytes_per_second: sites.copies_bytes_per_second,
        lane_window_bytes: bytes(sites.lane_window_bytes),
        line_window_bytes: bytes(sites.line_window_bytes),
        standby_after: Duration::from_millis(sites.standby_after_ms),
        return_after: Duration::from_millis(sites.return_after_ms),
        ..Settings::default()
    }
}

/// Puts what happens to the lines into the log and the journal.
struct Told {
    journal: Arc<Journal>,
    /// Whom to tell; empty = nobody is named.
    contact: String,
}

impl Events for Told {
    fn tell(&self, event: &Event) {
        let (node, contact) = (event.node(), &*self.contact);
        match event {
            Event::Up { path, cut_for, .. } => {
                tracing::info!(%node, path, ?cut_for, "a line to another site is there");
            }
            Event::Cut { path, .. } => {
                tracing::warn!(%node, path, "the line to a node of another site is cut");
            }
            Event::Interrupted { cut_for, .. } => {
                tracing::warn!(%node, ?cut_for, contact, "the first channel to another site is cut");
            }
            Event::Switched { from, to, cut_for, .. } => {
                tracing::warn!(%node, from, to, ?cut_for, contact, "another channel to another site is in use");
            }
            Event::Mended { after, .. } => {
                tracing::info!(%node, ?after, "the first channel works again");
            }
            Event::Returned { from, after, .. } => {
                tracing::info!(%node, from, ?after, "the first channel is in use again");
            }
            Event::ConfirmationAwaited { cut_for, .. } => {
                tracing::warn!(%node, ?cut_for, contact, "the standby channel waits for dtm site confirm");
            }
            Event::StandbyOrdered { cut_for, confirmed, .. } => {
                tracing::warn!(%node, ?cut_for, confirmed, contact, "the standby channel is ordered");
            }
            other => tracing::warn!(%node, event = ?other, "line to another site"),
        }
        self.journal.note(event);
    }
}
