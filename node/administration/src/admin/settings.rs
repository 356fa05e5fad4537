//! The cluster's settings: checked whole here, by the code that reads a node's file, and by every
//! other node that answers against its own file; then one entry of meta.

use std::collections::{BTreeMap, BTreeSet};

use dtm_doors::settings::refused;
use dtm_doors::status::{internal, told};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_machine::seams::StateRead;
use dtm_proto::admin as wire;
use dtm_setup::config::{Config, Scope, known, nearest_key, of_cluster};
use dtm_types::ErrorCode;
use dtm_types::command::admin::Op;
use dtm_types::command::{PutSettings, Setting, SettingChange, SettingsRow};
use dtm_types::text::Told;
use prost::Message;
use serde_json::json;
use tonic::{Code, Request, Status};

use super::{AdminDoor, Asker};

/// Versions of one list, and where nothing is said.
const VERSIONS_MAX: u32 = 1_000;
const VERSIONS_USUAL: u32 = 20;
/// Bytes of one list.
const LIST_BYTES_MAX: usize = 2 << 20;

/// What is to become of the settings.
struct Change {
    row: SettingsRow,
    /// By key; `None` = no longer set.
    to: BTreeMap<String, Option<String>>,
    restores: u64,
    check: bool,
}

impl AdminDoor {
    pub(crate) async fn put_settings(
        &self,
        request: Request<wire::PutSettingsRequest>,
    ) -> Result<wire::PutSettingsResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::ChangeSettings, asked.context.as_ref()).await?;
        let row = self.settings_at(asked.expected_version).await?;
        let to = wanted(&asked.changes, &row)?;
        let change = Change { row, to, restores: 0, check: asked.check };
        let (version, effects) = self.change_settings(asker, change).await?;
        Ok(wire::PutSettingsResponse { version, effects })
    }

    pub(crate) async fn rollback_settings(
        &self,
        request: Request<wire::RollbackSettingsRequest>,
    ) -> Result<wire::RollbackSettingsResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::ChangeSettings, asked.context.as_ref()).await?;
        let row = self.settings_at(asked.expected_version).await?;
        let meta = self.0.directory.meta(self.0.view()).await?;
        let old = version_of(meta.state.as_ref(), asked.version)?;
        let Some(old) = old else {
            let what = Told::new("refused.setting_no_version").with("version", asked.version);
            return Err(told(ErrorCode::NotFound, &what.with("held", row.version)));
        };
        let mut to: BTreeMap<String, Option<String>> =
            row.settings.iter().map(|setting| (setting.key.clone(), None)).collect();
        to.extend(old.settings.into_iter().map(|Setting { key, value }| (key, Some(value))));
        let change = Change { row, to, restores: asked.version, check: asked.check };
        let (version, effects) = self.change_settings(asker, change).await?;
        Ok(wire::RollbackSettingsResponse { version, effects })
    }

    /// The settings, where they are at the version that the caller means.
    async fn settings_at(&self, expected: Option<u64>) -> Result<SettingsRow, Status> {
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::settings(meta.state.as_ref()).map_err(internal)?;
        match expected {
            Some(expected) if expected != row.version => {
                let what = Told::new("refused.setting_version").with("expected", expected);
                Err(told(ErrorCode::VersionConflict, &what.with("held", row.version)))
            }
            _ => Ok(row),
        }
    }

    /// Checks what the settings are to be and enters it; the version that holds then. Nothing is
    /// entered where nothing changes.
    async fn change_settings(
        &self,
        asker: Asker,
        change: Change,
    ) -> Result<(u64, Vec<wire::SettingEffect>), Status> {
        let Change { row, to, restores, check } = change;
        let mut fresh = applied_to(&row, &to);
        let resolved = self.0.settings.under(&fresh).map_err(|e| refused(&e, None))?;
        as_shown(&mut fresh.settings, &resolved.config);
        let effects = effects_of(&row.settings, &fresh.settings);
        if effects.is_empty() {
            return Ok((row.version, effects));
        }
        self.check_elsewhere(&fresh).await?;
        if check {
            return Ok((row.version, effects));
        }
        let changed = effects.iter().map(
            |effect| json!({"key": effect.key, "before": effect.before, "after": effect.after}),
        );
        let detail = json!({"settings": changed.collect::<Vec<_>>(), "version": fresh.version,
            "restores": restores});
        let changes = effects
            .iter()
            .map(|effect| SettingChange { key: effect.key.clone(), value: effect.after.clone() });
        let op = Op::PutSettings(PutSettings { changes: changes.collect(), restores });
        let done = self.act(asker, op, Some(row.version), detail).await?;
        Ok((done.version, effects))
    }

    /// Asks every other node whether it could go by these settings. Who does not answer, or is of
    /// an older release, is not waited for: it says so itself where it cannot take them.
    async fn check_elsewhere(&self, row: &SettingsRow) -> Result<(), Status> {
        let meta = self.0.directory.meta(self.0.view()).await?;
        let nodes = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        let others =
            nodes.iter().filter(|node| !node.removed && node.node != self.0.node.0.as_slice());
        let asked = others.map(|node| self.0.peers.check_settings(node, row.clone()));
        let answers = futures::future::join_all(asked).await;
        let mut refused = answers.into_iter().filter_map(Result::err);
        match refused.find(|status| status.code() == Code::InvalidArgument) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    pub(crate) async fn show_settings(
        &self,
        request: Request<wire::ShowSettingsRequest>,
    ) -> Result<wire::ShowSettingsResponse, Status> {
        self.0.allow(&request, Operation::ReadSettings, None).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::settings(meta.state.as_ref()).map_err(internal)?;
        let now = self.0.settings.now();
        let values = now.rows().map(|(key, value, origin, scope, pending)| {
            let (origin, scope) = (origin.name().to_owned(), scope.name().to_owned());
            wire::SettingInForce { key, value, origin, scope, pending }
        });
        let values = values.collect();
        let status = self.0.status().await?;
        let nodes = status.nodes.into_iter().map(|node| wire::NodeSettings {
            name: node.node.map(|row| row.name).unwrap_or_default(),
            reachable: node.reachable,
            version: node.settings_version,
            pending: node.settings_pending,
            unknown: node.settings_unknown,
        });
        let (node, nodes) = (self.0.row.name.clone(), nodes.collect());
        Ok(wire::ShowSettingsResponse { row: Some(row), node, values, nodes })
    }

    pub(crate) async fn settings_history(
        &self,
        request: Request<wire::SettingsHistoryRequest>,
    ) -> Result<wire::SettingsHistoryResponse, Status> {
        self.0.allow(&request, Operation::ReadSettings, None).await?;
        let asked = request.get_ref();
        let limit = if asked.limit == 0 { VERSIONS_USUAL } else { asked.limit.min(VERSIONS_MAX) };
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let state = meta.state.as_ref();
        let newest = reads::settings(state).map_err(internal)?.version;
        let operators = reads::operators(state).map_err(internal)?;
        let from = if asked.before == 0 { newest } else { newest.min(asked.before - 1) };
        let (mut versions, mut bytes) = (Vec::new(), 0);
        for version in (1..=from).rev().take(limit as usize) {
            let Some(row) = reads::settings_version(state, version).map_err(internal)? else {
                break;
            };
            let before = version_of(state, version - 1)?;
            let effects = before.map(|old| effects_of(&old.settings, &row.settings));
            let of = |digest: &[u8]| digest.get(..16) == Some(&row.actor_id[..]);
            let operator = operators.iter().find(|known| of(&known.certificate_digest));
            let listed = wire::SettingsVersion {
                operator: operator.map(|known| known.name.clone()).unwrap_or_default(),
                effects: effects.unwrap_or_default(),
                row: Some(SettingsRow { settings: Vec::new(), ..row }),
            };
            bytes += listed.encoded_len();
            if bytes > LIST_BYTES_MAX && !versions.is_empty() {
                break;
            }
            versions.push(listed);
        }
        Ok(wire::SettingsHistoryResponse { versions })
    }
}

