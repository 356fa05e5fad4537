//! The cluster's settings on this node: what it runs with, and the watch that follows meta.
//!
//! ```text
//!  each second: the row of meta ─▶ another version? ─▶ file and environment read anew under it
//!                                     │ holds                        │ does not
//!                                     ▼                              ▼
//!               live keys taken, open streams asked to      what was in force stays; said in
//!               reconnect; kept for the next start          status, metrics, doctor
//! ```
//! The row here may be older than what this node saw before (it has just started, or joined): it
//! counts only once meta is confirmed.

use std::sync::Arc;
use std::time::Duration;

use dtm_actors::Limits;
use dtm_machine::reads;
use dtm_setup::config::{self, Base, Config, KEYS, Loaded, Origin, Resolved, Scope};
use dtm_types::ErrorCode;
use dtm_types::command::SettingsRow;
use dtm_types::text::Told;
use parking_lot::RwLock;
use tonic::Status;

use super::shared::Shared;
use super::status::told;

/// How often the row is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sessions that are to open again under new limits are told so over this long.
const REOPEN_OVER: Duration = Duration::from_millis(1_000);

/// What a node runs with. Clones of [`InForce`] are of one moment.
pub struct Settings {
    base: Base,
    started: Config,
    now: RwLock<Arc<InForce>>,
}

/// The configuration of a node at one moment.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What it runs with.
    pub running: Config,
    /// What it is to run with from its next start on.
    pub next: Config,
    /// Where each value of `next` comes from, in the order of the keys.
    pub origins: Vec<Origin>,
    /// The settings that these are of; version 0 where there are none.
    pub row: SettingsRow,
    /// The newest version that was looked at.
    seen: u64,
    /// Keys whose value is taken at the next start.
    pub pending: Vec<String>,
    /// Keys that the cluster sets and this node does not take.
    pub not_taken: Vec<String>,
}

/// What a new version of the settings means here.
enum Taken {
    /// It is in force.
    Now(Arc<InForce>),
    /// It does not go with what this node's own file says.
    Refused(config::Error),
}

impl Settings {
    /// As the node starts.
    pub fn new(loaded: Loaded) -> Self {
        let Loaded { config, origins, base, settings, refused } = loaded;
        let mut now = InForce {
            running: config.clone(),
            next: config.clone(),
            origins,
            row: settings.clone(),
            seen: settings.version,
            pending: Vec::new(),
            not_taken: unknown(&settings),
        };
        if let Some(error) = refused {
            tracing::warn!(version = settings.version, %error, "this node cannot take what the cluster has set");
            now.not_taken = keys(&settings);
            now.row = SettingsRow::default();
        }
        Self { base, started: config, now: RwLock::new(Arc::new(now)) }
    }

    /// What is in force.
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.now.read())
    }

    /// The configuration of this node under other settings.
    ///
    /// # Errors
    /// Every problem found, as of a file.
    pub fn under(&self, row: &SettingsRow) -> Result<Resolved, config::Error> {
        self.base.with(row)
    }

    /// Goes by another version from now on, where this node can.
    fn take(&self, row: SettingsRow) -> Taken {
        let before = self.now();
        let (next, taken) = match self.base.with(&row) {
            Ok(Resolved { config, origins, unknown }) => {
                let running = config.live_over(&self.started);
                let pending = differing(&running, &config);
                let (seen, not_taken) = (row.version, unknown);
                let next =
                    InForce { running, next: config, origins, row, seen, pending, not_taken };
                let next = Arc::new(next);
                (Arc::clone(&next), Taken::Now(next))
            }
            Err(error) => {
                let (seen, not_taken) = (row.version, keys(&row));
                let stays = InForce { seen, not_taken, ..before.as_ref().clone() };
                (Arc::new(stays), Taken::Refused(error))
            }
        };
        *self.now.write() = next;
        taken
    }
}

impl InForce {
    /// Whether a row of meta is news. An older one is, once meta is confirmed.
    fn is_news(&self, version: u64, is_confirmed: bool) -> bool {
        version > self.seen || (version != self.seen && is_confirmed)
    }

    /// Where the value of a key comes from, and what it is to be from the next start on where that
    /// is another one; in the order of the keys.
    pub fn rows(&self) -> impl Iterator<Item = (String, String, Origin, Scope, Option<String>)> {
        let all = self.running.rows().into_iter().zip(self.next.rows());
        let all = all.zip(self.origins.clone()).zip(KEYS);
        all.map(|(((now, next), origin), key)| {
            let pending = (now.2 != next.2).then_some(next.2);
            (format!("{}.{}", now.0, now.1), now.2, origin, key.scope, pending)
        })
    }
}

