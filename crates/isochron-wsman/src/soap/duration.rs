//! Lengths of time as XML Schema writes them (`P1DT2H3M4.5S`; XML Schema part 2 §3.2.6).

use std::time::Duration;

use super::Fault;

/// Reads one. Years and months, whose length is no fixed one, are 365 and 30 days.
/// `None` if it is none, or negative, or too long to count.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let rest = text.trim().strip_prefix('P')?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let days = fields(date, &[('Y', 365.0), ('M', 30.0), ('D', 1.0)])?;
    let seconds = fields(time, &[('H', 3600.0), ('M', 60.0), ('S', 1.0)])?;
    Duration::try_from_secs_f64(days * 86_400.0 + seconds).ok()
}

/// The sum of numbers with units, each at most once and in this order; only the last
/// unit's may have a fraction.
fn fields(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut sum = 0.0;
    for (at, (unit, size)) in units.iter().enumerate() {
        let Some((number, rest)) = text.split_once(*unit) else {
            continue;
        };
        let last = at + 1 == units.len();
        let digits = |c: char| c.is_ascii_digit() || (last && *unit == 'S' && c == '.');
        if number.is_empty() || !number.chars().all(digits) {
            return None;
        }
        sum += number.parse::<f64>().ok()? * size;
        text = rest;
    }
    text.is_empty().then_some(sum)
}

/// Reads one that a request has to have right.
pub(crate) fn duration(name: &str, text: &str) -> Result<Duration, Fault> {
    parse_duration(text).ok_or_else(|| {
        let start: String = text.chars().take(40).collect();
        Fault::schema(format!("{name} is no length of time: {start:?}"))
    })
}

/// Writes one, to the microsecond.
pub(crate) fn duration_text(length: Duration) -> String {
    let (seconds, micros) = (length.as_secs(), length.subsec_micros());
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    format!("P{days}DT{hours}H{minutes}M{seconds}.{micros:06}S")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_or_refused() {
        for (text, millis) in [
            ("PT60.000S", Some(60_000)),
            (" PT1.5S ", Some(1_500)),
            ("P1DT2H3M4S", Some(93_784_000)),
            ("P1Y", Some(31_536_000_000)),
            ("P1M", Some(2_592_000_000)),
            ("PT0S", Some(0)),
            ("P", None),
            ("PT", None),
            ("P1DT", None),
            ("60", None),
            ("-PT5S", None),
            ("PT5", None),
            ("PT1S2M", None),
            ("PT1.5M", None),
            ("PT1e9S", None),
            ("PT99999999999999999999999S", None),
            ("", None),
        ] {
            let read = parse_duration(text).map(|d| d.as_millis());
            assert_eq!(read, millis, "{text}");
        }
        let long = Duration::new(90_061, 250_000_000);
        assert_eq!(duration_text(long), "P1DT1H1M1.250000S");
        assert_eq!(parse_duration(&duration_text(long)), Some(long));
    }
}
