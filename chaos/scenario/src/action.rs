//! What a step does. One table of words; each word has its keys.

use std::time::Duration;

use dtm_types::text::Told;
use toml::de::DeValue;

use crate::Error;
use crate::fields::{Fields, flag, jump_ms, name, number, percent, time, word as word_of};
use crate::plan::{Laid, LayoutAsked};

/// Whom a step is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Who leads meta, or the group of this number.
    Leader(u16),
    /// A node that follows there.
    Follower(u16),
    /// The node of this name.
    Node(String),
    /// Every node of this site.
    Site(String),
    /// Every node.
    All,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leader(group) => write!(f, "leader:{group}"),
            Self::Follower(group) => write!(f, "follower:{group}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Site(name) => write!(f, "site:{name}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// What a wait waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing: it only takes its time.
    Elapsed,
    /// Every group has a leader and all its replicas answer.
    Settled,
    /// Every record that was acked is read back, from every replica.
    ReadBack,
    /// The ledgers of all replicas, and of original and standby, agree.
    LedgersAgree,
    /// Exactly one site acks: for longer than a lease every ack comes from one, and no node of a
    /// life of the cluster that is over opens a stream.
    OneWriter,
    /// Nobody acks any more, though records wait.
    Silent,
    /// Every node that runs lives in the life of the cluster that is in force.
    Rejoined,
}

/// What a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// One sync fails.
    SyncFailsOnce,
    /// Every sync fails.
    SyncFails,
    /// Full after so many more bytes.
    Full {
        /// Bytes that are left.
        bytes: u64,
    },
    /// Each sync takes longer.
    Slow {
        /// At least.
        least: Duration,
        /// At most.
        most: Duration,
    },
    /// The power goes: what was not synced is lost.
    PowerCut,
    /// A bit of what is stored turns.
    FlipBit,
    /// The disk is gone for good.
    Lost,
}

impl DiskFault {
    /// Its word in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::SyncFailsOnce => "sync-fails-once",
            Self::SyncFails => "sync-fails",
            Self::Full { .. } => "full",
            Self::Slow { .. } => "slow",
            Self::PowerCut => "power-cut",
            Self::FlipBit => "flip-bit",
            Self::Lost => "lost",
        }
    }
}

/// What the way between two places does, each direction by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Node or site.
    pub from: Who,
    /// Node or site.
    pub to: Who,
    /// The way back too.
    pub both: bool,
    /// How late each packet is.
    pub delay: Duration,
    /// And up to so much later.
    pub jitter: Duration,
    /// Lost packets in millionths.
    pub loss_ppm: u32,
    /// Packets that arrive twice, in millionths.
    pub duplicate_ppm: u32,
    /// Packets that others overtake, in millionths.
    pub reorder_ppm: u32,
    /// Bytes a second that pass.
    pub bytes_per_second: Option<u64>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sources begin to stream, until the drill ends or the step is healed.
    Load {
        /// How many.
        sources: u64,
        /// Of all together.
        records_per_second: u64,
        /// Of a record.
        record_bytes: u64,
    },
    /// Waits for a state, or for the step's own time.
    Wait(Until),
    /// Ends a process at once; healed by starting it.
    Kill(Who),
    /// Stops a node as planned; healed by starting it.
    Stop(Who),
    /// Starts what is stopped.
    Start(Who),
    /// Holds a process still; healed by letting it go on.
    Pause(Who),
    /// Gives a node this share of a core.
    Starve {
        /// Whom.
        who: Who,
        /// In millionths of one core.
        cpu_ppm: u32,
    },
    /// Turns a node's clock.
    Clock {
        /// Whose.
        who: Who,
        /// Forward, or back where negative.
        by_ms: i64,
    },
    /// Nothing passes between two places.
    Cut {
        /// Node or site.
        from: Who,
        /// Node or site.
        to: Who,
        /// The way back too.
        both: bool,
    },
    /// Delay, loss and the like between two places.
    Network(Network),
    /// A disk fails.
    Disk {
        /// Whose.
        who: Who,
        /// How.
        fault: DiskFault,
    },
    /// Takes back the step of this name, or all steps so far.
    Heal(Option<String>),
    /// Moves leaders and streams away from a node; healed by taking it back.
    Drain(Who),
    /// Puts a new node in the place of one that is lost.
    Replace(Who),
    /// A new node joins.
    Join {
        /// Its name.
        name: String,
        /// Where it stands.
        site: String,
    },
    /// A site takes over.
    Promote {
        /// Which.
        site: String,
        /// Though the primary still answers.
        force: bool,
    },
    /// Another layout of the sites.
    Layout(LayoutAsked),
    /// A standby becomes primary while all sites run, without a loss.
    Failback {
        /// Which.
        site: String,
    },
    /// Writes a backup, the first one full, later ones of what came since, and verifies the chain.
    Backup,
    /// Every node ends for good with its disk; the newest backup begins the cluster's next life.
    Restore,
    /// Renews the certificates of all nodes, one after the other.
    RotateCertificates,
    /// Begins a new cluster key.
    RotateKey,
    /// Restarts one node after the other.
    RollingRestart,
}

