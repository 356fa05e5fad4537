//! The table of keys. One line a key: type, default as it would stand in the file, range of its
//! measure, unit.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Value;
use super::read::Source;

/// What this software knows.
const NEWEST: u64 = dtm_types::bundle::VERSION_MAX as u64;

/// What is known about a key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section of the file.
    pub section: &'static str,
    /// Name in the section.
    pub name: &'static str,
    /// Kind of value.
    pub kind: &'static str,
    /// Default as it would stand in the file; empty = compulsory.
    pub default: &'static str,
    /// Least and greatest measure.
    pub range: (u64, u64),
    /// Unit of the measure.
    pub unit: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Whose it is, and when a change of it holds.
    pub scope: Scope,
}

/// Whose a key is, and when a change of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of each node: its file and environment say it. A change holds from its next start on.
    Node,
    /// Of the cluster, which may set it; it then wins over file and environment. A change holds on
    /// every node within seconds.
    Live,
    /// As [`Scope::Live`], but a change holds on each node from its next start on.
    Start,
}

impl Scope {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Live => "live",
            Self::Start => "start",
        }
    }

    /// As docs/config.md says it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Live => "cluster, live",
            Self::Start => "cluster, at the next start",
        }
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

macro_rules! config {
    ($($(#[doc = $section_doc:literal])+ $section:ident: $Section:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:literal, $low:tt..=$high:expr, $unit:literal, $scope:ident;)*
    })*) => {
        /// The configuration of a node.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $Section,)*
        }

        $($(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Section {
            $($(#[doc = $doc])+ pub $key: $kind,)*
        })*

        /// Every key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$($(Key {
            section: stringify!($section),
            name: stringify!($key),
            kind: <$kind as Value>::KIND,
            default: $default,
            range: ($low, $high),
            unit: $unit,
            doc: concat!($($doc),+),
            scope: Scope::$scope,
        },)*)*];

        /// Sections with what they are about.
        pub(super) const SECTIONS: &[(&str, &str)] = &[$((stringify!($section), concat!($($section_doc),+)),)*];

        impl Config {
            pub(super) fn take(source: &mut Source<'_>) -> Option<Self> {
                // Every key is taken before the first missing one ends it, so that all are reported.
                $(let $section = {
                    $(let $key = source.take::<$kind>(stringify!($section), stringify!($key));)*
                    (|| Some($Section { $($key: $key?,)* }))()
                };)*
                Some(Self { $($section: $section?,)* })
            }

            /// As `started`, but with the keys of this one that are followed while running.
            pub fn live_over(&self, started: &Self) -> Self {
                let mut all = started.clone();
                $($(if matches!(Scope::$scope, Scope::Live) {
                    all.$section.$key.clone_from(&self.$section.$key);
                })*)*
                all
            }

            /// Section, key, value as it would stand in the file, and as JSON, in the order of
            /// [`KEYS`].
            pub fn rows(&self) -> Vec<(&'static str, &'static str, String, serde_json::Value)> {
                vec![$($((
                    stringify!($section),
                    stringify!($key),
                    self.$section.$key.show(),
                    self.$section.$key.json(),
                ),)*)*]
            }
        }
    };
}

