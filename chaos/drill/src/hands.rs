//! Does the steps of a drill on a real cluster: which step is what, and what is measured at the end.
//! Faults and how they are taken back are in `faults`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use dtm_scenario::{Action, DiskFault, Done, Failure, Hands, Measured, Until, Who};
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, Refused};
use crate::faults::Undo;
use crate::load::{ACK_TIMEOUT, Load, RECORD_BYTES_MAX};
use crate::loss::{SILENCE, SiteFault, SiteMeasures, secs};
use crate::{clock, readback};

/// Longest wait for the state in which is measured, and for the reading then.
const MEASURE_WITHIN: Duration = Duration::from_secs(300);
/// Longer than the right of a primary to acknowledge.
const ONE_WRITER_FOR: Duration = Duration::from_secs(12);
/// Between two looks at the acks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the command line says instead of the drill.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scale {
    /// Sources of each load.
    pub(crate) sources: Option<u64>,
    /// Records a second of each load.
    pub(crate) records_per_second: Option<u64>,
}

/// The cluster of one drill, and what was done to it.
pub(crate) struct Drilled {
    /// Runs everything that waits.
    pub(crate) runtime: Runtime,
    /// The cluster.
    pub(crate) cluster: Cluster,
    /// What is to be taken back.
    pub(crate) undo: BTreeMap<u64, Undo>,
    /// Faults that were made and met nobody: a drill of them proves nothing.
    pub(crate) idle: Vec<String>,
    /// What the report says beside the measurements.
    pub(crate) facts: Vec<(String, String)>,
    /// The first fault of a whole site.
    pub(crate) site_fault: Option<SiteFault>,
    /// The sources that send.
    pub(crate) load: Option<Load>,
    scale: Scale,
    next: u64,
}

impl Drilled {
    /// A cluster that is up.
    pub(crate) fn new(runtime: Runtime, cluster: Cluster, scale: Scale) -> Self {
        let nodes = cluster.nodes.len();
        let stands = format!("{nodes} nodes, {}", cluster.ground.describe());
        let facts = vec![("Cụm · Cluster".to_owned(), stands)];
        Self {
            runtime,
            cluster,
            undo: BTreeMap::new(),
            idle: Vec::new(),
            facts,
            site_fault: None,
            load: None,
            scale,
            next: 0,
        }
    }

    fn act_on(&mut self, action: &Action, within: Duration) -> Result<(String, Option<Undo>)> {
        match action {
            Action::Load { sources, records_per_second, record_bytes } => {
                let sources = self.scale.sources.unwrap_or(*sources);
                let rate = self.scale.records_per_second.unwrap_or(*records_per_second);
                self.start_load(sources, rate, *record_bytes)
            }
            Action::Wait(until) => Ok((self.wait(*until, within)?, None)),
            Action::Kill(who) => self.kill(who, within),
            Action::Stop(who) => self.stop(who, within),
            Action::Start(who) => self.start(who, within),
            Action::Pause(who) => self.pause(who, within),
            Action::Starve { who, cpu_ppm } => self.starve(who, *cpu_ppm, within),
            Action::Clock { who, by_ms } => self.turn_clock(who, *by_ms, within),
            Action::Cut { from, to, both } => self.cut(from, to, *both, within),
            Action::Network(network) => self.impair(network, within),
            Action::Disk { who, fault: DiskFault::Lost } => self.lose_disk(who, within),
            Action::Disk { who, fault } => self.break_disk(who, *fault, within),
            Action::Drain(who) => self.drain(who, within),
            Action::Replace(who) => Ok((self.replace(who)?, None)),
            Action::Join { name, site } => Ok((self.join(name, site)?, None)),
            Action::RotateKey => Ok((self.rotate_key()?, None)),
            Action::RollingRestart => Ok((self.rolling_restart(within)?, None)),
            Action::Promote { site, force } => Ok((self.promote(site, *force, within)?, None)),
            Action::Failback { site } => {
                Ok((self.runtime.block_on(self.cluster.fail_back(site, within))?, None))
            }
            Action::Layout(asked) => {
                self.runtime.block_on(self.cluster.lay_out(asked))?;
                Ok((action.details(), None))
            }
            Action::Backup => Ok((self.backup()?, None)),
            Action::Restore => Ok((self.restore(within)?, None)),
            Action::RotateCertificates => Ok((self.rotate_certificates(within)?, None)),
            Action::Heal(_) => bail!("{} is not asked for", action.word()),
        }
    }

