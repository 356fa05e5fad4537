//! Faults of nodes, clocks, the network and disks, and what operators do: done, and taken back.
//!
//! Each fault that may miss is asked whether it met anybody when it is taken back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_faultfs::{CutStyle, Effect, Op, Rule, RuleId};
use dtm_scenario::{DiskFault, Network, Who};
use dtm_wansim::nemesis::{Starved, Victim};
use dtm_wansim::{Counts, Ppm, Settings, SiteId};

use crate::clock;
use crate::ground::Ground;
use crate::hands::Drilled;
use crate::loss::SiteFault;

/// A step, and what takes it back.
type Step = (String, Option<Undo>);

/// `EIO` of Linux.
const EIO: i32 = 5;
/// A running process sees a turned clock within this.
const CLOCK_SEEN_AFTER: Duration = Duration::from_millis(2_000);
/// Between two restarts of a rolling one.
const CALM: Duration = Duration::from_secs(3);

/// By which a step is taken back.
pub(crate) enum Undo {
    /// The load ends.
    Load,
    /// Nodes start again.
    Start(Vec<usize>),
    /// Nodes go on.
    Resume(Vec<usize>),
    /// Nodes get all the CPU that there is.
    Feed(Vec<(usize, Starved)>),
    /// Clocks are right again.
    Clock(Vec<usize>),
    /// Ways are as before.
    Ways(Vec<Way>),
    /// Disks are as before.
    Disks(Vec<(usize, RuleId)>),
    /// Disks have room again.
    Room(Vec<usize>),
    /// The power is back.
    Power(Vec<usize>),
    /// A node is back in service.
    Service(usize),
}

/// One direction between two nodes, as it was.
pub(crate) struct Way {
    from: SiteId,
    to: SiteId,
    was: Settings,
    /// As the step made it.
    is: Settings,
    /// What it had done until then.
    before: Counts,
}

impl Way {
    /// Packets that what the step changed has met. A line that is late and loses by itself does so
    /// before and after.
    fn met(&self, now: Counts) -> u64 {
        let Self { was, is, before, .. } = self;
        if is.is_cut && !was.is_cut {
            return now.cut - before.cut;
        }
        let is_late = (is.delay, is.jitter) != (was.delay, was.jitter);
        let is_narrow = is.bytes_per_second != was.bytes_per_second;
        let met = [
            (is_late || is_narrow, now.delayed - before.delayed),
            (is_narrow, now.queue_full - before.queue_full),
            (is.loss != was.loss, now.lost - before.lost),
            (is.duplicate != was.duplicate, now.duplicated - before.duplicated),
            (is.reorder != was.reorder, now.reordered - before.reordered),
        ];
        met.iter().filter(|(is_changed, _)| *is_changed).map(|(_, packets)| packets).sum()
    }
}

impl Drilled {
    pub(crate) fn kill(&mut self, who: &Who, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let told = self.told(&nodes)?;
        self.note_site_fault(who, &nodes, true);
        // All at once: no node may see another one's end and act on it.
        for at in &nodes {
            self.cluster.nodes[*at].strike()?;
        }
        nodes.iter().for_each(|at| self.cluster.nodes[*at].kill());
        Ok((told, Some(Undo::Start(nodes))))
    }

    pub(crate) fn stop(&mut self, who: &Who, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let told = self.told(&nodes)?;
        for at in &nodes {
            let stopped = self.runtime.block_on(self.cluster.nodes[*at].stop());
            if let Err(error) = stopped {
                // What was done in part is taken back here: nobody else knows of it.
                self.start_again(&nodes)?;
                return Err(error);
            }
        }
        Ok((told, Some(Undo::Start(nodes))))
    }

    pub(crate) fn start(&mut self, who: &Who, within: Duration) -> Result<Step> {
        let nodes = match who {
            Who::Node(name) => vec![self.named(name)?],
            Who::All => self.standing(None),
            Who::Site(_) => self.resolve(who, within)?,
            Who::Leader(_) | Who::Follower(_) => bail!("who leads or follows runs already"),
        };
        self.start_again(&nodes)?;
        Ok((self.names(&nodes), None))
    }

