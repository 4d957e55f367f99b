//! What `isochron bench oracle` found: figures per combination, as a table or as
//! JSON, and whether what must hold did.

use serde::Serialize;

use super::oracle::Round;
use crate::exit::Failure;
use crate::output::{self, Table};

/// The rounds of one size of ring and one type of snapshot.
pub struct Combination {
    /// Members of the ring.
    pub members: u8,
    /// `standard` or `recovery`.
    pub kind: &'static str,
    /// What was found, in order.
    pub rounds: Vec<Round>,
}

/// What goes out as JSON. Microseconds throughout.
#[derive(Debug, Serialize)]
struct Summary {
    members: u8,
    r#type: &'static str,
    rounds: usize,
    /// Rounds that the oracle says are no instant.
    violations: usize,
    /// Rounds without a moment at which all stood still.
    without_window: usize,
    /// Every member's.
    pause_us: Spread<u64>,
    /// First STOP to last RESUME.
    group_pause_us: Spread<u64>,
    skew_us: Spread<u64>,
    /// Its worst is the shortest.
    common_window_us: Spread<i64>,
    /// Request to the end of the job.
    create_us: Spread<u64>,
}

/// The middle and the worst of several values.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Spread<T> {
    pub median: T,
    pub worst: T,
}

impl<T: Copy + Ord> Spread<T> {
    /// Of values of which the largest is the worst; there must be one.
    pub fn of(values: impl Iterator<Item = T>) -> Option<Self> {
        let mut values: Vec<T> = values.collect();
        values.sort_unstable();
        Some(Self {
            median: *values.get(values.len() / 2)?,
            worst: *values.last()?,
        })
    }
}

impl Summary {
    fn of(combination: &Combination) -> Option<Self> {
        let rounds = &combination.rounds;
        let figures = || rounds.iter().map(|round| &round.figures);
        let window = Spread::of(figures().map(|figures| -figures.window_us))?;
        let create = rounds.iter().map(|round| round.create.as_micros());
        Some(Self {
            members: combination.members,
            r#type: combination.kind,
            rounds: rounds.len(),
            violations: rounds
                .iter()
                .filter(|round| round.violation.is_some())
                .count(),
            without_window: figures().filter(|figures| !figures.has_instant()).count(),
            pause_us: Spread::of(figures().flat_map(|f| f.pauses_us.iter().copied()))?,
            group_pause_us: Spread::of(figures().map(|figures| figures.group_us))?,
            skew_us: Spread::of(figures().map(|figures| figures.skew_us))?,
            common_window_us: Spread {
                median: -window.median,
                worst: -window.worst,
            },
            create_us: Spread::of(create.map(|us| u64::try_from(us).unwrap_or(u64::MAX)))?,
        })
    }
}

/// Prints what was found.
pub fn print(combinations: &[Combination], looped: bool, json: bool) -> Result<(), Failure> {
    let summaries: Vec<Summary> = combinations.iter().filter_map(Summary::of).collect();
    if json {
        return output::json(&serde_json::json!({ "looped": looped, "combinations": summaries }));
    }
    let mut table = Table::new([
        "MEMBERS",
        "TYPE",
        "ROUNDS",
        "VIOLATED",
        "NO WINDOW",
        "PAUSE",
        "",
        "GROUP",
        "",
        "SKEW",
        "",
        "WINDOW",
        "",
        "CREATE",
        "",
    ]);
    let spread = |spread: &Spread<u64>| [ms(spread.median as f64), ms(spread.worst as f64)];
    for summary in &summaries {
        let [pause, longest_pause] = spread(&summary.pause_us);
        let [group, longest_group] = spread(&summary.group_pause_us);
        let [skew, largest_skew] = spread(&summary.skew_us);
        let [create, longest_create] = spread(&summary.create_us);
        table.row([
            summary.members.to_string(),
            summary.r#type.to_owned(),
            summary.rounds.to_string(),
            summary.violations.to_string(),
            summary.without_window.to_string(),
            pause,
            longest_pause,
            group,
            longest_group,
            skew,
            largest_skew,
            ms(summary.common_window_us.median as f64),
            ms(summary.common_window_us.worst as f64),
            create,
            longest_create,
        ]);
    }
    let how = match looped {
        true => "members in turn (negative control)",
        false => "members at one instant",
    };
    output::text(&format!(
        "{table}Milliseconds, median and worst (the shortest window); {how}. PAUSE is each \
         member's,\nGROUP from the first STOP to the last RESUME, CREATE from request to job's \
         end.\n"
    ))
}

fn ms(us: f64) -> String {
    format!("{:.1}", us / 1e3)
}

/// Whether what must hold did.
pub fn judge(combinations: &[Combination], looped: bool) -> Result<(), Failure> {
    let rounds = || {
        combinations
            .iter()
            .flat_map(|combination| &combination.rounds)
    };
    let instants = rounds()
        .filter(|r| r.figures.has_instant() && r.violation.is_none())
        .count();
    let (all, others) = (rounds().count(), rounds().count() - instants);
    match looped {
        false if others > 0 => Err(Failure::failed(format!(
            "{others} of {all} snapshots are not one instant"
        ))),
        true if instants > 0 => Err(Failure::failed(format!(
            "{instants} of {all} rounds that took the members in turn look like one instant: the \
             oracle and the stamps prove nothing"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::Figures;

    fn combination(rounds: &[(i64, bool)]) -> Combination {
        let round = |&(window_us, violated): &(i64, bool)| Round {
            figures: Figures {
                pauses_us: vec![1, 9],
                skew_us: 2,
                window_us,
                group_us: 9,
            },
            create: Duration::from_millis(5),
            violation: violated.then(|| "violated: 1 2".to_owned()),
        };
        Combination {
            members: 2,
            kind: "standard",
            rounds: rounds.iter().map(round).collect(),
        }
    }

    #[test]
    fn the_worst_window_is_the_shortest() {
        let summary = Summary::of(&combination(&[(5, false), (-3, true), (7, false)])).unwrap();
        assert_eq!(
            summary.common_window_us,
            Spread {
                median: 5,
                worst: -3
            }
        );
        assert_eq!(
            summary.pause_us,
            Spread {
                median: 9,
                worst: 9
            }
        );
        assert_eq!((summary.violations, summary.without_window), (1, 1));
    }

    #[test]
    fn success_is_an_instant_each_time_and_with_the_loop_never() {
        for (rounds, normal, looped) in [
            ([(1, false), (1, false)], true, false),
            ([(1, false), (1, true)], false, false),
            ([(1, false), (-1, false)], false, false),
            ([(-1, false), (-1, true)], false, true),
            ([(-1, true), (1, true)], false, true),
        ] {
            let combinations = [combination(&rounds)];
            assert_eq!(judge(&combinations, false).is_ok(), normal, "{rounds:?}");
            assert_eq!(judge(&combinations, true).is_ok(), looped, "{rounds:?}");
        }
    }
}
