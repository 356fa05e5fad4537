//! Faults of processes as an outsider sees them.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use dtm_wansim::nemesis::{Means, Starved, TurnedClock, Victim};
use dtm_wansim::{Ppm, did_not_run};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A program that is ended with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> (Self, Victim) {
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let victim = Victim::of(child.id()).unwrap();
        (Self(child), victim)
    }

    /// One that uses all the CPU that it gets.
    fn busy() -> (Self, Victim) {
        Self::start(Command::new("sh").args(["-c", "while :; do :; done"]))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

// fault: F1 F2
#[test]
fn a_killed_process_is_gone_and_its_id_is_not_taken_for_it() {
    let (mut program, victim) = Program::busy();
    assert!(victim.is_alive());
    victim.kill().unwrap();
    assert!(!victim.is_alive());
    program.0.wait().unwrap();
    assert!(victim.kill().is_err() && victim.pause().is_err());
    assert!(Victim::of(u32::MAX).is_err());
}

// fault: F14
#[test]
fn a_paused_process_does_nothing_and_goes_on_afterwards() {
    let (_program, victim) = Program::busy();
    let paused = victim.pause().unwrap();
    let before = victim.cpu_time().unwrap();
    std::thread::sleep(MS(200));
    assert!(victim.is_paused());
    assert_eq!(victim.cpu_time().unwrap(), before);
    drop(paused);
    let end = Instant::now() + Duration::from_secs(10);
    while victim.cpu_time().unwrap() == before {
        assert!(Instant::now() < end, "it does not go on");
        std::thread::sleep(MS(10));
    }
    let began = Instant::now();
    victim.pause_for(MS(100)).unwrap();
    assert!(began.elapsed() >= MS(100) && !victim.is_paused());
}

// fault: F15
#[test]
fn a_starved_process_gets_its_share_and_later_all() {
    for means in [Means::Quota, Means::Turns] {
        let (_program, victim) = Program::busy();
        let starved = match Starved::by(&victim, Ppm::percent(10.0), means) {
            Ok(starved) => starved,
            Err(why) => {
                did_not_run(&why);
                continue;
            }
        };
        let before = victim.cpu_time().unwrap();
        let began = Instant::now();
        std::thread::sleep(MS(1_500));
        let share =
            (victim.cpu_time().unwrap() - before).as_secs_f64() / began.elapsed().as_secs_f64();
        assert!(share < 0.3, "{means:?}: {share}");
        assert!(starved.times() >= 3, "{means:?}: {}", starved.times());
        assert_eq!(starved.means(), means);
        drop(starved);
        let home = std::fs::read_to_string(format!("/proc/{}/cgroup", victim.pid())).unwrap();
        assert!(!home.contains("wansim"), "{home}");
        assert!(!victim.is_paused());
    }
}

#[test]
fn there_is_always_some_means() {
    let (_program, victim) = Program::busy();
    let starved = Starved::new(&victim, Ppm::percent(1.0)).unwrap();
    std::thread::sleep(MS(500));
    assert!(starved.times() > 0);
}

// fault: F20
#[test]
fn a_clock_jumps_while_its_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let clock = match TurnedClock::new(&folder.path().join("clock")) {
        Ok(clock) => clock,
        Err(why) => return did_not_run(&why),
    };
    let mut command = Command::new("perl");
    command
        .args(["-e", "$| = 1; while (1) { print time, \"\\n\"; select undef, undef, undef, 0.1 }"]);
    let (mut program, victim) = Program::start(clock.prepare(&mut command));
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let mut off = || {
        let seen: i64 = lines.next().unwrap().unwrap().parse().unwrap();
        let right = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        seen - i64::try_from(right.as_secs()).unwrap()
    };
    assert!(off().abs() <= 1);
    clock.check(&victim, 0).unwrap();
    for by in [3_600, -3_600, 0] {
        clock.set(by * 1_000).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        // The pipe may hold lines from before.
        while (off() - by).abs() > 2 {
            assert!(Instant::now() < end, "{by} is not seen");
        }
        clock.check(&victim, by * 1_000).unwrap();
        assert!(by == 0 || clock.check(&victim, 0).is_err());
    }
    // One that runs at three times its speed is soon ahead, and stays there.
    let drifting = clock.drift(2_000_000).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while off() < 5 {
        assert!(Instant::now() < end, "it does not drift");
    }
    drop(drifting);
    assert!(off() >= 4);
    let (_other, other) = Program::busy();
    assert!(clock.check(&other, 0).is_err(), "one without the library passes the check");
}
