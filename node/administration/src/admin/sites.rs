//! How replicas lie over sites: what is decided, and how far the cluster is with it.

use std::collections::{BTreeMap, BTreeSet};

use dtm_doors::lines;
use dtm_doors::primacy::Contradiction;
use dtm_doors::status::{internal, told};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_placement::{Lack, Layout, Members, Plan};
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::{LayoutKind, LayoutRow, LayoutSeat};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, NodeId};
use serde_json::json;
use tonic::{Request, Status};

use super::AdminDoor;

/// What a replica says of itself that lacks nothing of what it applied.
const HEALTHY: &str = "healthy";

impl AdminDoor {
    pub(crate) async fn put_layout(
        &self,
        request: Request<wire::PutLayoutRequest>,
    ) -> Result<wire::PutLayoutResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::PutLayout, asked.context.as_ref()).await?;
        let expected = match asked.expected_version {
            Some(expected) => expected,
            None => {
                let meta = self.0.directory.meta_now(self.0.view()).await?;
                reads::layout(meta.state.as_ref()).map_err(internal)?.version
            }
        };
        let gives_up = self.may_lay_out(asked).await?;
        let sites = [&asked.primary, &asked.other, &asked.arbiter];
        let has_register = asked.kind() == LayoutKind::Standby && !asked.arbiter.is_empty();
        let seats = if has_register { self.seats(&sites).await? } else { Vec::new() };
        let row = LayoutRow {
            seats,
            kind: asked.kind,
            primary: asked.primary.clone(),
            other: asked.other.clone(),
            arbiter: asked.arbiter.clone(),
            ..LayoutRow::default()
        };
        if has_register {
            let held = self.0.primacy.goes_with(&self.0, &row).await;
            held.map_err(|contradiction| self.contradicted(&contradiction))?;
        }
        let kind = row.kind().as_str_name();
        let detail = json!({"kind": kind, "primary": row.primary, "other": row.other,
            "arbiter": row.arbiter});
        // Last, since it is not taken back: what else can be refused was by now.
        if let Some(layout) = gives_up {
            self.is_acceptable(&row, &layout, expected).await?;
            self.is_given_up(&asker, &layout).await?;
        }
        let done = self.act(asker, Op::PutLayout(row), Some(expected), detail).await?;
        Ok(wire::PutLayoutResponse { version: done.version })
    }

    pub(crate) async fn site_status(
        &self,
        request: Request<wire::SiteStatusRequest>,
    ) -> Result<wire::SiteStatusResponse, Status> {
        self.0.allow(&request, Operation::SiteStatus, None).await?;
        self.site_status_now().await
    }

    /// The layout, and how far the cluster is with it.
    pub async fn site_status_now(&self) -> Result<wire::SiteStatusResponse, Status> {
        let status = self.0.status().await?;
        let meta = self.0.directory.meta(self.0.view()).await?;
        let plan = Plan::read(meta.state.as_ref()).map_err(internal)?;
        let row = reads::layout(meta.state.as_ref()).map_err(internal)?;
        let lacks = plan.lacks(self.0.cluster.voters_max(), &in_force(&plan, &status.groups));
        Ok(wire::SiteStatusResponse {
            layout: Some(row),
            sites: sites(&plan, &status),
            lacks: lacks.iter().map(lack_to_wire).collect(),
            meta_current: status.meta_current,
            lines: lines::with_names(&status.nodes),
            contact: self.0.settings.now().running.sites.contact.clone(),
            without_standby: without_standby(&status.groups),
            compared: status.groups.iter().filter_map(|group| group.compared.clone()).collect(),
        })
    }
}

impl AdminDoor {
    /// A site that lost the right to acknowledge does not get it back by giving its standby up: that one
    /// may be primary by now. Where it has the right, and gives the standby or the register up, the places
    /// decide first that the standby is not promoted any more.
    ///
    /// Returns the layout in force where its standby is given up.
    async fn may_lay_out(
        &self,
        asked: &wire::PutLayoutRequest,
    ) -> Result<Option<LayoutRow>, Status> {
        let meta = self.0.directory.meta(self.0.view()).await?;
        let layout = reads::layout(meta.state.as_ref()).map_err(internal)?;
        if !dtm_doors::primacy::has_register(&layout) {
            return Ok(None);
        }
        let cluster = reads::cluster(meta.state.as_ref()).map_err(internal)?;
        let is_production = cluster.is_some_and(|cluster| cluster.production);
        // Before the places decide anything: what they give up is not taken back.
        if is_production && asked.accept_split {
            return Err(told(ErrorCode::NotSupported, &Told::new("refused.layout.split")));
        }
        let gives_up = asked.kind() != LayoutKind::Standby || asked.arbiter.is_empty();
        if is_production && gives_up {
            return Err(told(ErrorCode::ApprovalNeeded, &Told::new("apply.layout_detach")));
        }
        if self.0.primacy.may_acknowledge() {
            return Ok(gives_up.then_some(layout));
        }
        if !asked.accept_split {
            let what = Told::new("refused.layout.no_right").with("primary", &layout.primary);
            return Err(told(ErrorCode::Unavailable, &what));
        }
        if asked.context.as_ref().is_none_or(|context| context.reason.trim().is_empty()) {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.promote.reason")));
        }
        Ok(None)
    }

