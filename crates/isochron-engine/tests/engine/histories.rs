//! Histories: several rounds of operations that are asked for at once, chosen by a
//! seed, with faults, deaths of the daemon, losses of power and ends of guests'
//! processes, while guests write and tell each other. After each round the world is
//! judged, in the end everything is destroyed and nothing may be left.
//!
//! A seed is a history: what is asked for, how long each call of a port takes, what
//! fails and every identifier follow from it. `ISOCHRON_SEED=N` runs that one and
//! says what happens in it; `ISOCHRON_RUNS=100000` runs so many, from
//! `ISOCHRON_FIRST_SEED` on.

mod judge;
mod stage;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use isochron_engine::model::seed_identifiers;

use crate::scene::alone;
use stage::Stage;

/// Numbers that follow from a seed (xorshift64*, Vigna 2016).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to below this.
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// What a history was.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// What was asked for and happened, in sentences.
    rounds: Vec<String>,
    /// Every call of a port.
    calls: Vec<String>,
    /// How many operations were done.
    done: usize,
    /// How many blows fell.
    struck: usize,
    /// How many disks were exported in full, and as differences.
    exported: [usize; 2],
    /// What was wrong.
    verdict: Result<(), String>,
}

/// Runs a seed's history.
fn run(seed: u64) -> Told {
    seed_identifiers(Some(seed << 20));
    let told = alone(async {
        let mut random = Random::new(seed);
        let mut stage = Stage::new(seed).await;
        let mut verdict = Ok(());
        let more = if stage.backup { 8 } else { 4 };
        for _ in 0..2 + random.below(more) {
            verdict = stage.round(&mut random).await;
            if verdict.is_err() {
                break;
            }
        }
        if verdict.is_ok() {
            verdict = stage.clear().await;
        }
        Told {
            rounds: std::mem::take(&mut stage.told),
            calls: stage.calls(),
            done: stage.done,
            struck: stage.struck,
            exported: stage.exported(),
            verdict,
        }
    });
    seed_identifiers(None);
    told
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn random_histories() {
    if let Some(seed) = number("ISOCHRON_SEED") {
        let told = run(seed);
        println!("{}", told.rounds.join("\n"));
        return told.verdict.expect("the history ends well");
    }
    let runs = number("ISOCHRON_RUNS").unwrap_or(600);
    let first = number("ISOCHRON_FIRST_SEED").unwrap_or(0);
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Sum::default()));
    // A history is a thread's own.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        break;
                    }
                    let told = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| Told {
                        verdict: Err("it panicked".to_owned()),
                        rounds: Vec::new(),
                        calls: Vec::new(),
                        done: 0,
                        struck: 0,
                        exported: [0; 2],
                    });
                    let mut sum = sum.lock().unwrap();
                    sum.done += told.done;
                    sum.struck += told.struck;
                    for (sum, told) in sum.exported.iter_mut().zip(told.exported) {
                        *sum += told;
                    }
                    if let Err(error) = told.verdict {
                        println!("ISOCHRON_SEED={seed}: {error}");
                        sum.failures.push(format!("ISOCHRON_SEED={seed}: {error}"));
                    }
                }
            });
        }
    });
    let Sum {
        done,
        struck,
        exported,
        failures,
    } = sum.into_inner().unwrap();
    println!(
        "{runs} histories: {done} operations were done, {struck} blows fell, {exported:?} disks \
         were exported in full and as differences, {} failures",
        failures.len()
    );
    let shown = failures.iter().take(12).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} of {runs}:\n{}",
        failures.len(),
        shown.join("\n")
    );
    let [full, differences] = exported;
    assert!(
        full as u64 > runs / 4 && differences as u64 > runs / 4,
        "little was exported"
    );
    assert!(
        done as u64 > runs * 2 && struck as u64 > runs,
        "little has happened"
    );
}

/// What the histories of a run came to.
#[derive(Default)]
struct Sum {
    done: usize,
    struck: usize,
    exported: [usize; 2],
    failures: Vec<String>,
}

/// Or a failing seed would be of no use.
#[test]
fn a_seed_is_one_history() {
    for seed in [3, 14, 159] {
        let (once, again) = (run(seed), run(seed));
        assert_eq!(once.rounds, again.rounds, "seed {seed}");
        let differs = once
            .calls
            .iter()
            .zip(&again.calls)
            .position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| &once.calls[at]), None, "seed {seed}");
        assert_eq!(once.calls.len(), again.calls.len(), "seed {seed}");
        assert!(once.calls.len() > 100);
    }
}
