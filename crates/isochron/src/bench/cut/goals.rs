//! The goals for the guests' pause, as ratios within one run: whoever runs it on
//! another host asks the same of it.

use std::fmt;

use serde::Serialize;

use super::report::Measured;

/// A goal and what was reached.
#[derive(Debug, Serialize, PartialEq)]
pub struct Goal {
    /// In words.
    goal: &'static str,
    load: &'static str,
    page_cache: &'static str,
    ratio: f64,
    /// The ratio is to be no larger.
    at_most: f64,
    reached: bool,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({}, {}): {:.2}, at most {:.2}",
            if self.reached { "reached" } else { "MISSED " },
            self.goal,
            self.load,
            self.page_cache,
            self.ratio,
            self.at_most
        )
    }
}

/// The goals that can be judged by what was measured.
pub fn of(measured: &[Measured], processors: usize, memory_mib: u32) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut kinds: Vec<_> = measured.iter().map(|m| (m.load, m.page_cache)).collect();
    kinds.dedup();
    for (load, page_cache) in kinds {
        let group = |how: &str, kind: &str, members: u8| {
            measured
                .iter()
                .filter(|m| (m.load, m.page_cache) == (load, page_cache))
                .find(|m| (m.how, m.kind, m.members) == (how, kind, members))
                .and_then(Measured::group_us)
                .map(|us| us as f64)
        };
        let mut add = |goal, ours: Option<f64>, of: Option<f64>, at_most| {
            let Some((ours, of)) = ours.zip(of) else {
                return;
            };
            let ratio = ours / of.max(1.0);
            goals.push(Goal {
                goal,
                load,
                page_cache,
                ratio,
                at_most,
                reached: ratio <= at_most,
            });
        };
        let recovery = |members| group("isochron", "recovery", members);
        let cores = group("floor", "recovery", 1).map(|floor| {
            let members_per_core = 8.0 / processors as f64;
            floor * members_per_core.max(1.0)
        });
        add(
            "8 guests, recovery, to floor times members over cores",
            recovery(8),
            cores,
            1.5,
        );
        add(
            "8 guests, recovery, to the loop",
            recovery(8),
            group("loop", "recovery", 8),
            0.2,
        );
        add(
            "8 guests, recovery, to the best that libvirt's scripts reach",
            recovery(8),
            group("libvirt", "recovery", 8),
            0.2,
        );
        add("32 guests to 8, recovery", recovery(32), recovery(8), 4.0);
        if memory_mib == 256 {
            add(
                "8 guests of 256 MiB, standard, to saving memory with guests stopped",
                group("isochron", "standard", 8),
                group("stopped-save", "standard", 8),
                0.1,
            );
        }
    }
    goals
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::cut::report::Round;
    use crate::judge::Figures;

    fn measured(members: u8, how: &'static str, group_us: u64) -> Measured {
        let figures = Figures {
            pauses_us: vec![group_us],
            skew_us: 0,
            window_us: 1,
            group_us,
        };
        Measured {
            members,
            load: "ring",
            page_cache: "clean",
            kind: "recovery",
            how,
            rounds: vec![Round {
                figures,
                create: Duration::ZERO,
                gap_us: 0,
                usual_us: 0,
                usual_longest_us: 0,
            }],
        }
    }

    #[test]
    fn only_what_was_measured_is_judged() {
        let all = [
            measured(1, "floor", 1000),
            measured(8, "isochron", 6000),
            measured(8, "loop", 20_000),
        ];
        let found = of(&all, 2, 256);
        let ratios: Vec<_> = found
            .iter()
            .map(|goal| (goal.ratio, goal.reached))
            .collect();
        assert_eq!(ratios, [(1.5, true), (0.3, false)]);
    }
}
