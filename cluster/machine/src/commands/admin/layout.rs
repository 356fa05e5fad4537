//! How replicas lie over sites: one row. The controller follows it; apply holds what no release may
//! ever enter.

use dtm_types::command::{ClusterRow, DetachSite, LayoutKind, LayoutRow, NodeRow, RefusalKind};

use super::{Decision, Effect, approvals};
use crate::approval;
use crate::commands::{Context, refused};
use crate::keys::{Key, table};

/// Longest time that a primary hands over.
const HOLD_US_MAX: i64 = 300_000_000;

/// Writes the next version of the layout. `expected` is the version that the proposer saw, 0 where
/// there was none.
///
/// While replicas stand by, the primary stays: to take over is another matter than to move voters, since
/// the old primary may be gone. The command that opens the life of a promotion may name the two sites in
/// either order, and whether they still have nodes is not asked: what was decided elsewhere stands.
pub(super) fn put(ctx: &mut Context<'_, '_>, asked: LayoutRow, expected: Option<u64>) -> Decision {
    let old: LayoutRow = ctx.rows.row(&[table::LAYOUT])?.unwrap_or_default();
    let next = old.version.checked_add(1).filter(|_| expected == Some(old.version));
    let Some(version) = next else {
        return Ok(Err(refused(RefusalKind::Version, "the layout was changed meanwhile")));
    };
    if asked.held_until_us != 0 && asked.incarnation == 0 {
        return hold(ctx, old, &asked, version);
    }
    if let Some(what) = malformed(&asked) {
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    }
    let cluster: ClusterRow = ctx.rows.row(&[table::CLUSTER])?.unwrap_or_default();
    let stays = asked.kind() == LayoutKind::Single || asked.primary == old.primary;
    // What opens a life comes after the row that names it, in the same bundle.
    let (sites, swapped) = ((&old.primary, &old.other), (&old.other, &old.primary));
    let opens_life = asked.incarnation > old.incarnation
        && asked.incarnation == cluster.incarnation
        && asked.kind() == LayoutKind::Standby
        && old.kind() == LayoutKind::Standby
        && [sites, swapped].contains(&(&asked.primary, &asked.other));
    if asked.incarnation > 0 && !opens_life {
        return Ok(Err(refused(RefusalKind::Malformed, "only a promotion names its life")));
    }
    if old.kind() == LayoutKind::Standby && !stays && !opens_life {
        let what = "while replicas stand by the primary changes by a promotion alone";
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    }
    let has_no_register =
        asked.kind() != LayoutKind::Standby || (!old.seats.is_empty() && asked.seats.is_empty());
    let gives_up = old.kind() == LayoutKind::Standby && has_no_register;
    if gives_up && cluster.production && approvals::is_by_operator(ctx)? {
        let what = "giving a standby up takes two people: detach its site";
        return Ok(Err(refused(RefusalKind::Approval, what)));
    }
    let nodes: Vec<NodeRow> = ctx.rows.rows(Key::of(table::NODE))?;
    let has_node = |site: &&&String| {
        nodes.iter().any(|node| !node.removed && !site.is_empty() && node.site == ***site)
    };
    let named: Vec<&String> = [&asked.primary, &asked.other, &asked.arbiter]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect();
    if !opens_life && named.iter().filter(has_node).count() < named.len() {
        return Ok(Err(refused(RefusalKind::NotFound, "a site of the layout has no node")));
    }
    let kind = match asked.kind() {
        LayoutKind::Unspecified | LayoutKind::Single => "single",
        LayoutKind::Stretched => "stretched",
        LayoutKind::Standby => "standby",
    };
    let mut ids = vec![format!("layout={version}"), format!("kind={kind}")];
    let sites = [("primary", &asked.primary), ("other", &asked.other), ("arbiter", &asked.arbiter)];
    let sites = sites.into_iter().filter(|(_, site)| !site.is_empty());
    ids.extend(sites.map(|(role, site)| format!("{role}={site}")));
    let (time_us, incarnation) = (ctx.group_time_us, cluster.incarnation);
    let row = LayoutRow { version, time_us, incarnation, held_until_us: 0, ..asked };
    ctx.rows.put_row(vec![table::LAYOUT], &row);
    Ok(Ok(Effect { version, ..Effect::on(ids) }))
}

