//! `dtm site layout|detach|confirm|status`.

use dtm_proto::admin::{
    ConfirmChannelRequest, DetachSiteRequest, LackKind, LayoutLack, PrimacyRequest,
    PutLayoutRequest, RowsCompared, SiteDetail, SiteStatusRequest, SiteStatusResponse,
};
use dtm_types::command::{LayoutKind, LayoutRow};
use serde_json::{Value, json};

use super::text::group_name;
use super::{lines, promote};
use crate::args::{DetachArgs, Globals, LayoutArgs, LayoutName, SiteCommand};
use crate::{Exit, Failure, Printer, Remote, confirm};

/// Rows that differ and are named on one line.
const ROWS_NAMED: usize = 3;
/// A difference between replicas is found within this (P-20.3).
const COMPARED_WITHIN_MS: u64 = 3_600_000;

pub(crate) async fn run(command: &SiteCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        SiteCommand::Layout(args) => layout(globals, &printer, args).await,
        SiteCommand::Promote(args) => super::promote::promote(globals, &printer, args).await,
        SiteCommand::Failback(args) => super::promote::failback(globals, &printer, args).await,
        SiteCommand::Detach(args) => detach(globals, &printer, args).await,
        SiteCommand::Left(args) => super::left::run(globals, &printer, args).await,
        SiteCommand::Confirm => confirm_channel(globals, &printer).await,
        SiteCommand::Status => status(globals, &printer).await,
    }
}

async fn confirm_channel(globals: &Globals, printer: &Printer<'_>) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    confirm(globals, "cli.confirm_channel", &[])?;
    let request = ConfirmChannelRequest { context: remote.why() };
    let done = remote.admin().confirm_channel(remote.request(request)).await?.into_inner();
    let document = json!({ "lines": done.lines, "silent": done.silent });
    printer.done("cli.channel_confirmed", &[("lines", &done.lines.to_string())], &document);
    if !done.silent.is_empty() && !printer.is_json() {
        printer.say("cli.channel_silent", &[("nodes", &done.silent.join(", "))]);
    }
    Ok(())
}

async fn layout(
    globals: &Globals,
    printer: &Printer<'_>,
    args: &LayoutArgs,
) -> Result<(), Failure> {
    let kind = match args.kind {
        LayoutName::Single => LayoutKind::Single,
        LayoutName::Stretched => LayoutKind::Stretched,
        LayoutName::Standby => LayoutKind::Standby,
    };
    let remote = Remote::connect(globals).await?;
    let request = PutLayoutRequest {
        context: remote.why(),
        kind: kind.into(),
        primary: args.primary.clone(),
        other: args.standby.clone(),
        arbiter: args.arbiter.clone(),
        expected_version: None,
        accept_split: args.accept_split,
    };
    let done = remote.admin().put_layout(remote.request(request)).await?.into_inner();
    let version = done.version.to_string();
    let document = json!({ "version": done.version, "kind": name(kind), "primary": args.primary,
        "standby": args.standby, "arbiter": args.arbiter });
    printer.done("cli.layout_put", &[("kind", name(kind)), ("version", &version)], &document);
    Ok(())
}

async fn detach(
    globals: &Globals,
    printer: &Printer<'_>,
    args: &DetachArgs,
) -> Result<(), Failure> {
    let site = args.site.as_str();
    confirm(globals, "cli.confirm_detach", &[("site", site)])?;
    let remote = Remote::connect(globals).await?;
    let request = DetachSiteRequest {
        context: remote.why(),
        site: site.to_owned(),
        approval: args.approval.map(|id| id.0.to_vec().into()).unwrap_or_default(),
    };
    let done = remote.admin().detach_site(remote.request(request)).await?.into_inner();
    let version = done.version.to_string();
    let document = json!({ "site": site, "version": done.version });
    printer.done("cli.site_detached", &[("site", site), ("version", &version)], &document);
    Ok(())
}

