//! One target for each parser that reads what others wrote. A target takes any bytes and checks what must hold whatever
//! they are; it fails by a panic. [`run`] drives one with mutations of a corpus, the same for the same seed, so that it
//! runs wherever the tests run; the functions fit a coverage-guided fuzzer as they are.

#![allow(clippy::expect_used, clippy::panic, reason = "a target fails by a panic")]

mod mutate;
pub mod targets;

pub use mutate::Mutator;

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    /// What is well formed, or nearly so.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = targets::ALL;

/// Checks the corpus as it is, then `rounds` mutations of it. A failure names what reproduces it.
pub fn run(target: &Target, seed: u64, rounds: u32) {
    let corpus = (target.corpus)();
    for sample in &corpus {
        (target.check)(sample);
    }
    let mut mutator = Mutator::new(seed, corpus);
    for round in 0..rounds {
        let input = mutator.next_input();
        let failing = Failing { target: target.name, seed, round, input: &input };
        (target.check)(&input);
        std::mem::forget(failing);
    }
}

/// Says what was being checked if the check ends in a panic.
struct Failing<'a> {
    target: &'static str,
    seed: u64,
    round: u32,
    input: &'a [u8],
}

impl Drop for Failing<'_> {
    #[allow(clippy::print_stderr, reason = "a failing test's report")]
    fn drop(&mut self) {
        let Self { target, seed, round, input } = self;
        eprintln!("target {target}, seed {seed}, round {round}: {:?}", String::from_utf8_lossy(input));
        eprintln!("bytes: {input:?}");
    }
}