config! {
    /// Who this node is, where its data lies and where it listens.
    node: Node {
        /// Name of the node, unique in the cluster.
        name: String = "", 1..=64, "characters", Node;
        /// Site: a place that can fail as a whole.
        site: String = "\"main\"", 1..=64, "characters", Node;
        /// Zone within the site, such as a rack or a room.
        zone: String = "\"main\"", 1..=64, "characters", Node;
        /// Folder of log, state and keyring. One node alone uses it.
        data: PathBuf = "\"data\"", 1..=4096, "bytes", Node;
        /// Where HTTPS is served: health, metrics, the live page.
        https: SocketAddr = "\"0.0.0.0:8443\"", 0..=65_535, "port", Node;
        /// Where sources and operators connect (gRPC).
        grpc: SocketAddr = "\"0.0.0.0:9443\"", 0..=65_535, "port", Node;
        /// Where the other nodes connect.
        peers: SocketAddr = "\"0.0.0.0:9444\"", 0..=65_535, "port", Node;
        /// Where nodes of other sites connect (QUIC over UDP), such as `0.0.0.0:9445`. Empty: they are reached over TCP as those of this site. A node tells it at its start, in a cluster of version 2.
        sites: String = "\"\"", 0..=64, "characters", Node;
        /// Highest version of stored formats and messages that this node speaks (`proto/versions.txt`). To hold a new release at that of the one before, while others are still to be upgraded.
        protocol_version_max: u64 = "2", 1..=NEWEST, "version", Node;
        /// Names or addresses under which others reach this node; they stand in its certificate. The first is told to clients and peers.
        advertise: Vec<String> = "", 1..=16, "names", Node;
    }
    /// Certificates, and how many connections are taken.
    tls: Tls {
        /// Certificate chain of the node (PEM), itself first. Replaced while running: see `reload_interval_ms`.
        certificate: PathBuf = "\"tls/node.pem\"", 1..=4096, "bytes", Node;
        /// Private key of the node (PEM), mode 0600.
        key: PathBuf = "\"tls/node.key\"", 1..=4096, "bytes", Node;
        /// Root certificates of the cluster (PEM). Callers must chain to one of them.
        ca: PathBuf = "\"tls/ca.pem\"", 1..=4096, "bytes", Node;
        /// How often the three files are looked at for a change.
        reload_interval_ms: u64 = "5_000", 100..=3_600_000, "ms", Start;
        /// This node renews its certificate by itself once so much of its life, or less, is left, where the cluster's own authority issued it. 0: only when told (`dtm cluster renew`).
        renew_left_percent: u64 = "33", 0..=90, "percent", Start;
        /// A connection that has not finished its TLS handshake by then, or sends nothing for so long after it, is dropped.
        handshake_timeout_ms: u64 = "5_000", 100..=60_000, "ms", Start;
        /// Open connections a port.
        connections_max: u64 = "4_096", 16..=65_536, "connections", Start;
        /// Open connections of one address a port.
        connections_per_address_max: u64 = "1_024", 1..=65_536, "connections", Start;
    }
    /// Keys that are not certificates.
    keys: Keys {
        /// File of the master key that seals the keyring, mode 0600. Keep a copy in a safe: without it no data can be read.
        master_key_file: PathBuf = "\"keys/master.key\"", 1..=4096, "bytes", Node;
    }
    /// Bounds on what is taken in. What a source has of its own (`dtm source add --limit`) holds for it instead: of `record_bytes_max` and `frame_bytes_max` the lower, `in_flight_bytes_max` up to `node_in_flight_bytes_max`, numbers of streams and the quarantine as it says.
    limits: Limits {
        /// Largest record: its payload and its envelope.
        record_bytes_max: u64 = "8_388_608", 1_024..=(12 * MIB), "bytes", Live;
        /// Largest frame of a client: many records.
        frame_bytes_max: u64 = "9_437_184", 2_048..=(15 * MIB), "bytes", Live;
        /// Most records of a frame, and most entries of all lists in them. It bounds what a frame takes in memory: an empty record is two bytes on the wire. Clients of the SDK cut their frames by it.
        frame_records_max: u64 = "65_536", 1_024..=1_048_576, "records", Live;
        /// Streams of one source open at once on this node. Streams gather on the node that leads the source's group; one that is served elsewhere counts there.
        streams_open_max: u64 = "64", 1..=4_096, "streams", Live;
        /// Reads, tails and lists of the quarantine of one source or operator open at once on this node.
        reads_open_max: u64 = "32", 1..=4_096, "reads", Live;
        /// What answers that are ready and not yet sent take in memory on this node, over all reads; those of one source or operator a quarter of it. A read whose caller takes nothing for 5 s ends (`unavailable`) where others wait for its room; it goes on from the last position.
        read_ahead_bytes_max: u64 = "67_108_864", (4 * MIB)..=(64 * GIB), "bytes", Start;
        /// Stream names of one source, ever.
        stream_names_max: u64 = "100_000", 1..=10_000_000, "names", Live;
        /// Bytes of one stream that are sent and not yet acknowledged. A larger frame is admitted when nothing else of its stream is in flight.
        stream_in_flight_bytes_max: u64 = "1_048_576", 65_536..=(256 * MIB), "bytes", Live;
        /// What the streams of one source take in memory on this node, so that none takes all of it. A source with a larger window of its own has that.
        source_in_flight_bytes_max: u64 = "67_108_864", MIB..=(64 * GIB), "bytes", Live;
        /// The same over all streams of the node.
        node_in_flight_bytes_max: u64 = "268_435_456", MIB..=(64 * GIB), "bytes", Start;
        /// Room for requests that have begun and are not complete, on this node; a source has half of it. Calls that are read before it is known who asks have a quarter beside it, an address half of that. A request is read when there is room for all of it; three of a connection wait for it, further ones are refused meanwhile (`overloaded`).
        arriving_bytes_max: u64 = "134_217_728", (4 * MIB)..=(64 * GIB), "bytes", Start;
        /// A request that has begun and has its room is complete by then, or its call ends (`overloaded`). The slowest line that carries a frame of `frame_bytes_max` is this quick.
        request_within_ms: u64 = "30_000", 1_000..=3_600_000, "ms", Start;
        /// Refused records a second of one source, over all its streams on this node. Where there are more, the streams that they come in are read more slowly, one frame of them at a time, so that they cost the other sources nothing.
        refused_per_second_max: u64 = "1_000", 1..=1_000_000, "records", Live;
        /// Refused records kept for one source; beyond it they are only counted.
        quarantine_records_max: u64 = "10_000", 0..=10_000_000, "records", Live;
        /// Bytes of refused records kept for one source; beyond it they are only counted.
        quarantine_bytes_max: u64 = "67_108_864", 0..=(16 * GIB), "bytes", Live;
        /// Where an agreement asks for acks at level `site`: how long they may wait for the standby without progress. Then the stream ends as `outcome-unknown`, and its client opens it again and goes on from the cursor. The standby's lag has to stay well below.
        site_ack_within_ms: u64 = "10_000", 1_000..=600_000, "ms", Start;
        /// Disk that the log leaves free. Where a new segment would take of it, what this node leads is refused as `disk-full`.
        disk_reserved_bytes: u64 = "268_435_456", (64 * MIB)..=(64 * GIB), "bytes", Node;
    }
    /// The node's one log of all its groups.
    log: Log {
        /// Size of a segment file. The least holds the largest record that any node may take: each
        /// replica of its group writes it. Segments that are made already keep their size.
        segment_bytes: u64 = "67_108_864", (64 * MIB)..=(2 * GIB), "bytes", Node;
        /// How fast sealed segments are read again to find damage, on average. 0 turns it off.
        scrub_bytes_per_second: u64 = "4_194_304", 0..=GIB, "bytes per second", Start;
    }
    /// The state machine's rows (RocksDB). Payloads do not go there.
    state: State {
        /// Memory for blocks that were read.
        block_cache_bytes: u64 = "134_217_728", (8 * MIB)..=(256 * GIB), "bytes", Node;
        /// Memory for rows that were not flushed, over all groups.
        write_buffer_bytes: u64 = "134_217_728", (8 * MIB)..=(64 * GIB), "bytes", Node;
        /// How often the leader of a group compares the rows of all its replicas. A difference is found within this and twice what one comparison takes.
        compare_every_ms: u64 = "900_000", 1_000..=86_400_000, "ms", Start;
        /// How fast a node compares rows, over the groups that it leads; each replica of them reads its own as fast. A node that leads 20 GB of rows takes 20 minutes for them. 0 turns comparisons off.
        compare_bytes_per_second: u64 = "16_777_216", 0..=GIB, "bytes per second", Start;
    }
    /// How the groups agree. Best the same on every node: let the cluster set it.
    raft: Raft {
        /// How often a leader shows that it lives.
        heartbeat_ms: u64 = "150", 10..=10_000, "ms", Start;
        /// Least silence after which a follower stands for election.
        election_min_ms: u64 = "900", 50..=60_000, "ms", Start;
        /// Greatest silence after which a follower stands for election.
        election_max_ms: u64 = "1_800", 100..=120_000, "ms", Start;
        /// A node whose clock is further than this from the median of all clocks neither leads nor stamps, where another node can.
        clock_offset_max_ms: u64 = "500", 300..=60_000, "ms", Start;
    }
    /// Where the controller puts replicas. Best the same on every node, the one that leads the group meta decides: let the cluster set it.
    placement: Placement {
        /// Replicas move, one at a time, from full nodes to empty ones and apart over sites and zones.
        rebalance: bool = "true", 0..=1, "", Start;
        /// A node that did not answer for so long is given up: what it held is made anew on other nodes, where there are any. 0 = never.
        dead_after_ms: u64 = "1_800_000", 0..=2_592_000_000, "ms", Start;
        /// Rate at which this node takes copies when replicas move or are made anew, over all groups: they share disk and processor with the acks. 0 = as fast as they come.
        copy_bytes_per_second: u64 = "67_108_864", 0..=(4 * GIB), "bytes per second", Start;
    }
    /// Lines to nodes of other sites, where `node.sites` is set.
    sites: Sites {
        /// What decides how much is in flight: `bbr`, or `cubic`, which gives way at losses (docs/adr/0008).
        congestion: String = "\"bbr\"", 3..=5, "characters", Start;
        /// Rate of all snapshots and missed bundles that leave this node for other sites. Below the line's rate the log does not feel them.
        copies_bytes_per_second: u64 = "8_388_608", MIB..=(4 * GIB), "bytes per second", Start;
        /// Most bytes of one lane (a group's log, its copies) that are on their way. At least rate times round trip of the line.
        lane_window_bytes: u64 = "4_194_304", 65_536..=(64 * MIB), "bytes", Start;
        /// The same over all lanes to a node, at least four times as much.
        line_window_bytes: u64 = "67_108_864", MIB..=GIB, "bytes", Start;
        /// A second channel: another local address, which must share nothing with the first. Empty: there is none.
        second_listen: String = "\"\"", 0..=64, "characters", Node;
        /// What the second channel speaks, the same on all nodes: `tcp` (TLS over TCP), which is of another kind than the first, or `quic` over UDP.
        second_kind: String = "\"quic\"", 3..=4, "characters", Node;
        /// Certificate chain of this node for the second channel (PEM).
        second_certificate: PathBuf = "\"\"", 0..=4096, "bytes", Node;
        /// Its private key (PEM), mode 0600.
        second_key: PathBuf = "\"\"", 0..=4096, "bytes", Node;
        /// Root certificates of the second channel (PEM), of all nodes. Empty: those of `tls.ca`; one of its own makes the channels independent of one authority.
        second_ca: PathBuf = "\"\"", 0..=4096, "bytes", Node;
        /// Where the other nodes are reached over the second channel, each as `NODE-ID=HOST:PORT`.
        second_peers: Vec<String> = "[]", 0..=256, "names", Node;
        /// When the second channel is used: `at-once` after a cut of the first, `automatic` after `standby_after_ms`, `confirmed` after that and one `dtm site confirm`.
        standby: String = "\"at-once\"", 7..=9, "characters", Start;
        /// How long the first channel is cut, since the last good message over it, before the second is ordered, which is told in the log and the ledger and counted: two hours by circular.
        standby_after_ms: u64 = "7_200_000", 1_000..=86_400_000, "ms", Start;
        /// The first channel is used again once it has answered for so long.
        return_after_ms: u64 = "60_000", 1_000..=3_600_000, "ms", Start;
        /// Whom to tell of a line between sites that is cut: named in the log, by `dtm site status` and in the alarm. Such as a duty desk with its telephone.
        contact: String = "\"\"", 0..=200, "characters", Start;
        /// Replicas of a group at another site than its leader's that are further behind are told: in the log, in `dtm_sites_lagging`, by `dtm site status` and `dtm doctor`.
        lag_alarm_ms: u64 = "5_000", 200..=86_400_000, "ms", Start;
    }
    /// Backups, on the node that is asked to write them.
    backup: Backup {
        /// Folder that backups are written to, best on a disk of another place that is mounted here. Empty: this node writes none.
        folder: PathBuf = "\"\"", 0..=4096, "bytes", Node;
        /// This node writes one by itself once the newest of the folder was begun so long ago. Best set on one node. 0: only when asked (`dtm backup create`).
        every_minutes: u64 = "0", 0..=44_640, "minutes", Node;
        /// Backups of one chain at most: the next one is full. An incremental one needs all before it in its chain.
        chain_max: u64 = "30", 1..=1_000, "backups", Node;
    }
    /// What the node says about itself.
    telemetry: Telemetry {
        /// Log level, or a filter such as `info,dtm_cluster=debug`. The warnings of openraft repeat many times a second while a node is away; who is gone and who is back is told once without them.
        log: String = "\"info,openraft=error\"", 1..=1_024, "characters", Node;
    }
}
