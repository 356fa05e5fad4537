//! The arms by name. A name may carry options: `nats-always/streams=4`, `etcd/txn=16`,
//! `rabbitmq/queues=12`, `ours/groups=3`.

mod echo;
mod etcd;
mod nats;
mod ours;
mod rabbit;

use crate::driver::Driver;

/// Ingest groups of a cluster of ours where nothing is said: the default of a new cluster.
const GROUPS: u32 = 12;

/// Names that [`make`] knows, with what they are.
pub const ARMS: [(&str, &str); 12] = [
    ("ours", "three nodes, TLS, validation, all defaults; /groups=N"),
    ("ours-off", "ours without TLS, seal, check and digests; leaves stay"),
    ("ours-unvalidated", "ours without the check of records"),
    ("ours-unsealed", "ours without encryption of batches"),
    ("ours-plain", "ours without TLS"),
    ("ours-undigested", "ours without record hashes, roots and digests"),
    ("nats-always", "NATS JetStream R3 file, sync_interval always; /streams=N"),
    ("nats-default", "NATS JetStream R3 file, synced every two minutes; /streams=N"),
    ("etcd", "etcd, one put a record; /txn=N packs N into a transaction"),
    ("rabbitmq", "RabbitMQ quorum queues with confirms; /queues=N"),
    ("replicated-echo", "tonic echo with two forward hops, no disk"),
    ("echo", "tonic echo, no hop, no disk"),
];

/// Makes the arm that `name` spells; `None` for a name or option that is not known.
pub fn make(name: &str) -> Option<Box<dyn Driver>> {
    let (kind, option) = name.split_once('/').map_or((name, None), |(kind, o)| (kind, Some(o)));
    let number = |key: &str, default: u32| -> Option<u32> {
        let Some(option) = option else {
            return Some(default);
        };
        let value: u32 = option.strip_prefix(key)?.strip_prefix('=')?.parse().ok()?;
        (1..=128).contains(&value).then_some(value)
    };
    Some(match kind {
        ours if ours::without(ours).is_some() => {
            Box::new(ours::Ours::new(ours, number("groups", GROUPS)?)?)
        }
        "nats-always" => Box::new(nats::Nats::new(true, number("streams", 1)?)),
        "nats-default" => Box::new(nats::Nats::new(false, number("streams", 1)?)),
        "etcd" => Box::new(etcd::Etcd::new(usize::try_from(number("txn", 1)?).ok()?)),
        "rabbitmq" => Box::new(rabbit::Rabbit::new(number("queues", 12)?)),
        "replicated-echo" if option.is_none() => Box::new(echo::Echo::new(true)),
        "echo" if option.is_none() => Box::new(echo::Echo::new(false)),
        _ => return None,
    })
}

/// Name of an arm without its options.
pub fn kind(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// Whether an arm is our own cluster, whole or with parts left out.
pub fn is_ours(name: &str) -> bool {
    ours::without(kind(name)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_their_arms() {
        for (name, _) in ARMS {
            let arm = make(name).expect("a known arm");
            assert_eq!(kind(&arm.arm()), name);
            assert_eq!(is_ours(name), name.starts_with("ours"), "{name}");
        }
        assert_eq!(make("nats-always/streams=4").expect("known").arm(), "nats-always/streams=4");
        assert_eq!(make("etcd/txn=16").expect("known").arm(), "etcd/txn=16");
        for wrong in ["nats", "nats-always/queues=2", "etcd/txn=0", "etcd/txn=999", "echo/x=1"] {
            assert!(make(wrong).is_none(), "{wrong}");
        }
    }
}
