//! What is printed: JSON, tables, facts, durations. A reader who stops reading
//! (`| head`) is no failure.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::exit::Failure;

/// Prints JSON for programs that is legible to people.
pub fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("the answer is no JSON: {error}")))?;
    self::text(&format!("{text}\n"))
}

/// Prints text as it is.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// A table whose columns are as wide as their widest cell. Control characters in
/// cells are shown as `?`, so that a name cannot command a terminal.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = Self::headless();
        table.row(headings.map(str::to_owned));
        table
    }

    /// A table without headings.
    pub fn headless() -> Self {
        Self::default()
    }

    /// Adds a row; it may have fewer cells than others.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows
            .push(cells.iter().map(|cell| printable(cell)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = Vec::new();
        // A row of one cell is a heading over others and widens nothing.
        for row in self.rows.iter().filter(|row| row.len() > 1) {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(widths.iter().chain(std::iter::repeat(&0))) {
                if width > 0 || row.len() == 1 {
                    line.push_str(&format!("{cell:width$}  "));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Facts, one a line, those that are known.
pub fn facts(facts: &[(&str, Option<String>)]) -> String {
    let width = facts
        .iter()
        .filter(|(_, value)| value.is_some())
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    facts
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
        .map(|(name, value)| {
            let lines: Vec<_> = value.lines().map(printable).collect();
            let next = format!("\n{:width$}  ", "");
            format!("{name:width$}  {}\n", lines.join(&next))
        })
        .collect()
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// A time of day, UTC, to the second.
pub fn time(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    time.to_offset(time::UtcOffset::UTC)
        .format(format)
        .unwrap_or_else(|_| time.to_string())
}

/// Microseconds, for people.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Microseconds that may be negative, for people.
pub fn micros_of(us: i64) -> String {
    match us < 0 {
        true => format!("-{}", micros(us.unsigned_abs())),
        false => micros(us.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let mut table = Table::new(["NAME", "", "ID"]);
        table.row(["a heading over what follows".to_owned()]);
        table.row(["└─ x\x1b[2J".to_owned(), String::new(), "1".to_owned()]);
        table.row(["ü".to_owned(), String::new(), "22".to_owned()]);
        let text = table.to_string();
        assert_eq!(
            text,
            "NAME      ID\na heading over what follows\n└─ x?[2J  1\nü         22\n"
        );
    }

    #[test]
    fn facts_that_are_known() {
        let text = facts(&[
            ("a", Some("1".to_owned())),
            ("long name", None),
            ("bb", Some("2\n3".to_owned())),
        ]);
        assert_eq!(text, "a   1\nbb  2\n    3\n");
    }

    #[test]
    fn durations() {
        for (us, text) in [
            (0, "0 us"),
            (999, "999 us"),
            (1_500, "1.5 ms"),
            (2_340_000, "2.34 s"),
        ] {
            assert_eq!(micros(us), text);
        }
        assert_eq!(micros_of(-1_500), "-1.5 ms");
    }
}