const GROUP_MAX: u64 = 255;

impl Action {
    /// The words of `do`, in the order of the manual.
    pub const WORDS: [&'static str; 23] = [
        "load",
        "wait",
        "kill",
        "stop",
        "start",
        "pause",
        "starve",
        "clock",
        "cut",
        "network",
        "disk",
        "heal",
        "drain",
        "replace",
        "join",
        "promote",
        "layout",
        "failback",
        "backup",
        "restore",
        "rotate-certificates",
        "rotate-key",
        "rolling-restart",
    ];

    /// Its word in files.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Load { .. } => "load",
            Self::Wait(_) => "wait",
            Self::Kill(_) => "kill",
            Self::Stop(_) => "stop",
            Self::Start(_) => "start",
            Self::Pause(_) => "pause",
            Self::Starve { .. } => "starve",
            Self::Clock { .. } => "clock",
            Self::Cut { .. } => "cut",
            Self::Network(_) => "network",
            Self::Disk { .. } => "disk",
            Self::Heal(_) => "heal",
            Self::Drain(_) => "drain",
            Self::Replace(_) => "replace",
            Self::Join { .. } => "join",
            Self::Promote { .. } => "promote",
            Self::Layout(_) => "layout",
            Self::Failback { .. } => "failback",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::RotateCertificates => "rotate-certificates",
            Self::RotateKey => "rotate-key",
            Self::RollingRestart => "rolling-restart",
        }
    }

    /// Whom and what it is about, in the words of the file.
    #[must_use]
    pub fn details(&self) -> String {
        let way = |from: &Who, to: &Who, both: bool| {
            format!("{from} {} {to}", if both { "<->" } else { "->" })
        };
        match self {
            Self::Load { sources, records_per_second, record_bytes } => {
                format!("{sources} x, {records_per_second}/s, {record_bytes} B")
            }
            Self::Wait(until) => {
                let known = UNTIL.iter().find(|(_, known)| known == until);
                known.map(|(word, _)| (*word).to_owned()).unwrap_or_default()
            }
            Self::Kill(who) | Self::Stop(who) | Self::Start(who) | Self::Pause(who) => {
                who.to_string()
            }
            Self::Drain(who) | Self::Replace(who) => who.to_string(),
            Self::Starve { who, cpu_ppm } => format!("{who} {} %", f64::from(*cpu_ppm) / 10_000.0),
            Self::Clock { who, by_ms } => format!("{who} {by_ms:+} ms"),
            Self::Cut { from, to, both } => way(from, to, *both),
            Self::Network(network) => way(&network.from, &network.to, network.both),
            Self::Disk { who, fault } => format!("{who} {}", fault.word()),
            Self::Heal(step) => step.clone().unwrap_or_default(),
            Self::Join { name, site } => format!("{name}, {site}"),
            Self::Promote { site, .. } | Self::Failback { site } => site.clone(),
            Self::Layout(asked) => {
                let sites: Vec<&str> = asked.sites().collect();
                format!("{} {}", asked.layout.word(), sites.join(", ")).trim_end().to_owned()
            }
            Self::Backup
            | Self::Restore
            | Self::RotateCertificates
            | Self::RotateKey
            | Self::RollingRestart => String::new(),
        }
    }

    /// Whether it takes something away from a cluster that works, so that a production cluster
    /// asks for a second approval.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        !matches!(
            self,
            Self::Load { .. }
                | Self::Wait(_)
                | Self::Start(_)
                | Self::Heal(_)
                | Self::Join { .. }
                | Self::Backup
                | Self::RotateCertificates
                | Self::RotateKey
        )
    }

    /// Reads the keys that belong to a word.
    pub(crate) fn read(fields: &mut Fields<'_>, laid: &Laid<'_>) -> Result<Self, Error> {
        let who = |value: &DeValue<'_>| who(value, laid);
        let site = |value: &DeValue<'_>| laid.site(&name(value)?);
        let word = fields.required("do", |value| {
            let known = Self::WORDS.into_iter().find(|word| value.as_str() == Some(word));
            known.ok_or_else(|| Told::new("drill.one-of").with("allowed", Self::WORDS.join(", ")))
        })?;
        Ok(match word {
            "load" => Self::Load {
                sources: fields.required("sources", number(1, 100_000))?,
                records_per_second: fields.required("records_per_second", number(1, 10_000_000))?,
                record_bytes: fields.optional("record_bytes", number(1, 12 << 20))?.unwrap_or(600),
            },
            "wait" => {
                Self::Wait(fields.optional("until", word_of(UNTIL))?.unwrap_or(Until::Elapsed))
            }
            "kill" => Self::Kill(fields.required("who", who)?),
            "stop" => Self::Stop(fields.required("who", who)?),
            "start" => Self::Start(fields.required("who", who)?),
            "pause" => Self::Pause(fields.required("who", who)?),
            "starve" => Self::Starve {
                who: fields.required("who", who)?,
                cpu_ppm: fields.required("cpu_percent", percent)?.max(1),
            },
            "clock" => Self::Clock {
                who: fields.required("who", who)?,
                by_ms: fields.required("by", jump_ms)?,
            },
            "cut" => Self::Cut {
                from: fields.required("from", who)?,
                to: fields.required("to", who)?,
                both: fields.optional("both", flag)?.unwrap_or(true),
            },
            "network" => Self::Network(network(fields, who)?),
            "disk" => Self::Disk { who: fields.required("who", who)?, fault: disk(fields)? },
            "heal" => Self::Heal(fields.optional("step", name)?),
            "drain" => Self::Drain(fields.required("who", who)?),
            "replace" => Self::Replace(fields.required("who", who)?),
            "join" => Self::Join {
                name: fields.required("name", name)?,
                site: fields.required("site", site)?,
            },
            "promote" => Self::Promote {
                site: fields.required("site", |value| laid.promotable(value))?,
                force: fields.optional("force", flag)?.unwrap_or(false),
            },
            "layout" => Self::Layout(LayoutAsked::read(fields, laid)?),
            "failback" => {
                Self::Failback { site: fields.required("site", |value| laid.promotable(value))? }
            }
            "backup" => Self::Backup,
            "restore" => Self::Restore,
            "rotate-certificates" => Self::RotateCertificates,
            "rotate-key" => Self::RotateKey,
            _ => Self::RollingRestart,
        })
    }
}

