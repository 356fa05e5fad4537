//! Which site is primary, and that the standby becomes it.

use std::time::Duration;

use bytes::Bytes;
use dtm_doors::primacy::{Primacy, Refused, has_register};
use dtm_doors::status::{internal, told};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_types::ErrorCode;
use dtm_types::command::LayoutRow;
use dtm_types::command::admin::Op;
use dtm_types::text::Told;
use serde_json::json;
use tonic::{Request, Status};

use super::AdminDoor;

/// How long a primary acknowledges nothing at a planned change of sites: its right ends in 10 s of it,
/// the standby comes to hold everything, and then it is decided.
const HELD_FOR_US: i64 = 90_000_000;
/// A decision takes no longer; what is left of the time that the primary hands over.
const DECIDED_WITHIN_US: i64 = 10_000_000;

impl AdminDoor {
    /// Who may is decided by the rows of meta as this node knows them: the primary, and with it the
    /// majority of meta, may be gone. What is decided is the first leaf of every ledger of the next
    /// life, with who and why.
    pub async fn promote_site(
        &self,
        request: Request<wire::PromoteSiteRequest>,
    ) -> Result<wire::PromoteSiteResponse, Status> {
        let caller = self.0.allow_known(&request, Operation::PromoteSite).await?;
        let asked = request.into_inner();
        let context = asked.context.unwrap_or_default();
        if context.reason.trim().is_empty() {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.promote.reason")));
        }
        if asked.site != self.0.row.site {
            let other = Told::new("refused.promote.node");
            let other = other.with("site", &asked.site).with("own", &self.0.row.site);
            return Err(told(ErrorCode::InvalidArgument, &other));
        }
        if asked.held_until_us > 0
            && asked.held_until_us - self.0.clock.now_us() < DECIDED_WITHIN_US
        {
            return Err(told(ErrorCode::Unavailable, &Told::new("refused.promote.held")));
        }
        if let Some(split) = &asked.split {
            self.promote_by_split(split).await?;
            return Ok(wire::PromoteSiteResponse { primacy: Some(self.told_of_primacy()) });
        }
        let meta = self.0.directory.meta(self.0.view()).await?;
        let cluster = reads::cluster(meta.state.as_ref()).map_err(internal)?;
        if asked.forced && cluster.is_some_and(|cluster| cluster.production) {
            return Err(told(ErrorCode::NotSupported, &Told::new("refused.promote.forced")));
        }
        let why = (caller.to_string(), context.reason);
        if asked.held_until_us > 0 {
            self.holds_everything(&asked.site).await?;
        }
        let how = (asked.forced, asked.given_up_life);
        let promoted = self.0.primacy.promote(&self.0, why, how).await;
        promoted.map_err(|refused| refusal(&refused))?;
        tracing::warn!(by = %caller, site = asked.site, "administrative action: promotion of a site");
        Ok(wire::PromoteSiteResponse { primacy: Some(self.told_of_primacy()) })
    }

    /// The layout says until when, for every node of the primary: those that lead a group refuse what
    /// others forward to them.
    pub async fn hand_over(
        &self,
        request: Request<wire::HandOverRequest>,
    ) -> Result<wire::HandOverResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::PromoteSite, asked.context.as_ref()).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let layout = reads::layout(meta.state.as_ref()).map_err(internal)?;
        if !has_register(&layout) || layout.other != asked.site {
            let what = Told::new("refused.promote.not_standby").with("site", &asked.site);
            return Err(told(ErrorCode::InvalidArgument, &what));
        }
        let held_until_us = self.0.clock.now_us() + HELD_FOR_US;
        let detail = json!({"to": layout.other, "until_us": held_until_us});
        let expected = Some(layout.version);
        let row = LayoutRow { held_until_us, incarnation: 0, ..layout };
        self.act(asker, Op::PutLayout(row), expected, detail).await?;
        Ok(wire::HandOverResponse { held_until_us })
    }

    /// At a planned change nothing is left behind, as far as the leaders of the primary know.
    async fn holds_everything(&self, site: &str) -> Result<(), Status> {
        let known = self.site_status_now().await?;
        let of = known.sites.iter().find(|of| of.site == site);
        let behind = of.and_then(|of| of.behind).filter(|_| known.lacks.is_empty());
        if behind == Some(0) {
            return Ok(());
        }
        let what = Told::new("refused.promote.behind").with("site", site);
        let entries = behind.map_or_else(|| "-".to_owned(), |entries| entries.to_string());
        Err(told(ErrorCode::Unavailable, &what.with("entries", entries)))
    }

    pub(crate) async fn primacy(
        &self,
        request: Request<wire::PrimacyRequest>,
    ) -> Result<wire::PrimacyResponse, Status> {
        self.0.allow_known(&request, Operation::Primacy).await?;
        Ok(self.told_of_primacy())
    }

    fn told_of_primacy(&self) -> wire::PrimacyResponse {
        let told = primacy_to_wire(&self.0.primacy);
        wire::PrimacyResponse {
            site: self.0.row.site.clone(),
            cluster_id: Bytes::copy_from_slice(&self.0.cluster_id.0),
            node: Bytes::copy_from_slice(&self.0.node.0),
            ..told
        }
    }
}