/// Keys that the cluster sets and this software does not know, or not as the cluster's.
fn unknown(row: &SettingsRow) -> Vec<String> {
    keys(row).into_iter().filter(|key| config::of_cluster(key).is_none()).collect()
}

fn keys(row: &SettingsRow) -> Vec<String> {
    row.settings.iter().map(|setting| setting.key.clone()).collect()
}

fn differing(running: &Config, next: &Config) -> Vec<String> {
    let both = running.rows().into_iter().zip(next.rows());
    let differing = both.filter(|(now, next)| now.2 != next.2);
    differing.map(|(now, _)| format!("{}.{}", now.0, now.1)).collect()
}

/// The bounds of sessions.
pub fn limits(config: &Config) -> Limits {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let limits = &config.limits;
    Limits {
        record_bytes_max: bytes(limits.record_bytes_max),
        frame_bytes_max: bytes(limits.frame_bytes_max),
        frame_records_max: bytes(limits.frame_records_max),
        stream_in_flight_bytes_max: bytes(limits.stream_in_flight_bytes_max),
        source_in_flight_bytes_max: bytes(limits.source_in_flight_bytes_max),
        node_in_flight_bytes_max: bytes(limits.node_in_flight_bytes_max),
        refused_per_second_max: limits.refused_per_second_max,
        streams_open_max: bytes(limits.streams_open_max),
        stream_names_max: u32::try_from(limits.stream_names_max).unwrap_or(u32::MAX),
        quarantine_records_max: limits.quarantine_records_max,
        quarantine_bytes_max: limits.quarantine_bytes_max,
        site_ack_within: Duration::from_millis(limits.site_ack_within_ms),
        ..Limits::default()
    }
}

/// Follows what the cluster sets. Runs until it is dropped.
pub async fn keep_settings(shared: Arc<Shared>) {
    loop {
        // Before the rows are looked at: what was confirmed by then is in them.
        let is_confirmed = shared.rights.is_fresh(shared.clock.monotonic_us());
        if let Ok(meta) = shared.directory.meta(shared.view()).await {
            match reads::settings(meta.state.as_ref()) {
                Ok(row) if shared.settings.now().is_news(row.version, is_confirmed) => {
                    shared.take_settings(row).await;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the cluster's settings cannot be read"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Shared {
    async fn take_settings(&self, row: SettingsRow) {
        let (version, data) = (row.version, self.config.node.data.clone());
        let now = match self.settings.take(row) {
            Taken::Now(now) => now,
            Taken::Refused(error) => {
                tracing::error!(version, %error, "this node cannot take what the cluster has set");
                return;
            }
        };
        let told = self.sources.set_limits(limits(&now.running), REOPEN_OVER);
        let (pending, not_taken) = (now.pending.join(" "), now.not_taken.join(" "));
        tracing::info!(version, pending, not_taken, told, "the cluster's settings are in force");
        let kept = tokio::task::spawn_blocking(move || config::keep(&data, &now.row)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "settings are not kept for the next start, which asks meta then");
        }
    }
}

/// Whether this node could go by the settings; asked by the node that an operator asked.
///
/// # Errors
/// The reason, with this node's name.
pub fn check_here(shared: &Shared, row: &SettingsRow) -> Result<(), Status> {
    let resolved = shared.settings.under(row);
    resolved.map(|_| ()).map_err(|error| refused(&error, Some(&shared.row.name)))
}

/// Every problem with key, what was given and what is allowed; `node` is whose own file it is about.
pub fn refused(error: &config::Error, node: Option<&str>) -> Status {
    let each = error.0.iter().map(|problem| {
        Told::new("refused.setting")
            .with("key", &problem.key)
            .with_told("what", problem.what.clone())
            .with_told("remedy", problem.remedy.clone())
    });
    let join = |first: Told, more: Told| {
        Told::new("refused.setting_and").with_told("first", first).with_told("more", more)
    };
    let all = each.reduce(join).unwrap_or_else(|| Told::new("refused.setting_none"));
    let all = match node {
        Some(node) => Told::new("refused.setting_on").with("node", node).with_told("what", all),
        None => all,
    };
    told(ErrorCode::InvalidArgument, &all)
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
