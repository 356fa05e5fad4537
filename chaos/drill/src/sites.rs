//! A cluster over several sites: how it comes to its layout, and how a standby is promoted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_proto::admin::{
    LayoutLack, PrimacyRequest, PrimacyResponse, SiteDetail, SiteStatusRequest, SiteStatusResponse,
};
use dtm_scenario::{Layout, LayoutAsked};

use crate::cluster::{Cluster, EVERY, Refused, WITHIN};

/// Replicas move over the lines between sites, on a machine that carries all the nodes.
const LAID_WITHIN: Duration = Duration::from_secs(300);
/// Longer than a node waits for a majority of meta that is not there.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two times that a promotion is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A copy that is further behind is not settled; some entries are always on their way.
const BEHIND_MAX_MS: u64 = 1_000;

impl Cluster {
    /// The other nodes join: the primary's, one of each other site, then the layout is put, before
    /// replicas spread over sites of which each is as good as the other; then the rest.
    pub(crate) async fn assemble(&mut self) -> Result<()> {
        let (first, rest) = joining(&self.nodes.iter().map(|node| node.site).collect::<Vec<_>>());
        for at in first {
            self.join(at).await?;
        }
        if self.plan.layout != Layout::Single {
            let end = Instant::now() + WITHIN;
            let asked = self.planned();
            // Once a node of each site runs.
            while let Err(error) = self.lay_out(&asked).await {
                ensure!(Instant::now() < end, "no layout {}: {error:#}", asked.layout.word());
                self.check()?;
                tokio::time::sleep(EVERY).await;
            }
        }
        for at in rest {
            self.join(at).await?;
        }
        if self.plan.sites.len() > 1 {
            // The operator's context learns every address. That not all is in place it says too.
            let _unhealthy = self.dtm(&["cluster", "status"]).await;
        }
        self.settled(if self.is_laid() { LAID_WITHIN } else { WITHIN }).await
    }

    /// The layout of the drill's plan: its sites are primary, standby, third place.
    fn planned(&self) -> LayoutAsked {
        let name = |at: usize| self.plan.sites.get(at).map(|site| site.name.clone());
        LayoutAsked {
            layout: self.plan.layout,
            primary: name(0).unwrap_or_default(),
            standby: name(1).unwrap_or_default(),
            arbiter: name(2).unwrap_or_default(),
        }
    }

    /// Whether replicas are to lie over sites in a certain way.
    pub(crate) fn is_laid(&self) -> bool {
        self.layout.layout != Layout::Single
    }

    /// Puts a layout; replicas follow by themselves.
    ///
    /// # Errors
    /// What the command said.
    pub(crate) async fn lay_out(&mut self, asked: &LayoutAsked) -> Result<()> {
        let mut words = vec!["site", "layout", "--kind", asked.layout.word()];
        let named = [
            ("--primary", &asked.primary),
            ("--standby", &asked.standby),
            ("--arbiter", &asked.arbiter),
        ];
        for (flag, site) in named.into_iter().filter(|(_, site)| !site.is_empty()) {
            words.extend([flag, site.as_str()]);
        }
        words.extend(["--reason", "drill"]);
        self.dtm(&words).await?;
        self.layout = asked.clone();
        Ok(())
    }

    /// Asks for a promotion until it is done, or was refused all the time; what the command said.
    /// Nodes of other sites are of a life that is over then.
    ///
    /// # Errors
    /// The last refusal; what else went wrong, at once.
    pub(crate) async fn promote(
        &mut self,
        site: &str,
        force: bool,
        within: Duration,
    ) -> Result<String> {
        let mut words = vec!["-o", "json", "--yes", "site", "promote", site, "--reason", "drill"];
        words.extend(force.then_some("--force"));
        self.change_primary(&words, site, within).await
    }

