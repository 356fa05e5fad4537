//! `DetachSite`: a standby that is gone for good is not waited for any more.
//!
//! ```text
//!  stands by? ─▶ approved, where it takes two people ─▶ the places decide: it is not promoted any more
//!     ─▶ the layout's row: one site. Sessions and meta wait for nobody from then on
//! ```
//! Every step may be repeated; where the places do not decide, nothing changes.

use dtm_doors::primacy::NotDetached;
use dtm_doors::status::{internal, told};
use dtm_identity::Operation;
use dtm_machine::{approval, reads};
use dtm_proto::admin as wire;
use dtm_types::ErrorCode;
use dtm_types::command::admin::Op;
use dtm_types::command::{DetachSite, LayoutKind, LayoutRow};
use dtm_types::text::Told;
use serde_json::json;
use tonic::{Request, Status};

use super::approvals::Deed;
use super::cluster::node_id;
use super::{AdminDoor, Asker};

impl AdminDoor {
    pub(super) async fn detach_site(
        &self,
        request: Request<wire::DetachSiteRequest>,
    ) -> Result<wire::DetachSiteResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::DetachSite, asked.context.as_ref()).await?;
        if asker.reason.trim().is_empty() {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.detach.reason")));
        }
        if let Some(why) = self.0.primacy.leaves_behind() {
            return Err(told(ErrorCode::Unavailable, &why));
        }
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let layout = reads::layout(meta.state.as_ref()).map_err(internal)?;
        if layout.kind() != LayoutKind::Standby || layout.other != asked.site {
            let what = Told::new("refused.detach.not_standby").with("site", &asked.site);
            return Err(told(ErrorCode::InvalidArgument, &what));
        }
        let cluster = reads::cluster(meta.state.as_ref()).map_err(internal)?;
        let (site, version) = (asked.site.clone(), layout.version);
        let mut op = DetachSite { site, layout: version, ..DetachSite::default() };
        let mut detail = json!({"site": asked.site, "layout": version});
        if cluster.is_some_and(|cluster| cluster.production) {
            let object = approval::detach_site(&asked.site, version);
            let deed = Deed { kind: approval::DETACH_SITE, object };
            let approved = self.approved(&asker, deed, &asked.approval).await?;
            detail["approval"] = json!(node_id(&approved.id)?.to_string());
            detail["requested_by"] = json!(approved.requested_by);
            detail["granted_by"] = json!(approved.granted_by);
            op.approval = approved.id;
        }
        self.is_given_up(&asker, &layout).await?;
        let done = self.act(asker, Op::DetachSite(op), None, detail).await?;
        Ok(wire::DetachSiteResponse { version: done.version })
    }

    /// The places decide that the standby of this layout is not promoted any more: before its row goes,
    /// since a standby that is cut off does not learn of the row.
    pub(super) async fn is_given_up(
        &self,
        asker: &Asker,
        layout: &LayoutRow,
    ) -> Result<(), Status> {
        let why = (asker.caller.to_string(), asker.reason.clone());
        let detached = self.0.primacy.detach(&self.0, layout, why).await;
        detached.map_err(|error| refusal(&error))
    }
}

fn refusal(error: &NotDetached) -> Status {
    match error {
        NotDetached::NotPrimary { primary, life } => {
            let what = Told::new("refused.detach.primary").with("primary", primary);
            told(ErrorCode::Unavailable, &what.with("life", life))
        }
        NotDetached::Undecided { what, places } => {
            tracing::warn!(what, "a standby was not detached");
            let places = if places.is_empty() { "-".to_owned() } else { places.join(", ") };
            let what = Told::new("refused.detach.undecided").with("places", places);
            told(ErrorCode::QuorumNeeded, &what)
        }
    }
}
