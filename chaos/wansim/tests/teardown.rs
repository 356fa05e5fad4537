//! A run that panics leaves no process and no namespace. Alone in its program, since it counts what
//! the program holds.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use dtm_wansim::{Plan, Wan, can_run, did_not_run};

#[test]
fn nothing_is_left_when_a_run_panics() {
    if let Err(why) = can_run() {
        return did_not_run(&why);
    }
    let before = count_namespaces();
    let pid = std::thread::spawn(|| {
        let wan = Wan::build(Plan::new(7, &[2])).unwrap();
        let node = wan.node("a2").unwrap();
        let mut shell = Command::new("sh");
        // One that is not the child itself, as a node's own children are not.
        shell.args(["-c", "sleep 600 & echo $!; wait"]).stdout(std::process::Stdio::piped());
        let mut running = wan.spawn(node, &mut shell).unwrap();
        let mut line = [0; 32];
        let len = running.child().stdout.as_mut().unwrap().read(&mut line).unwrap();
        let pid = String::from_utf8_lossy(&line[..len]).trim().to_owned();
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        std::panic::panic_any(pid);
    })
    .join()
    .unwrap_err();
    let pid = pid.downcast::<String>().unwrap();
    // A process that ended may wait as a zombie for whoever adopts it.
    let runs = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| !text.contains(") Z"));
    let until = Instant::now() + Duration::from_secs(5);
    while runs(&format!("/proc/{pid}/stat")) {
        assert!(Instant::now() < until, "process {pid} lives");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(count_namespaces(), before);
}

/// Network namespaces that this process holds.
fn count_namespaces() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    files
        .filter(|file| {
            std::fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("net:"))
        })
        .count()
}