    /// As [`Cluster::promote`], of a primary that runs and hands over.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn fail_back(&mut self, site: &str, within: Duration) -> Result<String> {
        let words = ["-o", "json", "--yes", "site", "failback", site, "--reason", "drill"];
        self.change_primary(&words, site, within).await
    }

    async fn change_primary(
        &mut self,
        words: &[&str],
        site: &str,
        within: Duration,
    ) -> Result<String> {
        let at = self.plan.site(site).context("no such site")?;
        let (end, mut times) = (Instant::now() + within, 1);
        let said = loop {
            let refused = match self.dtm(words).await {
                Ok(said) => break said,
                Err(error) if error.is::<Refused>() => error,
                Err(error) => return Err(error),
            };
            if Instant::now() + ASK_EVERY >= end {
                return Err(Refused(format!("{refused:#} (asked {times} times)")).into());
            }
            times += 1;
            tokio::time::sleep(ASK_EVERY).await;
        };
        let said: serde_json::Value = serde_json::from_str(&said).context("site promote")?;
        // Nodes of other sites rejoin by themselves; until that was waited for they count for nothing,
        // and neither does the standby that they are to be.
        for node in &mut self.nodes {
            node.is_over = node.site != at;
        }
        self.layout = LayoutAsked::default();
        Ok(format!(
            "{site}: life {} after {} ms, asked {times} times",
            said["life"], said["took_ms"]
        ))
    }

    /// Waits until every node that runs lives in the life in force, whose sites are then those of the
    /// layout.
    pub(crate) async fn rejoined(&mut self, within: Duration) -> Result<String> {
        let end = Instant::now() + within;
        loop {
            self.check()?;
            let up: Vec<usize> =
                (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up()).collect();
            let mut told = Vec::new();
            for at in &up {
                told.extend(self.primacy(*at).await?);
            }
            let newest = told.iter().map(|told| told.incarnation.max(told.life)).max();
            let there = told.iter().filter(|told| Some(told.life) == newest).count();
            let is_whole = there == up.len() && told.iter().all(|told| told.number > 0);
            if let (true, Some(last)) = (is_whole, told.last()) {
                up.iter().for_each(|at| self.nodes[*at].is_over = false);
                let arbiter = self.planned().arbiter;
                let (primary, standby) = (last.primary.clone(), last.standby.clone());
                self.layout = LayoutAsked { layout: Layout::Standby, primary, standby, arbiter };
                return Ok(format!("{there} nodes, life {}", last.life));
            }
            let count = up.len();
            ensure!(Instant::now() < end, "{there} of {count} nodes live in life {newest:?}");
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Waits until replicas and leaders are where the layout has them and no copy is behind.
    pub(crate) async fn laid_out(&mut self, within: Duration) -> Result<()> {
        if !self.is_laid() {
            return Ok(());
        }
        let end = Instant::now() + within;
        loop {
            self.check()?;
            let lacks = match self.site_status().await {
                Ok(status) => match unfulfilled(&status) {
                    None => return Ok(()),
                    Some(lacks) => lacks,
                },
                Err(error) => format!("{error:#}"),
            };
            ensure!(Instant::now() < end, "the layout is not fulfilled: {lacks}");
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What a node says of its right to acknowledge; None: it does not answer.
    pub(crate) async fn may_acknowledge(&self, at: usize) -> Result<Option<bool>> {
        Ok(self.primacy(at).await?.map(|told| told.may_acknowledge))
    }

    async fn primacy(&self, at: usize) -> Result<Option<PrimacyResponse>> {
        let admin = self.admin_at(&[at])?;
        let asked = admin.call(|mut client| async move { client.primacy(PrimacyRequest {}).await });
        let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
        Ok(answer.ok().and_then(Result::ok))
    }

    async fn site_status(&self) -> Result<SiteStatusResponse> {
        let admin = self.admin()?;
        let asked =
            admin.call(|mut client| async move { client.site_status(SiteStatusRequest {}).await });
        Ok(tokio::time::timeout(ANSWER_WITHIN, asked).await.context("no answer")??)
    }
}

/// Who joins before the layout is put, and who after; the first node is there.
fn joining(sites: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let is_first = |at: usize| sites[at] == 0 || !sites[..at].contains(&sites[at]);
    (1..sites.len()).partition(|at| is_first(*at))
}

/// What a layout waits for.
fn unfulfilled(status: &SiteStatusResponse) -> Option<String> {
    let lack = |lack: &LayoutLack| {
        let kind = lack.kind().as_str_name();
        format!("{kind} of group {} {}: {} of {}", lack.group, lack.site, lack.found, lack.wanted)
    };
    let groups: u32 = status.sites.iter().map(|site| site.leaders).sum();
    let site = |site: &SiteDetail| {
        let SiteDetail { site: name, nodes, nodes_reachable, leaders, .. } = site;
        if nodes_reachable < nodes {
            return Some(format!("{name}: {nodes_reachable} of {nodes} nodes"));
        }
        if site.role == "primary" && *leaders < groups {
            return Some(format!("{name} leads {leaders} of {groups} groups"));
        }
        let behind = site.lags.iter().find(|lag| lag.late || lag.lag_ms > BEHIND_MAX_MS)?;
        Some(format!("{name}: group {} is {} ms behind", behind.group, behind.lag_ms))
    };
    status.lacks.first().map(lack).or_else(|| status.sites.iter().find_map(site))
}

#[cfg(test)]
mod tests {
    use dtm_proto::admin::{LackKind, SiteLag};

    use super::*;

    #[test]
    fn the_primary_and_one_node_of_each_other_site_join_before_the_layout() {
        assert_eq!(joining(&[0, 0, 0, 1, 1, 1, 2]), (vec![1, 2, 3, 6], vec![4, 5]));
        assert_eq!(joining(&[0, 0, 1, 1, 2]), (vec![1, 2, 4], vec![3]));
        assert_eq!(joining(&[0, 0, 0]), (vec![1, 2], vec![]));
    }

    #[test]
    fn a_layout_is_fulfilled_with_all_nodes_leaders_at_home_and_no_copy_behind() {
        let site = |name: &str, role: &str, leaders| SiteDetail {
            site: name.to_owned(),
            role: role.to_owned(),
            nodes: 3,
            nodes_reachable: 3,
            leaders,
            ..SiteDetail::default()
        };
        let mut status = SiteStatusResponse {
            sites: vec![site("a", "primary", 7), site("b", "standby", 0)],
            ..SiteStatusResponse::default()
        };
        assert_eq!(unfulfilled(&status), None);
        status.sites[1].lags = vec![SiteLag { group: 4, lag_ms: 1_200, ..SiteLag::default() }];
        assert!(unfulfilled(&status).is_some_and(|lacks| lacks.contains("group 4 is 1200 ms")));
        status.sites[1].leaders = 1;
        assert!(unfulfilled(&status).is_some_and(|lacks| lacks.contains("7 of 8 groups")));
        status.sites[0].nodes_reachable = 2;
        assert!(unfulfilled(&status).is_some_and(|lacks| lacks.contains("2 of 3 nodes")));
        let kind = LackKind::Learners.into();
        status.lacks = vec![LayoutLack { kind, group: 2, wanted: 3, ..LayoutLack::default() }];
        assert!(unfulfilled(&status).is_some_and(|lacks| lacks.contains("of group 2")));
    }
}
