//! What goes wrong, one thing after the other.

use std::time::Duration;

use crate::hosts::Hosts;
use crate::world::{Weather, World};

const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_500));
const HOUR_US: i64 = 3_600_000_000;

/// How often each class of fault came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Power of one replica (F2, F4).
    pub power_of_one: u64,
    /// Power of all at once (F3).
    pub power_of_all: u64,
    /// One or several cut off, in both directions or in one (F16, F17).
    pub partitions: u64,
    /// Loss, doubles, reordering (F18).
    pub weather: u64,
    /// A slow disk (F13).
    pub slow_disks: u64,
    /// Clocks of one node an hour off (F20).
    pub clocks: u64,
    /// Leadership handed over, voters replaced (F21, F22).
    pub changes: u64,
}

impl Faults {
    /// Of all classes.
    pub fn all(&self) -> u64 {
        let Self { power_of_one, power_of_all, partitions, weather, slow_disks, clocks, changes } =
            self;
        power_of_one + power_of_all + partitions + weather + slow_disks + clocks + changes
    }
}

/// Until the run is over.
pub(crate) async fn rage(world: &World, hosts: &mut Hosts) -> Faults {
    let mut faults = Faults::default();
    while !world.is_over() {
        tokio::time::sleep(world.between(PAUSE.0, PAUSE.1)).await;
        one(world, hosts, &mut faults).await;
        hosts.fill().await;
    }
    faults
}

async fn one(world: &World, hosts: &mut Hosts, faults: &mut Faults) {
    let all = hosts.all();
    let any = all[world.below(all.len() as u64) as usize];
    match world.below(16) {
        0 | 1 => {
            hosts.cut_power(&[any]).await;
            faults.power_of_one += 1;
        }
        2 => {
            let down = hosts.down();
            let up: Vec<u64> = all.into_iter().filter(|id| !down.contains(id)).collect();
            hosts.cut_power(&up).await;
            faults.power_of_all += 1;
            hosts.start_all().await;
        }
        3..=5 => hosts.start_all().await,
        6..=8 => {
            part(world, &all, any);
            faults.partitions += 1;
        }
        9 | 10 => {
            world.step("join", 0, 0, 0);
            world.join();
        }
        11 => {
            storm(world);
            faults.weather += 1;
        }
        12 => world.set_weather(Weather::FAIR),
        13 => {
            let by = if world.below(2) == 0 { 0 } else { 5 + world.below(495) };
            hosts.slow_down(any, Duration::from_millis(by));
            faults.slow_disks += u64::from(by > 0);
        }
        14 => {
            let by_us = [0, HOUR_US, -HOUR_US][world.below(3) as usize];
            world.set_clock(any, by_us);
            faults.clocks += u64::from(by_us != 0);
        }
        _ => match world.below(4) {
            0 => {
                hosts.replace().await;
                faults.changes += 1;
            }
            1 => {
                hosts.hand_over().await;
                faults.changes += 1;
            }
            _ => hosts.maintain(any, world.below(20)).await,
        },
    }
}

/// Cuts ways between replicas.
fn part(world: &World, all: &[u64], any: u64) {
    let others = || all.iter().filter(move |id| **id != any);
    match world.below(3) {
        0 => {
            world.step("isolate", any, any, 0);
            world.cut(others().flat_map(|id| [(*id, any), (any, *id)]));
        }
        1 => {
            // Everybody hears it, or it hears everybody; not both.
            let hears = world.below(2) == 0;
            world.step("deafen", any, any, u64::from(hears));
            world.cut(others().map(|id| if hears { (any, *id) } else { (*id, any) }));
        }
        _ => {
            // Two that see a third, and not each other.
            let other = all[world.below(all.len() as u64) as usize];
            world.step("part", any, other, 0);
            world.cut([(any, other), (other, any)]);
        }
    }
}

/// Loss, doubles, letters that overtake each other.
fn storm(world: &World) {
    let weather = Weather {
        lost: 10 + u32::try_from(world.below(290)).expect("small"),
        doubled: u32::try_from(world.below(200)).expect("small"),
        delay: Duration::from_millis(1 + world.below(150)),
    };
    world.step("weather", u64::from(weather.lost), u64::from(weather.doubled), 0);
    world.set_weather(weather);
}