    /// What apply would refuse of this layout, before the places give up the standby of the one in force.
    async fn is_acceptable(
        &self,
        row: &LayoutRow,
        in_force: &LayoutRow,
        expected: u64,
    ) -> Result<(), Status> {
        if expected != in_force.version {
            return Err(told(ErrorCode::VersionConflict, &Told::new("refused.layout.changed")));
        }
        let meta = self.0.directory.meta(self.0.view()).await?;
        let nodes = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        let named = [&row.primary, &row.other, &row.arbiter].into_iter().filter(|s| !s.is_empty());
        for site in named {
            if !nodes.iter().any(|node| !node.removed && node.site == *site) {
                let what = Told::new("refused.layout.no_node").with("site", site);
                return Err(told(ErrorCode::NotFound, &what));
            }
        }
        match row.kind() {
            LayoutKind::Unspecified => {
                Err(told(ErrorCode::InvalidArgument, &Told::new("refused.layout.kind")))
            }
            _ => Ok(()),
        }
    }

    /// An acceptor a site: of the node with the lowest id that answers.
    async fn seats(&self, sites: &[&String]) -> Result<Vec<LayoutSeat>, Status> {
        let meta = self.0.directory.meta(self.0.view()).await?;
        let nodes = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        let mut seats = Vec::new();
        for site in sites {
            let here = nodes.iter().filter(|row| !row.removed && row.site == ***site);
            let ids = here.filter_map(|row| NodeId::from_slice(&row.node));
            let seat = self.0.primacy.seat_at(&self.0, site, ids.collect()).await;
            seats.push(seat.ok_or_else(|| {
                let what = Told::new("refused.layout.no_acceptor").with("site", site);
                told(ErrorCode::Unavailable, &what)
            })?);
        }
        Ok(seats)
    }

    /// The register over these seats does not go with the layout that was asked for.
    fn contradicted(&self, contradiction: &Contradiction) -> Status {
        match contradiction {
            Contradiction::Decided(held) => {
                let places: Vec<&str> = held.seats.iter().map(|seat| seat.place.as_str()).collect();
                let what = Told::new("refused.layout.register");
                let what = what.with("primary", &held.primary).with("standby", &held.standby);
                let what = what.with("life", held.incarnation).with("own", self.0.primacy.own());
                told(ErrorCode::AlreadyExists, &what.with("places", places.join(", ")))
            }
            Contradiction::Silent { places } => {
                let places = if places.is_empty() { "-".to_owned() } else { places.join(", ") };
                let what = Told::new("refused.layout.places").with("places", places);
                told(ErrorCode::Unavailable, &what)
            }
        }
    }
}

/// Members of the groups that some node leads, as its voters and learners say.
fn in_force(plan: &Plan, groups: &[wire::GroupStatus]) -> BTreeMap<u32, Members> {
    let led = groups.iter().filter(|group| !group.leader_node.is_empty());
    let members = led.filter_map(|group| {
        let row = plan.groups().iter().find(|row| row.group == group.group)?;
        let known = plan.replicas(row);
        let mut members = Members::default();
        for replica in group.replicas.iter().filter(|r| known.contains_key(&r.replica)) {
            let node = NodeId::from_slice(&replica.node)?;
            let of = if replica.voter { &mut members.voters } else { &mut members.learners };
            of.insert(replica.replica, node);
        }
        Some((group.group, members))
    });
    members.collect()
}

/// Every site that has a node or that the layout names.
fn sites(plan: &Plan, status: &wire::ClusterStatusResponse) -> Vec<wire::SiteDetail> {
    let layout = plan.layout();
    let mut all: BTreeMap<String, wire::SiteDetail> = BTreeMap::new();
    let named = layout.sites().map(str::to_owned);
    for site in named.chain(plan.nodes().values().map(|row| row.site.clone())) {
        let role = role(layout, &site).to_owned();
        let detail = wire::SiteDetail { site: site.clone(), role, ..Default::default() };
        all.entry(site).or_insert(detail);
    }
    for node in &status.nodes {
        let site = node.node.as_ref().map(|row| row.site.as_str()).unwrap_or_default();
        if let Some(detail) = all.get_mut(site) {
            detail.nodes += 1;
            detail.nodes_reachable += u32::from(node.reachable);
        }
    }
    // Sites where a replica does not hold what its log says that it has.
    let mut unwhole = BTreeSet::new();
    let site_of = |node: &[u8]| plan.site(NodeId::from_slice(node).unwrap_or_default());
    for group in &status.groups {
        if let Some(detail) = all.get_mut(site_of(&group.leader_node)) {
            detail.leaders += 1;
        }
        for replica in &group.replicas {
            if let Some(detail) = all.get_mut(site_of(&replica.node)) {
                unwhole.extend((replica.health != HEALTHY).then(|| detail.site.clone()));
                detail.voters += u32::from(replica.voter);
                detail.learners += u32::from(!replica.voter);
            }
        }
        for lag in &group.lags {
            if let Some(detail) = all.get_mut(&lag.site) {
                add_lag(&mut detail.lags, group.group, lag);
            }
        }
    }
    for detail in all.values_mut() {
        detail.behind = behind(detail, plan.groups().len(), !unwhole.contains(&detail.site));
    }
    // The layout's own first, in its order.
    let place =
        |role: &str| ["primary", "standby", "arbiter"].iter().position(|known| *known == role);
    let mut sites: Vec<wire::SiteDetail> = all.into_values().collect();
    sites.sort_by_key(|detail| place(&detail.role).unwrap_or(usize::MAX));
    sites
}