    pub(crate) fn pause(&mut self, who: &Who, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let told = self.told(&nodes)?;
        for at in &nodes {
            self.cluster.nodes[*at].pause()?;
        }
        Ok((told, Some(Undo::Resume(nodes))))
    }

    pub(crate) fn starve(&mut self, who: &Who, cpu_ppm: u32, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let mut starved = Vec::new();
        for at in &nodes {
            starved.push((*at, Starved::new(&self.victim(*at)?, Ppm::new(cpu_ppm))?));
        }
        let means = starved.first().map(|(_, starved)| starved.means());
        Ok((format!("{} {means:?}", self.told(&nodes)?), Some(Undo::Feed(starved))))
    }

    pub(crate) fn turn_clock(&mut self, who: &Who, by_ms: i64, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        for at in &nodes {
            self.cluster.ground.clock(*at)?.set(by_ms)?;
        }
        std::thread::sleep(CLOCK_SEEN_AFTER);
        for at in &nodes {
            let seen = self.cluster.ground.clock(*at)?.check(&self.victim(*at)?, by_ms);
            if let Err(error) = seen {
                self.take_back(Undo::Clock(nodes.clone()))?;
                return Err(error.into());
            }
        }
        let told = format!("{} {:+} s", self.told(&nodes)?, by_ms / 1_000);
        Ok((told, Some(Undo::Clock(nodes))))
    }

    pub(crate) fn cut(
        &mut self,
        from: &Who,
        to: &Who,
        both: bool,
        within: Duration,
    ) -> Result<Step> {
        if let Who::Site(_) = from {
            let nodes = self.resolve(from, within)?;
            self.note_site_fault(from, &nodes, false);
        }
        self.change_ways(from, to, both, within, |settings| settings.is_cut = true)
    }

    pub(crate) fn impair(&mut self, network: &Network, within: Duration) -> Result<Step> {
        let Network { from, to, both, .. } = network;
        self.change_ways(from, to, *both, within, |settings| {
            // What the step does not name stays as the line is.
            if !(network.delay + network.jitter).is_zero() {
                (settings.delay, settings.jitter) = (network.delay, network.jitter);
            }
            let shares = [
                (&mut settings.loss, network.loss_ppm),
                (&mut settings.duplicate, network.duplicate_ppm),
                (&mut settings.reorder, network.reorder_ppm),
            ];
            for (share, ppm) in shares.into_iter().filter(|(_, ppm)| *ppm > 0) {
                *share = Ppm::new(ppm);
            }
            settings.bytes_per_second = network.bytes_per_second.or(settings.bytes_per_second);
        })
    }

    fn change_ways(
        &mut self,
        from: &Who,
        to: &Who,
        both: bool,
        within: Duration,
        change: impl Fn(&mut Settings),
    ) -> Result<Step> {
        let from = self.resolve(from, within)?;
        let mut to = self.resolve(to, within)?;
        to.retain(|at| !from.contains(at));
        ensure!(!to.is_empty(), "there is nobody on the other side");
        let wan = self.cluster.ground.wan()?;
        let mut ways = Vec::new();
        for (one, other) in from.iter().flat_map(|one| to.iter().map(move |other| (*one, *other))) {
            let (one, other) = (Ground::place(one), Ground::place(other));
            ways.push((one, other));
            if both {
                ways.push((other, one));
            }
        }
        let mut changed = Vec::new();
        for (from, to) in ways {
            let was = wan.settings(from, to)?;
            wan.change(from, to, &change)?;
            let is = wan.settings(from, to)?;
            changed.push(Way { from, to, was, is, before: wan.counts(from, to)? });
        }
        let told = format!("{} | {}", self.names(&from), self.names(&to));
        Ok((told, Some(Undo::Ways(changed))))
    }

    pub(crate) fn lose_disk(&mut self, who: &Who, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let told = self.told(&nodes)?;
        for at in nodes {
            let node = &mut self.cluster.nodes[at];
            node.kill();
            node.is_lost = true;
            if self.cluster.ground.needs.disks {
                // The mount itself stays; what is on it is gone.
                remove_all(&node.folder)?;
            } else {
                std::fs::remove_dir_all(&node.folder).context("the lost disk")?;
            }
        }
        Ok((told, None))
    }