    fn start_load(
        &mut self,
        sources: u64,
        rate: u64,
        bytes: u64,
    ) -> Result<(String, Option<Undo>)> {
        ensure!(self.load.is_none(), "a drill has one load");
        ensure!(bytes <= RECORD_BYTES_MAX, "record_bytes is {bytes}, at most {RECORD_BYTES_MAX}");
        let load = Load::start(&self.cluster, sources, rate, bytes);
        self.load = Some(self.runtime.block_on(load)?);
        let told = format!("{sources} sources, {rate} records/s, {bytes} B");
        let timeout = ACK_TIMEOUT.as_secs();
        self.fact("Tải · Load", &format!("{told}, ack timeout {timeout} s"));
        Ok((told, Some(Undo::Load)))
    }

    fn wait(&mut self, until: Until, within: Duration) -> Result<String> {
        match until {
            Until::Elapsed => Ok(String::new()),
            Until::Settled => {
                self.runtime.block_on(self.cluster.settled(within))?;
                Ok(String::new())
            }
            Until::LedgersAgree => {
                let groups = self.runtime.block_on(self.cluster.ledgers_agree(within))?;
                Ok(format!("{groups} groups"))
            }
            Until::ReadBack => {
                let load = self.load.as_ref().context("there is no load to be read back")?;
                let read = readback::all(&self.cluster, &load.sources, within);
                let found = self.runtime.block_on(read)?;
                let wrong = [found.lost_ranges, found.wrong].concat();
                ensure!(wrong.is_empty(), "{} of {}: {}", found.lost, found.read, few(&wrong));
                Ok(format!("{} records on {} nodes", found.read, self.cluster.doors().len()))
            }
            Until::OneWriter => self.one_writer(within),
            Until::Silent => self.silent(within),
            Until::Rejoined => self.runtime.block_on(self.cluster.rejoined(within)),
        }
    }

    fn promote(&mut self, site: &str, force: bool, within: Duration) -> Result<String> {
        // The new site acks before the command returns.
        if let Some(load) = &self.load {
            load.may_lose(true);
        }
        let promoted = self.runtime.block_on(self.cluster.promote(site, force, within));
        if let (Some(load), Err(_)) = (&self.load, &promoted) {
            load.may_lose(false);
        }
        promoted
    }