/// Groups of which their leader says so.
fn without_standby(groups: &[wire::GroupStatus]) -> Vec<u32> {
    let bare = groups.iter().filter(|group| group.standby_sets == Some(0));
    bare.map(|group| group.group).collect()
}

/// Entries that a site lacks of all groups; nothing where the leader of one of them did not tell.
fn behind(detail: &wire::SiteDetail, groups: usize, is_whole: bool) -> Option<u64> {
    let is_known = is_whole && groups > 0 && detail.lags.len() == groups;
    is_known.then(|| detail.lags.iter().map(|lag| lag.entries).sum())
}

fn role(layout: &Layout, site: &str) -> &'static str {
    match layout.kind {
        LayoutKind::Unspecified | LayoutKind::Single => "",
        _ if site == layout.primary => "primary",
        _ if site == layout.other => "standby",
        _ if site == layout.arbiter => "arbiter",
        _ => "",
    }
}

/// Of several replicas of a group the one that is furthest behind counts.
fn add_lag(lags: &mut Vec<wire::SiteLag>, group: u32, lag: &wire::ReplicaLag) {
    let at = lags.iter().position(|known| known.group == group).unwrap_or_else(|| {
        lags.push(wire::SiteLag { group, ..wire::SiteLag::default() });
        lags.len() - 1
    });
    let known = &mut lags[at];
    known.entries = known.entries.max(lag.entries);
    known.lag_ms = known.lag_ms.max(lag.lag_ms);
    known.late |= lag.late;
    known.replicas += 1;
}

fn lack_to_wire(lack: &Lack) -> wire::LayoutLack {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let of = |kind: wire::LackKind, site: &str, group, found, wanted| wire::LayoutLack {
        kind: kind.into(),
        site: site.to_owned(),
        group,
        found: count(found),
        wanted: count(wanted),
    };
    match lack {
        Lack::NoNode { site } => of(wire::LackKind::NoNode, site, 0, 0, 1),
        Lack::FewNodes { site, nodes, wanted } => {
            of(wire::LackKind::FewNodes, site, 0, *nodes, *wanted)
        }
        Lack::Voters { group, site, voters, wanted } => {
            of(wire::LackKind::Voters, site, *group, *voters, *wanted)
        }
        Lack::Learners { group, site, learners, wanted } => {
            of(wire::LackKind::Learners, site, *group, *learners, *wanted)
        }
        Lack::Moving { group, replicas } => of(wire::LackKind::Moving, "", *group, *replicas, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_furthest_behind_counts_for_its_site() {
        let lag = |entries, lag_ms| wire::ReplicaLag { entries, lag_ms, ..Default::default() };
        let mut site = wire::SiteDetail::default();
        add_lag(&mut site.lags, 1, &lag(3, 40));
        add_lag(&mut site.lags, 2, &lag(4, 40));
        assert_eq!(behind(&site, 2, true), Some(7));
        assert_eq!(behind(&site, 3, true), None, "nobody told of the third group");
        assert_eq!(behind(&site, 2, false), None, "a replica still fetches");
        let mut lags = Vec::new();
        add_lag(&mut lags, 1, &lag(3, 40));
        add_lag(&mut lags, 1, &lag(90, 10));
        add_lag(&mut lags, 2, &lag(0, 0));
        let told: Vec<_> =
            lags.iter().map(|lag| (lag.group, lag.entries, lag.lag_ms, lag.replicas)).collect();
        assert_eq!(told, [(1, 90, 40, 2), (2, 0, 0, 1)]);
    }

    #[test]
    fn a_group_without_a_standby_set_is_named_where_there_is_to_be_one() {
        let group = |group, standby_sets| wire::GroupStatus {
            group,
            standby_sets,
            ..wire::GroupStatus::default()
        };
        let groups = [group(0, Some(2)), group(1, Some(0)), group(2, None)];
        assert_eq!(without_standby(&groups), [1]);
    }

    #[test]
    fn what_is_lacking_keeps_its_numbers() {
        let lack = Lack::Learners { group: 3, site: "b".to_owned(), learners: 1, wanted: 3 };
        let told = lack_to_wire(&lack);
        assert_eq!((told.kind(), &*told.site), (wire::LackKind::Learners, "b"));
        assert_eq!((told.group, told.found, told.wanted), (3, 1, 3));
    }
}