/// A version that is still held; version 0 is that nothing is set.
fn version_of(state: &dyn StateRead, version: u64) -> Result<Option<SettingsRow>, Status> {
    match version {
        0 => Ok(Some(SettingsRow::default())),
        _ => reads::settings_version(state, version).map_err(internal),
    }
}

/// What was asked for, by key.
fn wanted(
    changes: &[SettingChange],
    row: &SettingsRow,
) -> Result<BTreeMap<String, Option<String>>, Status> {
    let refuse = |what: Told| Err(told(ErrorCode::InvalidArgument, &what));
    if changes.is_empty() {
        return refuse(Told::new("refused.setting_none"));
    }
    let held: BTreeSet<&str> = row.settings.iter().map(|setting| setting.key.as_str()).collect();
    let mut to = BTreeMap::new();
    for SettingChange { key, value } in changes {
        let named = |text| Told::new(text).with("key", key);
        match known(key) {
            // What a newer release has set may be taken away.
            _ if value.is_none() && held.contains(key.as_str()) => {}
            None => {
                let near =
                    nearest_key(key).map(|near| named("refused.setting_near").with("near", near));
                return refuse(near.unwrap_or_else(|| named("refused.setting_unknown")));
            }
            Some(known) if known.scope == Scope::Node => {
                return refuse(named("refused.setting_of_node"));
            }
            Some(_) if value.is_none() => return refuse(named("refused.setting_not_set")),
            Some(_) => {}
        }
        if to.insert(key.clone(), value.clone()).is_some() {
            return refuse(named("refused.setting_twice"));
        }
    }
    Ok(to)
}

/// The next version of the settings.
fn applied_to(row: &SettingsRow, to: &BTreeMap<String, Option<String>>) -> SettingsRow {
    let held =
        row.settings.iter().map(|setting| (setting.key.clone(), Some(setting.value.clone())));
    let mut all: BTreeMap<String, Option<String>> = held.collect();
    all.extend(to.clone());
    let settings = all.into_iter().filter_map(|(key, value)| Some(Setting { key, value: value? }));
    SettingsRow { version: row.version + 1, settings: settings.collect(), ..SettingsRow::default() }
}

/// Values as a file would show them, however they were written.
fn as_shown(settings: &mut [Setting], config: &Config) {
    let shown = config.rows();
    for setting in settings.iter_mut().filter(|setting| of_cluster(&setting.key).is_some()) {
        let is_key = |row: &&(&str, &str, String, serde_json::Value)| {
            setting.key.split_once('.') == Some((row.0, row.1))
        };
        if let Some(row) = shown.iter().find(is_key) {
            setting.value.clone_from(&row.2);
        }
    }
}

/// What changes between two versions, by key.
fn effects_of(before: &[Setting], after: &[Setting]) -> Vec<wire::SettingEffect> {
    let by_key = |settings: &[Setting]| -> BTreeMap<String, String> {
        settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let effect = |key: &String| wire::SettingEffect {
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
        live: known(key).is_some_and(|known| known.scope == Scope::Live),
        key: key.clone(),
    };
    differing.map(effect).collect()
}

#[cfg(test)]
#[path = "settings_test.rs"]
mod tests;
