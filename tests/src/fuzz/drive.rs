//! Feeds a target: the kept corpus, its own seeds, then mutations of both from a seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Target;

/// Inputs are cut here: what is longer finds nothing more and takes longer.
const INPUT_BYTES_MAX: usize = 64 << 10;
const CORPUS_FILES_MAX: usize = 1_000;
/// Bytes that mean something in one of the formats.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"1e400",
    b"-0",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"e\xcc\x81",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"[[field]]\n",
    b"type = \"[[Object]]\"\n",
    b"260230-",
    b"-220001",
    b"H57.101.02",
];

/// What was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driven {
    /// Inputs of the kept corpus.
    pub kept: usize,
    /// Mutations.
    pub mutated: u64,
}

/// Runs a target for `budget` over what `corpus` holds and mutations from `seed`.
///
/// # Panics
/// With the input in hex, when the target panics; when what is kept cannot be read.
#[expect(clippy::disallowed_methods, reason = "a budget of the machine's own time")]
pub fn drive(target: &Target, corpus: &Path, seed: u64, budget: Duration) -> Driven {
    let kept = files(corpus);
    let mut pool = (target.seeds)();
    assert!(!pool.is_empty(), "{} has nothing to begin with", target.name);
    pool.extend(kept.iter().cloned());
    pool.iter().for_each(|input| one(target, input));
    let mut dice = Dice(seed);
    let end = Instant::now() + budget;
    let mut mutated = 0;
    while Instant::now() < end {
        let mut input = pool[dice.below(pool.len())].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut input, &pool, &mut dice);
        }
        input.truncate(INPUT_BYTES_MAX);
        one(target, &input);
        mutated += 1;
    }
    Driven { kept: kept.len(), mutated }
}

fn files(corpus: &Path) -> Vec<Vec<u8>> {
    let entries = match std::fs::read_dir(corpus) {
        // A target need not have one.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.expect("the kept corpus can be listed"),
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() <= CORPUS_FILES_MAX, "corpora are kept small");
    paths.iter().map(|path| std::fs::read(path).expect("a kept input is readable")).collect()
}

fn one(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("target {} fails on {hex}", target.name);
    }
}

fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    match dice.below(8) {
        0 if at < input.len() => input[at] ^= 1 << dice.below(8),
        1 if at < input.len() => input[at] = dice.below(256) as u8,
        2 => input.truncate(at),
        3 => {
            let end = (at + dice.below(16)).min(input.len());
            input.drain(at..end);
        }
        4 => {
            let end = (at + dice.below(64)).min(input.len());
            let part = input[at..end].to_vec();
            input.splice(at..at, part);
        }
        5 => {
            let other = &pool[dice.below(pool.len())];
            let from = dice.below(other.len() + 1);
            let to = (from + dice.below(256)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        6 => input.insert(at, dice.below(256) as u8),
        _ => {
            let token = TOKENS[dice.below(TOKENS.len())];
            input.splice(at..at, token.iter().copied());
        }
    }
}

/// splitmix64: the same seed gives the same inputs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).expect("below a usize")
    }
}