const UNTIL: &[(&str, Until)] = &[
    ("settled", Until::Settled),
    ("read-back", Until::ReadBack),
    ("ledgers-agree", Until::LedgersAgree),
    ("one-writer", Until::OneWriter),
    ("silent", Until::Silent),
    ("rejoined", Until::Rejoined),
];

fn network(
    fields: &mut Fields<'_>,
    who: impl Fn(&DeValue<'_>) -> Result<Who, Told>,
) -> Result<Network, Error> {
    let network = Network {
        from: fields.required("from", &who)?,
        to: fields.required("to", &who)?,
        both: fields.optional("both", flag)?.unwrap_or(true),
        delay: fields.optional("delay", time)?.unwrap_or_default(),
        jitter: fields.optional("jitter", time)?.unwrap_or_default(),
        loss_ppm: fields.optional("loss_percent", percent)?.unwrap_or_default(),
        duplicate_ppm: fields.optional("duplicate_percent", percent)?.unwrap_or_default(),
        reorder_ppm: fields.optional("reorder_percent", percent)?.unwrap_or_default(),
        bytes_per_second: fields.optional("bytes_per_second", number(1, 1 << 40))?,
    };
    let shares = network.loss_ppm + network.duplicate_ppm + network.reorder_ppm;
    let times = network.delay + network.jitter;
    if shares == 0 && times.is_zero() && network.bytes_per_second.is_none() {
        return Err(fields.refuse("", Told::new("drill.no-fault")));
    }
    Ok(network)
}

fn disk(fields: &mut Fields<'_>) -> Result<DiskFault, Error> {
    const FAULTS: &[(&str, DiskFault)] = &[
        ("sync-fails-once", DiskFault::SyncFailsOnce),
        ("sync-fails", DiskFault::SyncFails),
        ("full", DiskFault::Full { bytes: 0 }),
        ("slow", DiskFault::Slow { least: Duration::ZERO, most: Duration::ZERO }),
        ("power-cut", DiskFault::PowerCut),
        ("flip-bit", DiskFault::FlipBit),
        ("lost", DiskFault::Lost),
    ];
    Ok(match fields.required("fault", word_of(FAULTS))? {
        DiskFault::Full { .. } => DiskFault::Full {
            bytes: fields.optional("bytes_left", number(0, 1 << 50))?.unwrap_or_default(),
        },
        DiskFault::Slow { .. } => {
            let least = fields.required("least", time)?;
            DiskFault::Slow {
                least,
                most: fields.optional("most", time)?.unwrap_or(least).max(least),
            }
        }
        fault => fault,
    })
}

/// `leader`, `leader:7`, `follower`, `node:n1`, `site:a`, `all`.
fn who(value: &DeValue<'_>, laid: &Laid<'_>) -> Result<Who, Told> {
    let parsed = value.as_str().and_then(|text| {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(k, rest)| (k, Some(rest)));
        let group = || match rest {
            None => Some(0),
            Some(rest) => rest.parse().ok().filter(|group| u64::from(*group) <= GROUP_MAX),
        };
        let named = || rest.filter(|rest| (1..=64).contains(&rest.len())).map(str::to_owned);
        match kind {
            "leader" => group().map(Who::Leader),
            "follower" => group().map(Who::Follower),
            "node" => named().map(Who::Node),
            "site" => named().map(Who::Site),
            "all" if rest.is_none() => Some(Who::All),
            _ => None,
        }
    });
    let parsed = parsed.ok_or_else(|| {
        Told::new("drill.one-of").with(
            "allowed",
            "leader, leader:GROUP, follower, follower:GROUP, node:NAME, site:NAME, all",
        )
    })?;
    if let Who::Site(site) = &parsed {
        laid.site(site)?;
    }
    Ok(parsed)
}