    /// For longer than a lease every ack comes from one site, and no node of a life that is over
    /// lets anybody in.
    fn one_writer(&self, within: Duration) -> Result<String> {
        let began = clock::now();
        let load = self.load.as_ref().context("there is no load")?;
        let nodes = &self.cluster.nodes;
        let is_asked = |at: &usize| nodes[*at].is_over && nodes[*at].is_up();
        let over: Vec<usize> = (0..nodes.len()).filter(is_asked).collect();
        let source = load.sources.first().context("the load has no sources")?;
        let mut answers = vec![0; nodes.len()];
        // A node that finds out how it goes on in a later life does not answer meanwhile.
        let have_answered = |answers: &[u32]| over.iter().all(|at| answers[*at] > 0);
        while began.elapsed() < ONE_WRITER_FOR
            || !have_answered(&answers) && began.elapsed() < within
        {
            for at in &over {
                let name = &nodes[*at].name;
                let may = self.runtime.block_on(self.cluster.may_acknowledge(*at))?;
                ensure!(may != Some(true), "{name} says that it may acknowledge");
                let is_in = self.runtime.block_on(source.is_let_in(&self.cluster, *at))?;
                ensure!(!is_in, "{name} opens a stream in a life that is over");
                answers[*at] += u32::from(may.is_some());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // A node that never answers would acknowledge nothing in any case.
        if let Some(silent) = over.iter().find(|at| answers[**at] == 0) {
            bail!("{} runs and does not answer", nodes[*silent].name);
        }
        let acked = load.acks_after(began).into_iter().filter_map(|(_, ack)| ack.node);
        let mut sites: Vec<&str> =
            acked.map(|at| self.cluster.plan.sites[nodes[at].site].name.as_str()).collect();
        let count = sites.len();
        sites.sort_unstable();
        sites.dedup();
        let [site] = sites[..] else { bail!("acks come from {} sites: {sites:?}", sites.len()) };
        let mut told = format!("{count} acks in {} s, all from {site}", ONE_WRITER_FOR.as_secs());
        if !over.is_empty() {
            let times: u32 = answers.iter().sum();
            told += &format!("; {} asked {times} times, let nobody in", self.names(&over));
        }
        Ok(told)
    }

    /// Nobody acks any more, though records wait.
    fn silent(&mut self, within: Duration) -> Result<String> {
        let end = clock::now() + within;
        let fault = self.site_fault.as_mut().context("no fault of a site came before")?;
        let load = self.load.as_ref().context("there is no load")?;
        loop {
            let last = load.last_ack().context("nothing was acked at all")?;
            if load.is_owed() && last.elapsed() >= SILENCE {
                fault.last_ack = Some(last);
                let after = last.saturating_duration_since(fault.at);
                return Ok(format!("the last ack came {:.3} s after the fault", secs(after)));
            }
            ensure!(clock::now() < end, "acks go on {} s after the step began", within.as_secs());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whom a step is about: nodes that are not lost.
    pub(crate) fn resolve(&mut self, who: &Who, within: Duration) -> Result<Vec<usize>> {
        let nodes = match who {
            Who::All => self.standing(None),
            Who::Site(site) => {
                let at = self.cluster.plan.site(site);
                self.standing(Some(at.with_context(|| format!("there is no site {site}"))?))
            }
            Who::Node(name) => vec![self.named(name)?],
            Who::Leader(group) => {
                vec![self.runtime.block_on(self.cluster.leader(*group, within))?]
            }
            Who::Follower(group) => {
                let leader = self.runtime.block_on(self.cluster.leader(*group, within))?;
                let nodes = &self.cluster.nodes;
                let follows = |at: &usize| *at != leader && nodes[*at].is_up();
                let up = self.cluster.present().into_iter().find(follows);
                vec![up.with_context(|| format!("no node follows in group {group}"))?]
            }
        };
        let lost = nodes.iter().find(|at| self.cluster.nodes[**at].is_lost);
        if let Some(lost) = lost {
            bail!("{} is lost", self.cluster.nodes[*lost].name);
        }
        Ok(nodes)
    }

    /// Nodes that are not lost, also those of a life that is over: of one site, or all.
    pub(crate) fn standing(&self, site: Option<usize>) -> Vec<usize> {
        let nodes = self.cluster.nodes.iter().enumerate();
        let stand = nodes.filter(|(_, node)| node.has_joined && !node.is_lost);
        stand.filter(|(_, node)| site.is_none_or(|of| node.site == of)).map(|(at, _)| at).collect()
    }

    /// The node of this name, lost or not.
    pub(crate) fn named(&self, name: &str) -> Result<usize> {
        let at = self.cluster.nodes.iter().position(|node| node.name == name);
        at.with_context(|| format!("there is no node {name}"))
    }

    /// Names of nodes, for the report.
    pub(crate) fn names(&self, nodes: &[usize]) -> String {
        let names = nodes.iter().map(|at| self.cluster.nodes[*at].name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Something that the report says.
    pub(crate) fn fact(&mut self, name: &str, value: &str) {
        self.facts.push((name.to_owned(), value.to_owned()));
    }

    /// Nothing is sent any more, and every ack that comes has come.
    pub(crate) fn stop_load(&mut self) {
        if let Some(load) = &mut self.load {
            self.runtime.block_on(load.stop());
        }
    }

    fn measured(&mut self) -> Result<Measured> {
        self.stop_load();
        self.runtime.block_on(self.cluster.settled(MEASURE_WITHIN))?;
        let load = self.load.as_ref().context("the drill put no load on the cluster")?;
        let read = readback::all(&self.cluster, &load.sources, MEASURE_WITHIN);
        let found = self.runtime.block_on(read)?;
        let (waits, trouble) = (load.waits(), load.trouble());
        let nodes = self.cluster.doors().len();
        let resent = load.resent();
        let site = match &self.site_fault {
            Some(fault) => fault.measures(load, &found).map_err(Error::msg),
            None => Ok(SiteMeasures::default()),
        };
        self.fact("Gửi · Sent", &waits.sent.to_string());
        self.fact("Đọc lại · Read back", &format!("{} ({nodes} nodes)", found.read));
        let longest = format!("{:.3} s", waits.longest.as_secs_f64());
        self.fact("Nguồn chờ lâu nhất · Longest wait of a source", &longest);
        if resent > 0 {
            let name = "Nguồn gửi lại sau khi chuyển · Sent again by sources after the promotion";
            self.fact(name, &resent.to_string());
        }
        ensure!(found.wrong.is_empty(), "{}", few(&found.wrong));
        let site = site?;
        if let Some(trouble) = trouble {
            bail!(trouble);
        }
        ensure!(self.idle.is_empty(), "a fault met nobody: {}", self.idle.join("; "));
        let ms = |time: Duration| u64::try_from(time.as_millis()).ok();
        Ok(Measured {
            acked: Some(waits.acked),
            lost: Some(found.lost),
            lost_ranges: found.lost_ranges,
            rto_ms: ms(waits.longest),
            ack_gap_p50_ms: ms(waits.p50),
            ack_gap_p99_ms: ms(waits.p99),
            availability_ppm: Some(waits.served_ppm),
            rpo_ms: site.rpo.and_then(ms),
            first_ack_ms: site.first_ack.and_then(ms),
            last_ack_ms: site.last_ack.and_then(ms),
        })
    }
}

/// The first few of many.
fn few(all: &[String]) -> String {
    const SHOWN: usize = 20;
    let more = all.len().saturating_sub(SHOWN);
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

fn failure(error: &Error) -> Failure {
    let told = format!("{error:#}");
    if error.downcast_ref::<Refused>().is_some() {
        Failure::Refused(told)
    } else {
        Failure::Failed(told)
    }
}

impl Hands for Drilled {
    fn act(&mut self, action: &Action, within: Duration) -> Result<Done, Failure> {
        eprintln!("  {}", crate::say::action(action));
        let (told, undo) = self.act_on(action, within).map_err(|error| failure(&error))?;
        if !told.is_empty() {
            eprintln!("    {told}");
        }
        let undo = undo.map(|undo| {
            self.next += 1;
            self.undo.insert(self.next, undo);
            self.next
        });
        Ok(Done { told, undo })
    }

    fn undo(&mut self, undo: u64) -> Result<(), String> {
        let undo = self.undo.remove(&undo).ok_or("it was taken back already")?;
        self.take_back(undo).map_err(|error| format!("{error:#}"))
    }

    fn measure(&mut self) -> Result<Measured, String> {
        eprintln!("  {}", crate::say::text("drill.run.measuring", &[]));
        self.measured().map_err(|error| format!("{error:#}"))
    }

    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_failure_and_long_lists_are_cut() {
        let numbers: Vec<String> = (1..=22).map(|n: u32| n.to_string()).collect();
        assert!(few(&numbers).ends_with("19; 20; and 2 more"));
        assert_eq!(few(&numbers[..2]), "1; 2");
        assert!(matches!(failure(&Error::msg("x")), Failure::Failed(_)));
    }
}