async fn status(globals: &Globals, printer: &Printer<'_>) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let asked = remote.admin().site_status(remote.request(SiteStatusRequest {})).await?;
    let status = asked.into_inner();
    let primacy = remote.admin().primacy(remote.request(PrimacyRequest {})).await?.into_inner();
    let troubles = troubles(&status, printer);
    if printer.is_json() {
        let mut told = document(&status, &troubles);
        told["register"] = promote::document(&primacy);
        printer.json(&told);
    } else {
        let row = status.layout.clone().unwrap_or_default();
        let version = row.version.to_string();
        printer.say("cli.layout_line", &[("kind", kind_of(&row)), ("version", &version)]);
        promote::line(&primacy, printer).into_iter().for_each(|line| printer.raw(&line));
        if !status.meta_current {
            printer.say("cli.site_stale", &[]);
        }
        printer.raw("");
        let columns =
            ["site", "role", "nodes", "groups_led", "voters", "learners", "entries", "behind"];
        printer.table(
            &columns,
            status.sites.iter().map(|site| site_row(site, printer)).collect(),
            &Value::Null,
        );
        lines::table(&status, printer);
        for trouble in &troubles {
            printer.raw(&format!("! {trouble}"));
        }
    }
    if troubles.is_empty() {
        Ok(())
    } else {
        Err(Failure::Verdict { key: "cli.unfulfilled", exit: Exit::Unhealthy })
    }
}

fn kind_of(row: &LayoutRow) -> &'static str {
    name(row.kind())
}

fn name(kind: LayoutKind) -> &'static str {
    match kind {
        LayoutKind::Unspecified | LayoutKind::Single => "single",
        LayoutKind::Stretched => "stretched",
        LayoutKind::Standby => "standby",
    }
}

fn site_row(site: &SiteDetail, printer: &Printer<'_>) -> Vec<String> {
    let role = match site.role.as_str() {
        "primary" => printer.text("cli.site_role.primary", &[]),
        "standby" => printer.text("cli.site_role.standby", &[]),
        "arbiter" => printer.text("cli.site_role.arbiter", &[]),
        _ => "-".to_owned(),
    };
    let (entries, behind) = furthest(site).map_or(("-".to_owned(), "-".to_owned()), |(n, ms)| {
        (n.to_string(), format!("{} s", seconds(ms)))
    });
    vec![
        site.site.clone(),
        role,
        format!("{}/{}", site.nodes_reachable, site.nodes),
        site.leaders.to_string(),
        site.voters.to_string(),
        site.learners.to_string(),
        entries,
        behind,
    ]
}

/// Entries and time of the group that is furthest behind; `None` where none is sent there.
fn furthest(site: &SiteDetail) -> Option<(u64, u64)> {
    let entries = site.lags.iter().map(|lag| lag.entries).max()?;
    Some((entries, site.lags.iter().map(|lag| lag.lag_ms).max()?))
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1_000, ms % 1_000 / 100)
}

/// What is not as the layout has it, in words.
fn troubles(status: &SiteStatusResponse, printer: &Printer<'_>) -> Vec<String> {
    let mut troubles: Vec<String> =
        status.lacks.iter().map(|lack| lack_text(lack, printer)).collect();
    for site in &status.sites {
        let count = site.lags.iter().filter(|lag| lag.late).count();
        if let Some((entries, ms)) = furthest(site).filter(|_| count > 0) {
            let values = [
                ("site", &*site.site),
                ("count", &*count.to_string()),
                ("entries", &*entries.to_string()),
                ("seconds", &*seconds(ms)),
            ];
            troubles.push(printer.text("cli.site_lags", &values));
        }
    }
    troubles.extend(lines::troubles(status, printer));
    for group in &status.without_standby {
        troubles.push(printer.text("cli.no_standby_set", &[("group", &group_name(*group))]));
    }
    troubles.extend(status.compared.iter().filter_map(|found| compared_text(found, printer)));
    troubles
}

