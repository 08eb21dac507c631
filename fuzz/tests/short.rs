//! Every target for a short while. `STEEPLE_FUZZ_ROUNDS` makes it longer, `STEEPLE_FUZZ_SEED` another, and
//! `STEEPLE_FUZZ_TARGET` narrows it to one.

use steeple_fuzz::{TARGETS, run};

const ROUNDS: u32 = 3_000;
/// Costly: keys are checked, or a runtime is made, each time.
const FEW: u32 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_target_holds() {
    let seed = number("STEEPLE_FUZZ_SEED").unwrap_or(1);
    let only = std::env::var("STEEPLE_FUZZ_TARGET").ok();
    std::thread::scope(|threads| {
        for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|name| name == target.name)) {
            let usual = if matches!(target.name, "key" | "authority" | "config") { FEW } else { ROUNDS };
            let rounds = number("STEEPLE_FUZZ_ROUNDS").map_or(usual, |rounds| rounds as u32);
            threads.spawn(move || run(target, seed, rounds));
        }
    });
}

#[test]
fn a_failing_target_is_noticed() {
    let target = steeple_fuzz::Target {
        name: "fails",
        check: |bytes| assert!(bytes.len() < 40, "too long"),
        corpus: || vec![b"sample".repeat(5)],
    };
    assert!(std::panic::catch_unwind(|| run(&target, 1, 10_000)).is_err());
}
