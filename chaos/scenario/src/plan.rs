//! The cluster that a drill is held on: sites, how replicas lie over them, and the lines between.
//!
//! ```toml
//! [cluster]
//! layout = "standby"                            # single, stretched, standby
//! sites = ["ha-noi:3", "da-nang:3", "hcm:1"]    # primary, standby, third place, with their nodes
//! delay = "20ms"                                # of each packet, each way: a round trip is 40 ms
//! loss_percent = 0.5                            # of the packets, each way
//! ```
//! Where nothing is said: one site, `main`, of three nodes.

use dtm_types::text::Told;
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use crate::Error;
use crate::fields::{Fields, expected, is_name, number, percent, time, word};

/// How replicas lie over sites, as in `dtm site layout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Anywhere.
    #[default]
    Single,
    /// Voters at three sites.
    Stretched,
    /// Voters at the first site, copies at the second, the third decides with them.
    Standby,
}

impl Layout {
    pub(crate) const WORDS: &[(&str, Self)] =
        &[("single", Self::Single), ("stretched", Self::Stretched), ("standby", Self::Standby)];

    /// Its word in files and commands.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Stretched => "stretched",
            Self::Standby => "standby",
        }
    }
}

/// A site and its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// How many nodes stand there.
    pub nodes: usize,
}

/// What each direction between two sites does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkQuality {
    /// How late each packet is, one way.
    pub delay_ms: u64,
    /// And up to so much later.
    pub jitter_ms: u64,
    /// Lost packets in millionths.
    pub loss_ppm: u32,
    /// Bytes a second that pass; None: as many as come.
    pub bytes_per_second: Option<u64>,
}

/// Sites, layout and lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// How replicas lie over the sites.
    pub layout: Layout,
    /// Primary, standby, third place; of a layout `single` in any order.
    pub sites: Vec<Site>,
    /// Between any two sites, each direction.
    pub link: LinkQuality,
}

impl Default for ClusterPlan {
    fn default() -> Self {
        let site = Site { name: "main".to_owned(), nodes: 3 };
        Self { layout: Layout::Single, sites: vec![site], link: LinkQuality::default() }
    }
}

/// Nodes of a cluster.
const NODES: std::ops::RangeInclusive<usize> = 3..=12;
const SITES_MAX: usize = 5;
/// Voters of a group, which in a layout `standby` are all at the primary.
const VOTERS: usize = 3;

impl ClusterPlan {
    /// Nodes of all sites.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.sites.iter().map(|site| site.nodes).sum()
    }

    /// The place of a site of this name.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<usize> {
        self.sites.iter().position(|site| site.name == name)
    }

    /// The site that holds no records and serves nobody.
    #[must_use]
    pub fn third(&self) -> Option<usize> {
        let has_third = self.layout != Layout::Single && self.sites.len() > 2;
        has_third.then_some(2)
    }

    /// In a word and numbers: `standby 3 + 3 + 1`.
    #[must_use]
    pub fn told(&self) -> String {
        let nodes: Vec<String> = self.sites.iter().map(|site| site.nodes.to_string()).collect();
        format!("{} {}", self.layout.word(), nodes.join(" + "))
    }

    /// Reads the keys of `[cluster]`.
    pub(crate) fn read(mut fields: Fields<'_>) -> Result<Self, Error> {
        let own = Self::default();
        let plan = Self {
            layout: fields.optional("layout", word(Layout::WORDS))?.unwrap_or_default(),
            sites: fields.optional("sites", sites)?.unwrap_or(own.sites),
            link: LinkQuality {
                delay_ms: fields.optional("delay", time)?.map_or(0, ms),
                jitter_ms: fields.optional("jitter", time)?.map_or(0, ms),
                loss_ppm: fields.optional("loss_percent", percent)?.unwrap_or_default(),
                bytes_per_second: fields.optional("bytes_per_second", number(1, 1 << 40))?,
            },
        };
        if let Some(why) = plan.wrong() {
            return Err(fields.refuse("sites", why));
        }
        if plan.sites.len() == 1 && plan.link != LinkQuality::default() {
            return Err(fields.refuse("delay", Told::new("drill.no-lines")));
        }
        fields.finish()?;
        Ok(plan)
    }

    /// Why no cluster can be so.
    fn wrong(&self) -> Option<Told> {
        let nodes = self.nodes();
        if !NODES.contains(&nodes) {
            let told = Told::new("drill.nodes").with("nodes", nodes);
            return Some(told.with("least", NODES.start()).with("most", NODES.end()));
        }
        let twice = |site: &&Site| self.sites.iter().filter(|s| s.name == site.name).count() > 1;
        if let Some(site) = self.sites.iter().find(twice) {
            return Some(Told::new("drill.site-twice").with("name", &site.name));
        }
        let primary = self.sites.first().map_or(0, |site| site.nodes);
        match (self.layout, self.sites.len()) {
            (Layout::Stretched, count) if count != 3 => {
                Some(Told::new("drill.layout.stretched").with("count", count))
            }
            (Layout::Standby, count) if !(2..=3).contains(&count) => {
                Some(Told::new("drill.layout.standby").with("count", count))
            }
            (Layout::Standby, _) if primary < VOTERS => {
                let told = Told::new("drill.layout.primary").with("nodes", primary);
                Some(told.with("voters", VOTERS))
            }
            _ => None,
        }
    }
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `["ha-noi:3", "da-nang:3"]`.
fn sites(value: &DeValue<'_>) -> Result<Vec<Site>, Told> {
    let parsed = value.as_array().and_then(|array| {
        let each = array.iter().map(|entry| {
            let (name, nodes) = entry.get_ref().as_str()?.split_once(':')?;
            let nodes = nodes.parse().ok().filter(|nodes| (1..=*NODES.end()).contains(nodes))?;
            is_name(name).then(|| Site { name: name.to_owned(), nodes })
        });
        each.collect::<Option<Vec<Site>>>()
    });
    let parsed = parsed.filter(|sites| (1..=SITES_MAX).contains(&sites.len()));
    parsed.ok_or_else(|| expected("drill.is.sites"))
}

