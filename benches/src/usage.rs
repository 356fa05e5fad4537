//! What processes used, from `/proc`: CPU time, device bytes, resident memory. Whole trees are
//! counted, because RabbitMQ's start script is not the process that works.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Totals of a set of process trees at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time in µs (the kernel counts in ticks of 10 ms).
    pub cpu_us: u64,
    /// Bytes sent to the block layer; 0 where the kernel does not tell.
    pub written_bytes: u64,
    /// Resident memory now.
    pub rss_bytes: u64,
}

impl Usage {
    /// What was used since `earlier`; the memory stays as it is now.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(earlier.cpu_us),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            rss_bytes: self.rss_bytes,
        }
    }

    /// Totals of `roots` and all their descendants.
    pub fn of(roots: &[u32]) -> Self {
        let mut total = Self::default();
        for pid in family(roots) {
            let folder = format!("/proc/{pid}");
            let Some(stat) = Stat::read(Path::new(&folder)) else {
                continue;
            };
            total.cpu_us += stat.ticks * 10_000;
            total.rss_bytes += stat.rss_pages * 4096;
            total.written_bytes += written(Path::new(&folder)).unwrap_or(0);
        }
        total
    }

    /// Totals of this very process.
    pub fn own() -> Self {
        let mut total = Self::default();
        if let Some(stat) = Stat::read(Path::new("/proc/self")) {
            total.cpu_us = stat.ticks * 10_000;
            total.rss_bytes = stat.rss_pages * 4096;
        }
        total
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
    rss_pages: u64,
}

impl Stat {
    fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join("stat")).ok()?;
        // The name in parentheses may itself hold blanks and parentheses.
        let rest = &text[text.rfind(')')? + 2..];
        let fields: Vec<&str> = rest.split(' ').collect();
        let at = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            parent: u32::try_from(at(1)?).ok()?,
            ticks: at(11)? + at(12)?,
            rss_pages: at(21)?,
        })
    }
}

fn written(folder: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join("io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

fn family(roots: &[u32]) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(stat) = Stat::read(&entry.path()) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found: BTreeSet<u32> = BTreeSet::new();
    let mut open: Vec<u32> = roots.to_vec();
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_and_own_children_are_seen() {
        let before = Usage::own();
        let mut sum = 0_u64;
        while Usage::own().since(before).cpu_us < 20_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep");
        assert!(family(&[std::process::id()]).contains(&child.id()));
        // Between fork and exec a child may have no memory of its own yet.
        let seen = (0..1_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            Usage::of(&[child.id()]).rss_bytes > 0
        });
        assert!(seen);
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
}
