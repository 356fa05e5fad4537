//! `dtm config set|history|rollback`, and `dtm config show --cluster`.

use dtm_proto::admin::{
    PutSettingsRequest, RollbackSettingsRequest, SettingEffect, SettingInForce,
    SettingsHistoryRequest, SettingsVersion, ShowSettingsRequest, ShowSettingsResponse,
};
use dtm_types::command::SettingChange;
use serde_json::{Value, json};

use super::text::time;
use crate::args::{ConfigCommand, Globals};
use crate::{Failure, Printer, Remote, confirm};

pub(crate) async fn run(command: &ConfigCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        ConfigCommand::Set { settings, unset, check, at } => {
            let set = settings.iter().map(|(key, value)| (key, Some(value.clone())));
            let all = set.chain(unset.iter().map(|key| (key, None)));
            let changes = all.map(|(key, value)| SettingChange { key: key.clone(), value });
            let remote = Remote::connect(globals).await?;
            let message = PutSettingsRequest {
                context: remote.why(),
                changes: changes.collect(),
                expected_version: *at,
                check: *check,
            };
            let done = remote.admin().put_settings(remote.request(message)).await?.into_inner();
            told(&printer, done.version, &done.effects, *check);
        }
        ConfigCommand::Rollback { version, check } => rollback(globals, *version, *check).await?,
        ConfigCommand::History { limit } => {
            let remote = Remote::connect(globals).await?;
            let message = SettingsHistoryRequest { limit: *limit, before: 0 };
            let answer = remote.admin().settings_history(remote.request(message)).await?;
            history(&printer, &answer.into_inner().versions);
        }
        ConfigCommand::Show { cluster: true, .. } => {
            let remote = Remote::connect(globals).await?;
            let asked = remote.request(ShowSettingsRequest {});
            show(&printer, &remote.admin().show_settings(asked).await?.into_inner());
        }
        other => panic!("the binary carries out {other:?} itself"),
    }
    Ok(())
}

/// Says what would change and asks; what is asked for then is what was shown.
async fn rollback(globals: &Globals, version: u64, check: bool) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    let message = |check, expected_version| RollbackSettingsRequest {
        context: remote.why(),
        version,
        expected_version,
        check,
    };
    let asked = remote.request(message(true, None));
    let would = remote.admin().rollback_settings(asked).await?.into_inner();
    if check || would.effects.is_empty() {
        told(&printer, would.version, &would.effects, check);
        return Ok(());
    }
    if !printer.is_json() && !globals.yes {
        changes(&printer, &would.effects);
    }
    confirm(globals, "cli.confirm_rollback", &[("version", &version.to_string())])?;
    let asked = remote.request(message(false, Some(would.version)));
    let done = remote.admin().rollback_settings(asked).await?.into_inner();
    told(&printer, done.version, &done.effects, false);
    Ok(())
}

/// What was done, or would be.
fn told(printer: &Printer<'_>, version: u64, effects: &[SettingEffect], check: bool) {
    let document = json!({ "version": version, "checked_only": check, "changes": of(effects) });
    if printer.is_json() {
        return printer.json(&document);
    }
    if effects.is_empty() {
        return printer.say("cli.settings_same", &[("version", &version.to_string())]);
    }
    changes(printer, effects);
    let key = if check { "cli.settings_hold" } else { "cli.settings_set" };
    printer.say(key, &[("version", &version.to_string())]);
}

fn changes(printer: &Printer<'_>, effects: &[SettingEffect]) {
    let rows = effects.iter().map(|effect| {
        let when = if effect.live { "cli.setting.live" } else { "cli.setting.start" };
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let when = printer.text(when, &[]);
        vec![effect.key.clone(), value(&effect.before), value(&effect.after), when]
    });
    printer.table(&["key", "before", "after", "holds"], rows.collect(), &Value::Null);
}

fn of(effects: &[SettingEffect]) -> Value {
    let all = effects.iter().map(|effect| {
        json!({ "key": effect.key, "before": effect.before, "after": effect.after,
                "live": effect.live })
    });
    all.collect()
}

fn history(printer: &Printer<'_>, versions: &[SettingsVersion]) {
    let listed = versions.iter().map(|version| (version, version.row.clone().unwrap_or_default()));
    let rows = listed.clone().map(|(version, row)| {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let changes = version.effects.iter().map(|effect| {
            format!("{}: {} → {}", effect.key, value(&effect.before), value(&effect.after))
        });
        let mut changes = changes.collect::<Vec<_>>();
        if row.restores > 0 {
            let of = ("version", &*row.restores.to_string());
            changes.insert(0, printer.text("cli.settings_restores", &[of]));
        }
        let who = if version.operator.is_empty() { "-" } else { &version.operator };
        vec![row.version.to_string(), time(row.time_us), who.to_owned(), changes.join("; ")]
    });
    let document: Value = listed
        .map(|(version, row)| {
            json!({ "version": row.version, "time": time(row.time_us),
                    "operator": version.operator, "actor_id": hex::encode(&row.actor_id),
                    "restores": row.restores, "changes": of(&version.effects) })
        })
        .collect();
    printer.table(&["version", "time", "who", "changes"], rows.collect(), &document);
}

fn show(printer: &Printer<'_>, shown: &ShowSettingsResponse) {
    let row = shown.row.clone().unwrap_or_default();
    if printer.is_json() {
        return printer.json(&document(shown, row.version));
    }
    let version = row.version.to_string();
    if row.version == 0 {
        printer.say("cli.settings_none", &[]);
    } else {
        let values = [("version", &*version), ("time", &time(row.time_us))];
        printer.say("cli.settings_at", &values);
    }
    printer.say("cli.settings_of", &[("node", &shown.node)]);
    let origin = |value: &SettingInForce| {
        let key = format!("cli.origin.{}", value.origin);
        printer.text(&key, &[("version", &version)])
    };
    let rows = shown.values.iter().map(|value| {
        let pending = value
            .pending
            .as_ref()
            .map(|next| printer.text("cli.setting_pending", &[("value", next)]));
        let scope = printer.text(&format!("cli.setting.{}", value.scope), &[]);
        let pending = pending.unwrap_or_default();
        vec![value.key.clone(), value.value.clone(), origin(value), scope, pending]
    });
    printer.table(&["key", "value", "origin", "holds", "state"], rows.collect(), &Value::Null);
    let rows = shown.nodes.iter().map(|node| {
        let state = if !node.reachable {
            printer.text("cli.state.unreachable", &[])
        } else if !node.unknown.is_empty() {
            printer.text("cli.setting_not_taken", &[("keys", &node.unknown.join(" "))])
        } else if !node.pending.is_empty() {
            printer.text("cli.setting_waits", &[("keys", &node.pending.join(" "))])
        } else {
            String::new()
        };
        let version = if node.reachable { node.version.to_string() } else { "-".to_owned() };
        vec![node.name.clone(), version, state]
    });
    printer.table(&["node", "version", "state"], rows.collect(), &Value::Null);
}

fn document(shown: &ShowSettingsResponse, version: u64) -> Value {
    let values = shown.values.iter().map(|value| {
        json!({ "key": value.key, "value": value.value, "origin": value.origin,
                "scope": value.scope, "pending": value.pending })
    });
    let nodes = shown.nodes.iter().map(|node| {
        json!({ "node": node.name, "reachable": node.reachable, "version": node.version,
                "pending": node.pending, "not_taken": node.unknown })
    });
    json!({ "version": version, "node": shown.node, "values": values.collect::<Vec<_>>(),
            "nodes": nodes.collect::<Vec<_>>() })
}
