//! What `isochron bench cim` and `isochron bench wsman` found, as tables or as JSON.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Table};

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The operation that all others are compared with: it reads no CIM.
    pub floor: &'static str,
    pub rates: Vec<Rate>,
    pub listings: Vec<Listing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
}

/// How many times as fast as another server an operation is meant to be, over one
/// connection, and is.
#[derive(Debug, Serialize)]
pub struct Goal {
    pub operation: &'static str,
    /// What the other one answers in a second.
    pub other_per_second: f64,
    /// At least so many times as many are meant to be answered.
    pub times: f64,
    /// So many times as many are.
    pub ratio: f64,
    pub reached: bool,
}

impl Goal {
    /// Whether an operation among the rates is so many times as fast as another
    /// server's; `None` where it was not measured over one connection.
    pub fn of(
        rates: &[Rate],
        operation: &'static str,
        times: f64,
        other_per_second: f64,
    ) -> Option<Self> {
        let mut single = rates.iter().filter(|rate| rate.connections == 1);
        let rate = single.find(|rate| rate.operation == operation)?;
        let ratio = rate.per_second / other_per_second;
        Some(Self {
            operation,
            other_per_second,
            times,
            ratio,
            reached: ratio >= times,
        })
    }

    fn told(&self) -> String {
        format!(
            "Goal: {} over one connection {:.0} times as often as an existing server's {:.0} a \
             second. It is {:.1} times: {}.\n",
            self.operation,
            self.times,
            self.other_per_second,
            self.ratio,
            if self.reached {
                "reached"
            } else {
                "not reached"
            },
        )
    }
}

/// One operation with one number of connections.
#[derive(Debug, Serialize)]
pub struct Rate {
    pub operation: &'static str,
    pub connections: u16,
    pub per_second: f64,
    pub median_us: u128,
    pub p99_us: u128,
    pub worst_us: u128,
}

/// One way to list all instances of a class.
#[derive(Debug, Serialize)]
pub struct Listing {
    pub operation: &'static str,
    pub instances: u32,
    /// The median of some.
    #[serde(rename = "time_us", serialize_with = "micros")]
    pub time: Duration,
    /// Of the answers.
    pub bytes: usize,
    /// By how many bytes the server's memory grew at most, where it is ours.
    #[serde(rename = "grown_bytes")]
    pub grown: Option<u64>,
}

fn micros<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(time.as_micros())
}

impl Rate {
    /// What these latencies amount to; `None` of none.
    pub fn of(
        operation: &'static str,
        connections: u16,
        mut latencies: Vec<Duration>,
        took: Duration,
    ) -> Option<Self> {
        latencies.sort_unstable();
        let count = latencies.len();
        Some(Self {
            operation,
            connections,
            per_second: count as f64 / took.as_secs_f64(),
            median_us: latencies.get(count / 2)?.as_micros(),
            p99_us: latencies
                .get((count * 99 / 100).min(count - 1))?
                .as_micros(),
            worst_us: latencies.last()?.as_micros(),
        })
    }
}

impl Report {
    /// Prints it.
    pub fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return output::json(self);
        }
        let mut rates = Table::new([
            "OPERATION",
            "CONNECTIONS",
            "PER SECOND",
            "OF FLOOR",
            "MEDIAN",
            "99 %",
            "WORST",
        ]);
        for rate in &self.rates {
            let floor = self
                .rates
                .iter()
                .filter(|floor| floor.operation == self.floor)
                .find(|floor| floor.connections == rate.connections);
            rates.row([
                rate.operation.to_owned(),
                rate.connections.to_string(),
                format!("{:.0}", rate.per_second),
                floor.map_or_else(String::new, |floor| {
                    format!("{:.2}", rate.per_second / floor.per_second)
                }),
                ms(rate.median_us),
                ms(rate.p99_us),
                ms(rate.worst_us),
            ]);
        }
        let mut listings = Table::new(["LISTING", "INSTANCES", "TIME", "MIB", "MEMORY"]);
        for listing in &self.listings {
            listings.row([
                listing.operation.to_owned(),
                listing.instances.to_string(),
                ms(listing.time.as_micros()),
                mib(listing.bytes as u64),
                listing.grown.map_or_else(|| "?".to_owned(), mib),
            ]);
        }
        let build = match cfg!(debug_assertions) {
            true => "debug build: build with --release for figures that mean something",
            false => "release build",
        };
        let (listings, memory) = match self.listings.is_empty() {
            true => (String::new(), ""),
            false => (
                format!("\n{listings}"),
                " MEMORY is by how many\nMiB the server grew at most while it listed.",
            ),
        };
        output::text(&format!(
            "{rates}{listings}\nMilliseconds; client and server share this machine's cores; \
             {build}.\nOF FLOOR compares with {}, which reads no CIM, in this run.{memory}\n{}",
            self.floor,
            self.goal.as_ref().map_or_else(String::new, Goal::told),
        ))
    }
}

fn ms(us: u128) -> String {
    format!("{:.2}", us as f64 / 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// The memory of a process, in bytes, from which its peak is counted from now on
/// (proc(5): 5 written to `clear_refs` resets the peak).
pub fn start_of_memory(process: u32) -> Result<u64> {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5")
        .context("the peak of the daemon's memory cannot be reset")?;
    of_status(process, "VmRSS:")
}

/// The peak of a process's memory since then, in bytes.
pub fn peak_of_memory(process: u32) -> Result<u64> {
    of_status(process, "VmHWM:")
}

fn of_status(process: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .with_context(|| format!("the status of process {process} has no {field}"))?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_all_latencies() {
        let latencies: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        let rate = Rate::of("x", 2, latencies, Duration::from_secs(4)).unwrap();
        assert_eq!(
            (rate.per_second, rate.median_us, rate.p99_us, rate.worst_us),
            (50.0, 101, 199, 200)
        );
        assert!(Rate::of("x", 2, vec![], Duration::from_secs(4)).is_none());
    }

    #[test]
    fn a_goal_is_reached_over_one_connection_or_not() {
        let rate = |connections, count| {
            let latencies = vec![Duration::from_micros(1); count];
            Rate::of("Get", connections, latencies, Duration::from_secs(1)).unwrap()
        };
        let goal = |rates: &[Rate]| Goal::of(rates, "Get", 10.0, 22.0);
        let reached = goal(&[rate(8, 1), rate(1, 220)]).unwrap();
        assert!(reached.reached && reached.ratio == 10.0);
        assert!(reached.told().ends_with("10.0 times: reached.\n"));
        let missed = goal(&[rate(8, 1000), rate(1, 219)]).unwrap();
        assert!(missed.told().ends_with("not reached.\n"));
        assert!(goal(&[rate(8, 1000)]).is_none());
    }

    #[test]
    fn memory_is_read() {
        let ours = start_of_memory(std::process::id()).unwrap();
        assert!(ours > 1 << 20);
        assert!(peak_of_memory(std::process::id()).unwrap() >= ours / 2);
    }
}
