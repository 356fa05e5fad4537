//! Which operations on which files fail, wait or lie, how often, and how often they did.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::rng::SplitMix;

/// What a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Bytes of a file that the kernel does not hold.
    Read,
    /// Bytes to a file.
    Write,
    /// `fsync` and `fdatasync` of a file.
    Sync,
    /// `fsync` of a folder.
    SyncFolder,
    /// Opening a file that exists.
    Open,
    /// A new file, folder or link.
    Create,
    /// A new name.
    Rename,
    /// Removal of a file or folder.
    Remove,
    /// `fallocate`, `ftruncate`.
    Resize,
}

impl Op {
    /// All of them, with their words in commands.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Sync, "sync"),
        (Self::SyncFolder, "sync-folder"),
        (Self::Open, "open"),
        (Self::Create, "create"),
        (Self::Rename, "rename"),
        (Self::Remove, "remove"),
        (Self::Resize, "resize"),
    ];

    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// What happens instead of the operation, or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this number of `errno` and does nothing. A sync that fails dooms what it
    /// should have written: later syncs succeed without writing it.
    Fail(i32),
    /// It waits between these two times, as the seed decides, and is done then.
    Delay(Duration, Duration),
    /// A read gets what the file held when the rule was made. Fires only where that differs.
    Stale,
    /// A read gets the bytes that stand so many bytes further on. Fires only where they differ.
    Misdirect(i64),
    /// The power is cut before the operation: it and all after it fail.
    PowerCut,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of which operation.
    pub op: Op,
    /// Of which files, by their path below the mount; `*` stands for any characters.
    pub files: String,
    /// What happens.
    pub effect: Effect,
    /// So often it lets the operation pass first.
    pub after: u64,
    /// So often it fires; None: always.
    pub times: Option<u64>,
}

impl Rule {
    /// Fires once, at the first operation of that kind on such a file.
    #[must_use]
    pub fn once(op: Op, files: &str, effect: Effect) -> Self {
        Self { op, files: files.to_owned(), effect, after: 0, times: Some(1) }
    }

    /// Fires each time.
    #[must_use]
    pub fn always(op: Op, files: &str, effect: Effect) -> Self {
        Self { times: None, ..Self::once(op, files, effect) }
    }

    /// Whether it is about a file.
    #[must_use]
    pub fn is_about(&self, path: &str) -> bool {
        matches(&self.files, path)
    }
}

/// Names a rule that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u64);

#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: Rule,
    passed: u64,
    fired: u64,
    luck: SplitMix,
}

/// A page that could not be read stays so for a moment: the kernel asks once for itself and once
/// more for the program, which would otherwise never see a fault that fires once.
const PAGE_STAYS_BAD: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct BadPage {
    number: u64,
    page: u64,
    errno: i32,
    until: Instant,
}

/// What fires now. The path of a file is asked for only where a rule could concern it.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Operations that any rule is about; most of the time none.
    ops: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    seed: u64,
    active: Vec<Active>,
    bad_page: Option<BadPage>,
}

/// Rules at most.
pub(crate) const RULES_MAX: usize = 1_000;

impl Rules {
    pub(crate) fn new(seed: u64) -> Self {
        Self { inner: Mutex::new(Inner { seed, ..Inner::default() }), ..Self::default() }
    }

    /// None where there are too many already.
    pub(crate) fn add(&self, rule: Rule) -> Option<RuleId> {
        let mut inner = self.inner.lock();
        if inner.active.len() >= RULES_MAX {
            return None;
        }
        inner.next += 1;
        let id = RuleId(inner.next);
        let luck = SplitMix::for_part(inner.seed, id.0);
        self.ops.fetch_or(rule.op.bit(), Ordering::SeqCst);
        inner.active.push(Active { id, rule, passed: 0, fired: 0, luck });
        Some(id)
    }

    /// How often it fired, when it is taken away; None: unknown.
    pub(crate) fn remove(&self, id: RuleId) -> Option<u64> {
        let mut inner = self.inner.lock();
        let at = inner.active.iter().position(|active| active.id == id)?;
        let removed = inner.active.remove(at);
        let ops = inner.active.iter().fold(0, |ops, active| ops | active.rule.op.bit());
        self.ops.store(ops, Ordering::SeqCst);
        Some(removed.fired)
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.active.clear();
        inner.bad_page = None;
        self.ops.store(0, Ordering::SeqCst);
    }

    /// Every rule and how often it fired.
    pub(crate) fn list(&self) -> Vec<(RuleId, Rule, u64)> {
        let inner = self.inner.lock();
        inner.active.iter().map(|a| (a.id, a.rule.clone(), a.fired)).collect()
    }

    // Hot path: one load where no rule is about the operation.
    pub(crate) fn concern(&self, op: Op) -> bool {
        self.ops.load(Ordering::SeqCst) & op.bit() != 0
    }

    /// The first rule that fires now, and a draw for it. `accepts` says whether it would have an
    /// effect at all; where not, it does not count.
    pub(crate) fn fire(
        &self,
        op: Op,
        path: &str,
        accepts: impl Fn(RuleId, Effect) -> bool,
    ) -> Option<(RuleId, Effect, u64)> {
        let mut inner = self.inner.lock();
        for active in inner.active.iter_mut().filter(|active| active.rule.op == op) {
            let is_spent = active.rule.times.is_some_and(|times| active.fired >= times);
            if is_spent || !active.rule.is_about(path) || !accepts(active.id, active.rule.effect) {
                continue;
            }
            if active.passed < active.rule.after {
                active.passed += 1;
                continue;
            }
            active.fired += 1;
            return Some((active.id, active.rule.effect, active.luck.draw()));
        }
        None
    }

    /// A page of a file is bad for a moment.
    pub(crate) fn mark_bad(&self, number: u64, page: u64, errno: i32) {
        let until = Instant::now() + PAGE_STAYS_BAD;
        self.inner.lock().bad_page = Some(BadPage { number, page, errno, until });
    }

    /// The error of a page that was marked a moment ago.
    pub(crate) fn bad(&self, number: u64, mut pages: std::ops::Range<u64>) -> Option<i32> {
        let inner = self.inner.lock();
        let bad = inner.bad_page.as_ref()?;
        let is_it = bad.number == number
            && pages.any(|page| page == bad.page)
            && Instant::now() < bad.until;
        is_it.then_some(bad.errno)
    }
}

/// Whether a path fits a pattern whose `*` stand for any characters, `/` too.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path) in
            [("*", ""), ("*", "a/b"), ("*.log", "x/1.log"), ("a*c*e", "abcde"), ("a", "a")]
        {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in
            [("", "a"), ("*.log", "log.x"), ("a*b", "ac"), ("ab*ba", "aba"), ("a", "ab")]
        {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_rule_fires_as_often_as_it_says_and_after_so_many() {
        let rules = Rules::new(1);
        assert!(!rules.concern(Op::Sync));
        let rule = Rule { after: 2, ..Rule::once(Op::Sync, "*.log", Effect::Fail(5)) };
        let id = rules.add(rule).unwrap();
        assert!(rules.concern(Op::Sync) && !rules.concern(Op::Write));
        let fired: Vec<bool> =
            (0..5).map(|_| rules.fire(Op::Sync, "1.log", |_, _| true).is_some()).collect();
        assert_eq!(fired, [false, false, true, false, false]);
        assert!(rules.fire(Op::Sync, "1.sst", |_, _| true).is_none());
        assert_eq!(rules.remove(id), Some(1));
        assert!(!rules.concern(Op::Sync) && rules.remove(id).is_none());
    }
}