/// Why the rows of a group's replicas are not known to be the same now; `None` where they are.
fn compared_text(found: &RowsCompared, printer: &Printer<'_>) -> Option<String> {
    let group = group_name(found.group);
    if found.differing > 0 {
        let (count, index) = (found.differing.to_string(), found.index.to_string());
        let rows = found.named.iter().take(ROWS_NAMED).cloned().collect::<Vec<_>>().join("; ");
        let values = [("group", &*group), ("count", &*count), ("index", &*index), ("rows", &*rows)];
        return Some(printer.text("cli.rows_differ", &values));
    }
    let minutes = (found.age_ms / 60_000).to_string();
    let values = [("group", &*group), ("minutes", &*minutes)];
    (found.age_ms > COMPARED_WITHIN_MS).then(|| printer.text("cli.rows_not_compared", &values))
}

fn lack_text(lack: &LayoutLack, printer: &Printer<'_>) -> String {
    let (found, wanted) = (lack.found.to_string(), lack.wanted.to_string());
    let group = group_name(lack.group);
    let site = ("site", lack.site.as_str());
    let (group, found, wanted) = (("group", &*group), ("found", &*found), ("wanted", &*wanted));
    match lack.kind() {
        LackKind::NoNode => printer.text("cli.lack.no_node", &[site]),
        LackKind::FewNodes => printer.text("cli.lack.few_nodes", &[site, found, wanted]),
        LackKind::Voters if lack.site.is_empty() => {
            printer.text("cli.lack.voters", &[group, found, wanted])
        }
        LackKind::Voters => printer.text("cli.lack.voters_at", &[group, site, found, wanted]),
        LackKind::Learners => printer.text("cli.lack.learners", &[group, site, found, wanted]),
        LackKind::Moving => printer.text("cli.lack.moving", &[group, found]),
        // Of a newer node.
        LackKind::Unspecified => printer.text("cli.lack.else", &[("kind", &lack.kind.to_string())]),
    }
}

fn document(status: &SiteStatusResponse, troubles: &[String]) -> Value {
    let row = status.layout.clone().unwrap_or_default();
    let sites = status.sites.iter().map(|site| {
        let lags = site.lags.iter().map(|lag| {
            json!({ "group": lag.group, "entries": lag.entries, "lag_ms": lag.lag_ms,
                "replicas": lag.replicas, "late": lag.late })
        });
        json!({ "site": site.site, "role": site.role, "nodes": site.nodes,
            "nodes_reachable": site.nodes_reachable, "replicas": site.voters + site.learners,
            "voters": site.voters, "learners": site.learners, "groups_led": site.leaders,
            "lags": lags.collect::<Vec<_>>() })
    });
    let lacks = status.lacks.iter().map(|lack| {
        let kind = lack.kind().as_str_name().trim_start_matches("LACK_KIND_").to_lowercase();
        json!({ "kind": kind, "site": lack.site, "group": lack.group, "found": lack.found,
            "wanted": lack.wanted })
    });
    let compared = status.compared.iter().map(|found| {
        json!({ "group": found.group, "index": found.index, "age_ms": found.age_ms,
            "rows": found.rows, "replicas": found.replicas, "absent": found.absent,
            "differing": found.differing, "undecided": found.undecided, "named": found.named })
    });
    json!({
        "layout": { "kind": kind_of(&row), "version": row.version, "primary": row.primary,
            "standby": row.other, "arbiter": row.arbiter },
        "fulfilled": status.lacks.is_empty(), "lacks": lacks.collect::<Vec<_>>(),
        "sites": sites.collect::<Vec<_>>(), "lines": lines::document(status),
        "contact": status.contact,
        "without_standby": status.without_standby, "compared": compared.collect::<Vec<_>>(),
        "meta_current": status.meta_current, "troubles": troubles,
    })
}

#[cfg(test)]
mod tests {
    use dtm_proto::admin::SiteLag;

    use super::*;

    #[test]
    fn a_site_is_as_far_behind_as_its_furthest_group() {
        let lag = |group, entries, lag_ms| SiteLag { group, entries, lag_ms, ..SiteLag::default() };
        let lags = vec![lag(1, 7, 1_250), lag(2, 90, 40)];
        let site = SiteDetail { lags, ..SiteDetail::default() };
        assert_eq!(furthest(&site), Some((90, 1_250)));
        assert_eq!(furthest(&SiteDetail::default()), None);
        assert_eq!([seconds(0), seconds(1_250), seconds(61_999)], ["0.0", "1.2", "61.9"]);
    }
}