/// The primary hands over: it acknowledges nothing for a while.
fn hold(ctx: &mut Context<'_, '_>, old: LayoutRow, asked: &LayoutRow, version: u64) -> Decision {
    let held_us = asked.held_until_us.saturating_sub(ctx.group_time_us);
    let is_same =
        (asked.kind, &asked.primary, &asked.other) == (old.kind, &old.primary, &old.other);
    if !is_same || old.kind() != LayoutKind::Standby || old.seats.is_empty() {
        let what = "only a primary with a standby and a third site hands over";
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    }
    if !(1..=HOLD_US_MAX).contains(&held_us) {
        return Ok(Err(refused(RefusalKind::Malformed, "a primary hands over within 5 minutes")));
    }
    let ids = vec![
        format!("layout={version}"),
        format!("primary={}", old.primary),
        format!("hands over to={}", old.other),
        format!("until_us={}", asked.held_until_us),
    ];
    let held_until_us = asked.held_until_us;
    let row = LayoutRow { version, time_us: ctx.group_time_us, held_until_us, ..old };
    ctx.rows.put_row(vec![table::LAYOUT], &row);
    Ok(Ok(Effect { version, ..Effect::on(ids) }))
}

/// The standby is given up: the layout has one site from then on. On a cluster of production it uses an
/// approval of exactly this up.
pub(super) fn detach(ctx: &mut Context<'_, '_>, asked: &DetachSite) -> Decision {
    let old: LayoutRow = ctx.rows.row(&[table::LAYOUT])?.unwrap_or_default();
    let next = old.version.checked_add(1).filter(|_| asked.layout == old.version);
    let Some(version) = next else {
        return Ok(Err(refused(RefusalKind::Version, "the layout was changed meanwhile")));
    };
    if old.kind() != LayoutKind::Standby || old.other != asked.site {
        return Ok(Err(refused(RefusalKind::NotFound, "this site does not stand by")));
    }
    let cluster: ClusterRow = ctx.rows.row(&[table::CLUSTER])?.unwrap_or_default();
    let mut ids = vec![format!("layout={version}"), format!("detached={}", old.other)];
    if cluster.production {
        let object = approval::detach_site(&asked.site, asked.layout);
        let taken = approvals::take(ctx, &asked.approval, approval::DETACH_SITE, &object)?;
        if let Err(refusal) = taken {
            return Ok(Err(refusal));
        }
        ids.push(approvals::object_id(&asked.approval));
    }
    let (time_us, incarnation) = (ctx.group_time_us, cluster.incarnation);
    let kind = LayoutKind::Single.into();
    let row = LayoutRow { kind, version, time_us, incarnation, ..LayoutRow::default() };
    ctx.rows.put_row(vec![table::LAYOUT], &row);
    Ok(Ok(Effect { version, ..Effect::on(ids) }))
}

/// What no layout may be.
fn malformed(row: &LayoutRow) -> Option<&'static str> {
    let sites = [&row.primary, &row.other, &row.arbiter];
    let count = sites.iter().filter(|site| !site.is_empty()).count();
    let are_apart = row.primary != row.other
        && (row.arbiter.is_empty() || (row.arbiter != row.primary && row.arbiter != row.other));
    match LayoutKind::try_from(row.kind) {
        Ok(LayoutKind::Single) if count == 0 => None,
        Ok(LayoutKind::Single) => Some("a layout of one site names no sites"),
        Ok(LayoutKind::Stretched) if count < 3 => Some("a stretched layout names three sites"),
        Ok(_)
            if row.seats.iter().any(|seat| seat.node.len() != 16 || seat.acceptor.len() != 16) =>
        {
            Some("a seat names a node and its acceptor")
        }
        Ok(LayoutKind::Standby) if row.primary.is_empty() || row.other.is_empty() => {
            Some("a layout with a standby names a primary and a standby site")
        }
        Ok(LayoutKind::Stretched | LayoutKind::Standby) if are_apart => None,
        Ok(LayoutKind::Stretched | LayoutKind::Standby) => Some("a layout names each site once"),
        Ok(LayoutKind::Unspecified) | Err(_) => Some("a layout is of a kind that is known"),
    }
}