fn refusal(refused: &Refused) -> Status {
    let all = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    let ago = |of: &[(String, Duration)]| {
        let words = of.iter().map(|(place, ago)| format!("{place} {:.1} s", ago.as_secs_f64()));
        all(&words.collect::<Vec<_>>())
    };
    match refused {
        Refused::NoStandby => {
            told(ErrorCode::NotSupported, &Told::new("refused.promote.no_standby"))
        }
        Refused::Already { site, life } => {
            let what = Told::new("refused.promote.already").with("site", site).with("life", life);
            told(ErrorCode::AlreadyExists, &what)
        }
        Refused::OtherSite { standby } => {
            let what = Told::new("refused.promote.other").with("site", standby);
            told(ErrorCode::InvalidArgument, &what)
        }
        Refused::Outlived { site, own, known } => {
            let what = Told::new("refused.promote.outlived").with("site", site);
            told(ErrorCode::WrongIncarnation, &what.with("own", own).with("life", known))
        }
        Refused::PrimaryLives { site, heard, silent, young } => {
            let what = Told::new("refused.promote.lives").with("site", site);
            let what = what.with("heard", ago(heard)).with("silent", all(silent));
            told(ErrorCode::Unavailable, &what.with("young", ago(young)))
        }
        Refused::Detached { site } => {
            let what = Told::new("refused.promote.detached").with("site", site);
            told(ErrorCode::NotSupported, &what)
        }
        Refused::Undecided { what, places } => {
            tracing::warn!(what, "a promotion was not decided");
            let what = Told::new("refused.promote.undecided").with("places", all(places));
            told(ErrorCode::QuorumNeeded, &what)
        }
        Refused::Unknown { what, places } => {
            tracing::warn!(what, "whether a promotion was decided is not known");
            let what = Told::new("refused.promote.unknown").with("places", all(places));
            told(ErrorCode::OutcomeUnknown, &what)
        }
    }
}

fn primacy_to_wire(primacy: &Primacy) -> wire::PrimacyResponse {
    let may_acknowledge = primacy.may_acknowledge();
    let why_not = if may_acknowledge { String::new() } else { primacy.why_not() };
    let told = wire::PrimacyResponse {
        needed: primacy.is_needed(),
        may_acknowledge,
        why_not,
        life: primacy.own().0,
        ..wire::PrimacyResponse::default()
    };
    let Some(decision) = primacy.decision() else { return told };
    let seats = decision.seats.iter().map(|seat| wire::PrimacySeat {
        place: seat.place.clone(),
        node: Bytes::copy_from_slice(&seat.node.0),
        acceptor: Bytes::copy_from_slice(&seat.acceptor.0),
    });
    wire::PrimacyResponse {
        number: decision.number,
        incarnation: decision.incarnation.0,
        seats: seats.collect(),
        detached: !decision.is_attached(),
        primary: decision.primary,
        standby: decision.standby,
        by: decision.act.by,
        at_us: decision.act.at_us,
        reason: decision.act.reason,
        ..told
    }
}
