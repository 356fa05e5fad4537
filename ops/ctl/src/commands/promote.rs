//! `dtm site promote` and `failback`, and what nodes were told of which site is primary.

use std::time::Duration;

use dtm_client::Endpoint;
use dtm_proto::admin::admin_service_client::AdminServiceClient;
use dtm_proto::admin::{
    Context, HandOverRequest, PrimacyRequest, PrimacyResponse, PromoteSiteRequest,
    SiteStatusRequest,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::args::{FailbackArgs, Globals, PromoteArgs};
use crate::{Exit, Failure, Printer, Remote, confirm};

/// A node answers a small question within that.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// From the decision until the new primary acknowledges: its replicas are brought to one end, and the
/// old right has to end.
pub(super) const BEGUN_WITHIN: Duration = Duration::from_secs(300);
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// A primary that hands over has no right any more after that: its lease and what its nodes take to
/// learn of it.
const RIGHT_ENDS: Duration = Duration::from_secs(12);
/// The primary hands over for longer.
const DECIDED_WITHIN: Duration = Duration::from_secs(75);
/// A standby that is further behind, in entries, catches up first.
const BEHIND_MAX: u64 = 10_000;

pub(super) async fn promote(
    globals: &Globals,
    printer: &Printer<'_>,
    args: &PromoteArgs,
) -> Result<(), Failure> {
    let (endpoint, _) = Remote::endpoint(globals)?;
    if globals.reason.trim().is_empty() {
        return Err(Failure::usage("cli.promote_reason", &[]));
    }
    if let Some(file) = args.request_file.as_deref().filter(|_| args.accept_split) {
        return super::split::promote(globals, printer, args, file).await;
    }
    let site = args.site.as_str();
    confirm(globals, "cli.confirm_promote", &[("site", site)])?;
    let begun = Instant::now();
    let Some((mut client, before)) = at_site(&endpoint, site).await else {
        return Err(Failure::usage("cli.promote_nobody", &[("site", site)]));
    };
    // Asked again after it was decided it waits for what was decided.
    if before.primary != site {
        let request = PromoteSiteRequest {
            context: Some(context(globals)),
            site: site.to_owned(),
            forced: args.force,
            given_up_life: args.give_up_life,
            ..PromoteSiteRequest::default()
        };
        decide(&mut client, &endpoint, request).await?;
    }
    begins(&endpoint, printer, site, begun).await
}

/// A planned change of sites.
pub(super) async fn failback(
    globals: &Globals,
    printer: &Printer<'_>,
    args: &FailbackArgs,
) -> Result<(), Failure> {
    let (endpoint, _) = Remote::endpoint(globals)?;
    if globals.reason.trim().is_empty() {
        return Err(Failure::usage("cli.promote_reason", &[]));
    }
    let site = args.site.as_str();
    confirm(globals, "cli.confirm_failback", &[("site", site)])?;
    let Some((mut client, before)) = at_site(&endpoint, site).await else {
        return Err(Failure::usage("cli.promote_nobody", &[("site", site)]));
    };
    let begun = Instant::now();
    if before.primary != site {
        match behind(&mut client, &endpoint, site).await? {
            Some(0..=BEHIND_MAX) => {}
            Some(behind) => {
                let values = [("site", site), ("entries", &*behind.to_string())];
                return Err(Failure::usage("cli.failback_behind", &values));
            }
            None => return Err(Failure::usage("cli.failback_unfulfilled", &[("site", site)])),
        }
        let request = HandOverRequest { context: Some(context(globals)), site: site.to_owned() };
        let held = client.hand_over(endpoint.request(request)).await?.into_inner();
        if !printer.is_json() {
            printer.say("cli.failback_holds", &[("site", site)]);
        }
        hand_over(&mut client, &endpoint, globals, (site, held.held_until_us), begun).await?;
    }
    begins(&endpoint, printer, site, begun).await
}

/// The primary acknowledges nothing: the standby comes to hold everything, and it is decided.
async fn hand_over(
    client: &mut AdminServiceClient<Channel>,
    endpoint: &Endpoint,
    globals: &Globals,
    (site, held_until_us): (&str, i64),
    begun: Instant,
) -> Result<(), Failure> {
    loop {
        // Nothing comes after what is held once the old right has ended: only then it counts.
        let has_all =
            begun.elapsed() >= RIGHT_ENDS && behind(client, endpoint, site).await? == Some(0);
        if has_all {
            let request = PromoteSiteRequest {
                context: Some(context(globals)),
                site: site.to_owned(),
                held_until_us,
                ..PromoteSiteRequest::default()
            };
            match decide(client, endpoint, request).await {
                Ok(()) => return Ok(()),
                Err(refused) if begun.elapsed() >= DECIDED_WITHIN => return Err(refused),
                Err(_) => {}
            }
        }
        if begun.elapsed() >= DECIDED_WITHIN {
            return Err(Failure::Verdict { key: "cli.failback_late", exit: Exit::Failed });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Entries that a site lacks, all groups together; nothing where that is not known of every group, or the
/// layout is not fulfilled, so that some group has no copy there.
async fn behind(
    client: &mut AdminServiceClient<Channel>,
    endpoint: &Endpoint,
    site: &str,
) -> Result<Option<u64>, Failure> {
    let told = client.site_status(endpoint.request(SiteStatusRequest {})).await?.into_inner();
    let found = told.sites.iter().find(|of| of.site == site).and_then(|of| of.behind);
    Ok(found.filter(|_| told.lacks.is_empty() && told.meta_current))
}

pub(super) fn context(globals: &Globals) -> Context {
    Context {
        reason: globals.reason.clone(),
        request_id: uuid::Uuid::now_v7().as_bytes().to_vec().into(),
        second_factor: String::new(),
    }
}

async fn decide(
    client: &mut AdminServiceClient<Channel>,
    endpoint: &Endpoint,
    request: PromoteSiteRequest,
) -> Result<(), Failure> {
    match client.promote_site(endpoint.request(request)).await {
        Ok(_) => Ok(()),
        // The node that was asked starts again as soon as it is decided.
        Err(lost) if lost.get_details_error_info().is_none() => Ok(()),
        Err(refused) => Err(refused.into()),
    }
}

/// Returns when the site acknowledges in the life that was decided.
async fn begins(
    endpoint: &Endpoint,
    printer: &Printer<'_>,
    site: &str,
    begun: Instant,
) -> Result<(), Failure> {
    if !printer.is_json() {
        printer.say("cli.promote_waits", &[("site", site)]);
    }
    let deadline = begun + BEGUN_WITHIN;
    loop {
        if let Some((_, now)) = at_site(endpoint, site).await
            && (now.primary.as_str(), now.life) == (site, now.incarnation)
            && now.may_acknowledge
        {
            let (took, life) = (begun.elapsed(), now.life.to_string());
            let seconds = format!("{:.1}", took.as_secs_f64());
            let document = json!({ "site": site, "life": now.life,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX) });
            let values = [("site", site), ("life", &*life), ("seconds", &*seconds)];
            printer.done("cli.promoted", &values, &document);
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::Verdict { key: "cli.promote_late", exit: Exit::Failed });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A node of a site that answers, and what it was told.
pub(super) async fn at_site(
    endpoint: &Endpoint,
    site: &str,
) -> Option<(AdminServiceClient<Channel>, PrimacyResponse)> {
    for address in endpoint.seeds() {
        let Ok(Some((client, told))) =
            tokio::time::timeout(ANSWER_WITHIN, told_by(endpoint, address)).await
        else {
            continue;
        };
        if told.site == site {
            return Some((client, told));
        }
    }
    None
}

pub(super) async fn told_by(
    endpoint: &Endpoint,
    address: &str,
) -> Option<(AdminServiceClient<Channel>, PrimacyResponse)> {
    let mut client = AdminServiceClient::new(endpoint.channel(address).await.ok()?);
    let told = client.primacy(endpoint.request(PrimacyRequest {})).await.ok()?;
    Some((client, told.into_inner()))
}

/// What the node that was asked says of which site is primary, in a line; nothing where no register
/// decides it.
pub(super) fn line(told: &PrimacyResponse, printer: &Printer<'_>) -> Option<String> {
    if !told.needed {
        return None;
    }
    if told.number == 0 {
        return Some(printer.text("cli.primacy_unknown", &[]));
    }
    let (life, places) = (told.incarnation.to_string(), told.seats.len().to_string());
    let values = [("site", &*told.primary), ("life", &*life), ("places", &*places)];
    let by = [("by", &*told.by), ("reason", &*told.reason)];
    let line = printer.text("cli.primacy_line", &[&values[..], &by[..]].concat());
    if !told.detached {
        return Some(line);
    }
    let detached = printer.text("cli.primacy_detached", &[("standby", &*told.standby)]);
    Some(format!("{line}\n{detached}"))
}

/// The same as a document.
pub(super) fn document(told: &PrimacyResponse) -> Value {
    if !told.needed {
        return Value::Null;
    }
    let seats: Vec<_> = told.seats.iter().map(|seat| seat.place.clone()).collect();
    json!({ "decision": told.number, "life": told.incarnation, "primary": told.primary,
        "standby": told.standby, "by": told.by, "at_us": told.at_us, "reason": told.reason,
        "places": seats, "detached": told.detached, "asked_node_may_acknowledge": told.may_acknowledge,
        "why_not": told.why_not })
}