    pub(crate) fn break_disk(
        &mut self,
        who: &Who,
        fault: DiskFault,
        within: Duration,
    ) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let told = self.told(&nodes)?;
        let rule = match fault {
            DiskFault::SyncFailsOnce => Rule::once(Op::Sync, "*", Effect::Fail(EIO)),
            DiskFault::SyncFails => Rule::always(Op::Sync, "*", Effect::Fail(EIO)),
            DiskFault::Slow { least, most } => {
                Rule::always(Op::Sync, "*", Effect::Delay(least, most))
            }
            DiskFault::Full { bytes } => {
                for at in &nodes {
                    self.cluster.ground.disk(*at)?.limit_space(Some(bytes));
                }
                return Ok((told, Some(Undo::Room(nodes))));
            }
            DiskFault::PowerCut => return self.cut_power(nodes, told),
            DiskFault::FlipBit => {
                let mut flipped = Vec::new();
                for at in &nodes {
                    let bit = self.cluster.ground.disk(*at)?.flip_any("data/log/*", 1)?;
                    flipped.push(format!("{} byte {} bit {}", bit.path, bit.offset, bit.bit));
                }
                return Ok((format!("{told}: {}", flipped.join("; ")), None));
            }
            DiskFault::Lost => bail!("a lost disk is another step"),
        };
        let mut rules = Vec::new();
        for at in &nodes {
            rules.push((*at, self.cluster.ground.disk(*at)?.add(rule.clone())?));
        }
        Ok((told, Some(Undo::Disks(rules))))
    }

    /// The power goes at all of them: what was not synced is lost.
    fn cut_power(&mut self, nodes: Vec<usize>, told: String) -> Result<Step> {
        let mut dropped = 0;
        for at in &nodes {
            let report = self.cluster.ground.disk(*at)?.cut_power(CutStyle::DropAll)?;
            dropped += report.bytes_dropped;
        }
        nodes.iter().for_each(|at| self.cluster.nodes[*at].kill());
        let told = format!("{told}: {dropped} unsynced bytes are gone");
        Ok((told, Some(Undo::Power(nodes))))
    }

    pub(crate) fn drain(&mut self, who: &Who, within: Duration) -> Result<Step> {
        let nodes = self.resolve(who, within)?;
        let [at] = nodes[..] else { bail!("one node at a time is drained") };
        let name = self.names(&nodes);
        self.command(&["cluster", "drain", &name, "--yes", "--reason", "drill"])?;
        Ok((name, Some(Undo::Service(at))))
    }

    pub(crate) fn replace(&mut self, who: &Who) -> Result<String> {
        let Who::Node(name) = who else { bail!("name the node that is replaced: node:NAME") };
        let at = self.named(name)?;
        self.command(&["cluster", "remove", name, "--yes", "--reason", "drill"])?;
        self.cluster.nodes[at].kill();
        self.cluster.nodes[at].is_lost = true;
        let site = self.cluster.nodes[at].site;
        let new = self.runtime.block_on(self.cluster.add_node(site))?;
        Ok(format!("{name} → {}", self.cluster.nodes[new].name))
    }

    pub(crate) fn join(&mut self, name: &str, site: &str) -> Result<String> {
        let site = self.cluster.plan.site(site).with_context(|| format!("no site {site}"))?;
        let next = format!("n{}", self.cluster.nodes.len() + 1);
        ensure!(name == next, "the next node of this cluster is called {next}");
        self.runtime.block_on(self.cluster.add_node(site))?;
        Ok(next)
    }

    pub(crate) fn rotate_key(&mut self) -> Result<String> {
        let said = self.command(&["-o", "json", "--yes", "key", "rotate", "--reason", "drill"])?;
        let said: serde_json::Value = serde_json::from_str(&said).context("key rotate")?;
        let id = said["cluster_key_id"].as_str().context("key rotate")?;
        Ok(format!("{id}, {} keys", said["keys_rewrapped"]))
    }

    pub(crate) fn rolling_restart(&mut self, within: Duration) -> Result<String> {
        let nodes = self.cluster.present();
        for at in &nodes {
            self.runtime.block_on(self.cluster.nodes[*at].stop())?;
            self.cluster.start_node(*at)?;
            self.runtime.block_on(self.cluster.settled(within))?;
            std::thread::sleep(CALM);
        }
        Ok(self.names(&nodes))
    }

    /// Takes a step back.
    pub(crate) fn take_back(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Load => self.stop_load(),
            Undo::Start(nodes) => self.start_again(&nodes)?,
            Undo::Resume(nodes) => {
                let going = nodes.iter().filter(|at| self.cluster.nodes[**at].is_running());
                for at in going.copied().collect::<Vec<_>>() {
                    self.cluster.nodes[at].resume()?;
                }
            }
            Undo::Feed(starved) => {
                for (at, starved) in starved {
                    let times = starved.times();
                    self.met(&format!("starve n{}", at + 1), times);
                }
            }
            Undo::Clock(nodes) => {
                for at in nodes {
                    self.cluster.ground.clock(at)?.set(0)?;
                }
                std::thread::sleep(CLOCK_SEEN_AFTER);
            }
            Undo::Ways(ways) => {
                let mut packets = 0;
                // Last first: a way that two faults changed is as it was before both.
                for way in ways.iter().rev() {
                    let wan = self.cluster.ground.wan()?;
                    wan.change(way.from, way.to, |settings| *settings = way.was)?;
                    packets += way.met(wan.counts(way.from, way.to)?);
                }
                if let Some(fault) = self.site_fault.as_mut().filter(|fault| !fault.is_loss) {
                    fault.healed.get_or_insert_with(clock::now);
                }
                self.met("Gói tin · Packets", packets);
            }
            Undo::Disks(rules) => {
                for (at, rule) in rules {
                    let times = self.cluster.ground.disk(at)?.remove(rule)?;
                    self.met(&format!("Đĩa · Disk n{}", at + 1), times);
                }
            }
            Undo::Room(nodes) => {
                for at in nodes {
                    self.cluster.ground.disk(at)?.limit_space(None);
                }
            }
            Undo::Power(nodes) => {
                for at in &nodes {
                    self.cluster.ground.disk(*at)?.power_on()?;
                }
                self.start_again(&nodes)?;
            }
            Undo::Service(at) => {
                let name = self.cluster.nodes[at].name.clone();
                self.command(&["cluster", "drain", &name, "--resume", "--reason", "drill"])?;
            }
        }
        Ok(())
    }

    /// Notes how often a fault was met.
    fn met(&mut self, what: &str, times: u64) {
        self.fact(what, &times.to_string());
        if times == 0 {
            self.idle.push(what.to_owned());
        }
    }

    /// The first loss of a whole site is what the drill measures, else the first cut.
    fn note_site_fault(&mut self, who: &Who, nodes: &[usize], is_loss: bool) {
        let is_known = self.site_fault.as_ref().is_some_and(|fault| fault.is_loss || !is_loss);
        if matches!(who, Who::Site(_)) && !is_known {
            self.site_fault = Some(SiteFault::new(nodes.to_vec(), is_loss, self.load.as_ref()));
        }
    }

    fn start_again(&mut self, nodes: &[usize]) -> Result<()> {
        for at in nodes {
            let node = &self.cluster.nodes[*at];
            if !node.is_lost && !node.is_running() {
                self.cluster.start_node(*at)?;
            }
        }
        Ok(())
    }

    fn victim(&self, at: usize) -> Result<Victim> {
        Ok(Victim::of(self.cluster.nodes[at].pid()?)?)
    }

    fn told(&self, nodes: &[usize]) -> Result<String> {
        let told = nodes.iter().map(|at| {
            let node = &self.cluster.nodes[*at];
            Ok(format!("{} (pid {})", node.name, node.pid()?))
        });
        Ok(told.collect::<Result<Vec<_>>>()?.join(", "))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        self.runtime.block_on(self.cluster.dtm(arguments))
    }
}

/// Removes what is in a folder.
pub(crate) fn remove_all(folder: &std::path::Path) -> Result<()> {
    remove_all_but(folder, None)
}

/// The same, but for what has this name.
pub(crate) fn remove_all_but(folder: &std::path::Path, kept: Option<&str>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if kept.is_some_and(|kept| entry.file_name() == kept) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| path.display().to_string())?;
    }
    Ok(())
}