/// What a later step may name: the sites, and the layout that the steps before have put.
#[derive(Clone, Debug)]
pub(crate) struct Laid<'p> {
    pub(crate) plan: &'p ClusterPlan,
    layout: Layout,
    primary: String,
    has_third: bool,
}

impl<'p> Laid<'p> {
    pub(crate) fn new(plan: &'p ClusterPlan) -> Self {
        let primary = plan.sites.first().map(|site| site.name.clone()).unwrap_or_default();
        Self { plan, layout: plan.layout, primary, has_third: plan.third().is_some() }
    }

    /// From the next step on another layout is in force.
    pub(crate) fn put(&mut self, asked: &LayoutAsked) {
        self.layout = asked.layout;
        self.primary.clone_from(&asked.primary);
        self.has_third = !asked.arbiter.is_empty();
    }

    /// From the next step on this site is primary.
    pub(crate) fn promoted(&mut self, site: &str) {
        site.clone_into(&mut self.primary);
    }

    /// A site of the drill's cluster.
    pub(crate) fn site(&self, name: &str) -> Result<String, Told> {
        if self.plan.site(name).is_some() {
            return Ok(name.to_owned());
        }
        let known: Vec<&str> = self.plan.sites.iter().map(|site| site.name.as_str()).collect();
        Err(Told::new("drill.no-such-site").with("name", name).with("known", known.join(", ")))
    }

    /// A site that a promotion may name.
    pub(crate) fn promotable(&self, value: &DeValue<'_>) -> Result<String, Told> {
        let name = self.site(&crate::fields::name(value)?)?;
        if self.layout != Layout::Standby || !self.has_third {
            return Err(Told::new("drill.no-standby").with("layout", self.layout.word()));
        }
        if name == self.primary {
            return Err(Told::new("drill.primary-already").with("name", name));
        }
        Ok(name)
    }
}

/// A layout that a step puts: as the arguments of `dtm site layout`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutAsked {
    /// Which.
    pub layout: Layout,
    /// Where groups are led; empty where none is named.
    pub primary: String,
    /// The second site.
    pub standby: String,
    /// The third.
    pub arbiter: String,
}

impl LayoutAsked {
    pub(crate) fn read(fields: &mut Fields<'_>, laid: &Laid<'_>) -> Result<Self, Error> {
        let site = |value: &DeValue<'_>| laid.site(&crate::fields::name(value)?);
        let asked = Self {
            layout: fields.required("kind", word(Layout::WORDS))?,
            primary: fields.optional("primary", site)?.unwrap_or_default(),
            standby: fields.optional("standby", site)?.unwrap_or_default(),
            arbiter: fields.optional("arbiter", site)?.unwrap_or_default(),
        };
        let mut named: Vec<&str> = asked.sites().collect();
        let count = named.len();
        named.sort_unstable();
        named.dedup();
        let is_whole = match asked.layout {
            Layout::Single => count == 0,
            Layout::Stretched => count == 3,
            Layout::Standby => !asked.primary.is_empty() && !asked.standby.is_empty(),
        };
        if is_whole && named.len() == count {
            return Ok(asked);
        }
        let kind = asked.layout.word();
        Err(fields.refuse("kind", Told::new("drill.layout.sites").with("kind", kind)))
    }

    /// The sites that it names, the primary first.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        let all = [&self.primary, &self.standby, &self.arbiter];
        all.into_iter().map(String::as_str).filter(|site| !site.is_empty())
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
