//! What a link decides, without any network.

use std::time::Duration;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// `packets` of 1,000 bytes, one a millisecond; their verdicts.
fn send(link: &mut Link, packets: u64) -> Vec<Verdict> {
    (0..packets).map(|at| link.decide(MS(at), 1_000)).collect()
}

fn faulty() -> Settings {
    Settings {
        delay: MS(20),
        jitter: MS(3),
        loss: Ppm::percent(5.0),
        duplicate: Ppm::percent(2.0),
        reorder: Ppm::percent(3.0),
        bytes_per_second: Some(2_000_000),
        ..Settings::default()
    }
}

#[test]
fn one_seed_decides_the_same_twice_and_another_seed_something_else() {
    let verdicts = |seed| {
        let mut link = Link::new(seed);
        link.set(faulty());
        (send(&mut link, 5_000), link.counts())
    };
    assert_eq!(verdicts(11), verdicts(11));
    assert_ne!(verdicts(11).0, verdicts(12).0);
}

#[test]
fn the_luck_of_a_packet_depends_on_its_place_and_not_on_what_was_set_before() {
    let lost = |before: Settings| {
        let mut link = Link::new(5);
        link.set(before);
        send(&mut link, 1_000);
        link.set(Settings { loss: Ppm::percent(10.0), ..Settings::default() });
        send(&mut link, 1_000).iter().map(|v| *v == Verdict::Drop).collect::<Vec<_>>()
    };
    assert_eq!(lost(Settings::default()), lost(faulty()));
}

#[test]
fn shares_are_what_was_asked_for() {
    let mut link = Link::new(1);
    link.set(Settings { bytes_per_second: None, ..faulty() });
    // Small ones: none of them goes out here, and what is under way is bounded.
    let verdicts: Vec<Verdict> = (0..100_000).map(|at| link.decide(MS(at), 100)).collect();
    let counts = link.counts();
    assert!((4_700..5_300).contains(&counts.lost), "{counts:?}");
    assert!((1_700..2_100).contains(&counts.duplicated), "{counts:?}");
    assert_eq!(counts.delayed, 100_000 - counts.lost);
    let (earliest, latest) = (MS(20), MS(20) + MS(3) + MS(5) + MS(3));
    for (at, verdict) in (0..).zip(verdicts) {
        if let Verdict::Deliver { at: out, .. } = verdict {
            assert!((earliest..=latest).contains(&(out - MS(at))), "{at}: {out:?}");
        }
    }
}

#[test]
fn order_is_kept_by_jitter_and_broken_by_reordering() {
    let order = |settings| {
        let mut link = Link::new(2);
        link.set(settings);
        let mut out: Vec<(Duration, u64)> = (0..2_000)
            .filter_map(|place| match link.decide(MS(place), 100) {
                Verdict::Deliver { at, .. } => Some((at, place)),
                Verdict::Drop => None,
            })
            .collect();
        out.sort_unstable();
        for (_, place) in out {
            assert!(link.deliver(place, 100));
        }
        link.counts().reordered
    };
    assert_eq!(order(Settings { delay: MS(5), jitter: MS(10), ..Settings::default() }), 0);
    let held = Settings { delay: MS(5), reorder: Ppm::percent(5.0), ..Settings::default() };
    assert!((70..130).contains(&order(held)));
}

#[test]
fn a_rate_spreads_packets_and_its_queue_is_bounded() {
    let mut link = Link::new(3);
    link.set(Settings {
        bytes_per_second: Some(100_000),
        queue_bytes_max: 10_000,
        ..Settings::default()
    });
    // All at once: ten fit, each takes 10 ms.
    let verdicts: Vec<Verdict> = (0..20).map(|_| link.decide(MS(0), 1_000)).collect();
    for (at, verdict) in (1..).zip(&verdicts[..10]) {
        assert_eq!(*verdict, Verdict::Deliver { at: MS(10 * at), again_at: None });
    }
    assert!(verdicts[10..].iter().all(|verdict| *verdict == Verdict::Drop));
    assert_eq!(link.counts().queue_full, 10);
    // Later there is room again.
    assert_ne!(link.decide(MS(100), 1_000), Verdict::Drop);
}

#[test]
fn a_cut_takes_what_comes_and_what_is_under_way() {
    let mut link = Link::new(4);
    link.set(Settings::wan(MS(20), Ppm::default()));
    assert_ne!(link.decide(MS(0), 100), Verdict::Drop);
    let open = link.settings();
    link.set(Settings { is_cut: true, ..open });
    assert_eq!(link.decide(MS(1), 100), Verdict::Drop);
    assert!(!link.deliver(0, 100));
    assert_eq!(link.counts().cut, 2);
    link.set(open);
    assert_ne!(link.decide(MS(30), 100), Verdict::Drop);
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut link = Link::new(6);
    link.set(Settings::wan(Duration::from_secs(60), Ppm::default()));
    let packets = UNDER_WAY_BYTES_MAX / 1_000 + 10;
    send(&mut link, packets);
    assert!(link.counts().overrun >= 10);
}
