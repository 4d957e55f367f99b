//! CIM's datetime (DSP0004 §5.2.4): one type for points in time and for lengths
//! of time, written in 25 characters, where `*` stands for what is not known.
//!
//! A value keeps the text that it was written as. It is equal to another if both
//! texts are equal; two spellings of one instant in different offsets are not,
//! and are compared through [`DateTime::as_offset_date_time`].

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// Characters in a datetime.
const LEN: usize = 25;
/// The longest interval that eight digits of days can say.
const MAX_DAYS: u64 = 99_999_999;
/// Places of the two-digit fields after the day or the date: hours, minutes, seconds.
const CLOCK: [(usize, usize); 3] = [(8, 10), (10, 12), (12, 14)];

/// A point in time (`yyyymmddhhmmss.mmmmmmsutc`, `utc` in minutes) or an
/// interval (`ddddddddhhmmss.mmmmmm:000`).
///
/// ```
/// use std::time::Duration;
/// use isochron_cim::DateTime;
///
/// let five_minutes = DateTime::from(Duration::from_secs(300));
/// assert_eq!(five_minutes.to_string(), "00000000000500.000000:000");
///
/// let stamp: DateTime = "20240229123456.250000+060".parse()?;
/// let utc = stamp.as_offset_date_time().unwrap().to_offset(time::UtcOffset::UTC);
/// assert_eq!(utc.hour(), 11);
/// # Ok::<(), isochron_cim::ParseDateTimeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateTime([u8; LEN]);

/// Why text is no datetime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no CIM datetime: {reason}")]
pub struct ParseDateTimeError {
    /// The text (shortened).
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl DateTime {
    /// The text of 25 characters.
    pub fn as_str(&self) -> &str {
        // Every constructor puts ASCII only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether this is a length of time and not a point in time.
    pub fn is_interval(&self) -> bool {
        self.0[21] == b':'
    }

    /// The interval, where it is one and every field is known.
    pub fn as_duration(&self) -> Option<Duration> {
        if !self.is_interval() {
            return None;
        }
        let [hours, minutes, seconds] = CLOCK.map(|(from, to)| self.number(from, to));
        let whole = self.number(0, 8)? * 86_400 + hours? * 3_600 + minutes? * 60 + seconds?;
        Some(Duration::from_secs(whole) + Duration::from_micros(self.number(15, 21)?))
    }

    /// The point in time, where it is one, every field is known and it is on the
    /// calendar (a leap second and the 31st of February are not).
    pub fn as_offset_date_time(&self) -> Option<OffsetDateTime> {
        if self.is_interval() {
            return None;
        }
        let small = |from, to| -> Option<u8> { self.number(from, to)?.try_into().ok() };
        let year = self.number(0, 4)?.try_into().ok()?;
        let month = Month::try_from(small(4, 6)?).ok()?;
        let date = Date::from_calendar_date(year, month, small(6, 8)?).ok()?;
        let [hour, minute, second] = CLOCK.map(|(from, to)| small(from, to));
        let micros = self.number(15, 21)?.try_into().ok()?;
        let time = Time::from_hms_micro(hour?, minute?, second?, micros).ok()?;
        let minutes = i32::try_from(self.number(22, 25)?).ok()?;
        let minutes = if self.0[21] == b'-' {
            -minutes
        } else {
            minutes
        };
        let offset = UtcOffset::from_whole_seconds(minutes * 60).ok()?;
        Some(OffsetDateTime::new_in_offset(date, time, offset))
    }

    /// A field's number; `None` where it has an asterisk.
    fn number(&self, from: usize, to: usize) -> Option<u64> {
        self.as_str().get(from..to)?.parse().ok()
    }

    /// A value from text that a format string of this module made.
    fn from_text(text: &str) -> Self {
        let mut bytes = [b'0'; LEN];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self(bytes)
    }
}

impl From<OffsetDateTime> for DateTime {
    /// In the given offset, of which CIM keeps whole minutes, to the microsecond.
    /// A year before 0 or after 9999 becomes the first or last instant that CIM
    /// can write.
    fn from(at: OffsetDateTime) -> Self {
        let at = UtcOffset::from_whole_seconds(i32::from(at.offset().whole_minutes()) * 60)
            .ok()
            .and_then(|offset| at.checked_to_offset(offset))
            .unwrap_or(at);
        if at.year() < 0 {
            return Self(*b"00000101000000.000000+000");
        }
        if at.year() > 9999 {
            return Self(*b"99991231235959.999999+000");
        }
        let minutes = at.offset().whole_minutes();
        Self::from_text(&format!(
            "{:04}{:02}{:02}{:02}{:02}{:02}.{:06}{}{:03}",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.microsecond(),
            if minutes < 0 { '-' } else { '+' },
            minutes.unsigned_abs(),
        ))
    }
}

impl From<SystemTime> for DateTime {
    /// In UTC.
    fn from(at: SystemTime) -> Self {
        let since = match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => time::Duration::try_from(after).unwrap_or(time::Duration::MAX),
            Err(before) => {
                -time::Duration::try_from(before.duration()).unwrap_or(time::Duration::MAX)
            }
        };
        let clamped = OffsetDateTime::UNIX_EPOCH.saturating_add(since);
        Self::from(clamped)
    }
}

impl From<Duration> for DateTime {
    /// To the microsecond; what is longer than 99,999,999 days becomes that.
    fn from(length: Duration) -> Self {
        let seconds = length.as_secs();
        let days = seconds / 86_400;
        if days > MAX_DAYS {
            return Self(*b"99999999235959.999999:000");
        }
        Self::from_text(&format!(
            "{days:08}{:02}{:02}{:02}.{:06}:000",
            seconds / 3_600 % 24,
            seconds / 60 % 60,
            seconds % 60,
            length.subsec_micros(),
        ))
    }
}

impl FromStr for DateTime {
    type Err = ParseDateTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(Self).map_err(|reason| ParseDateTimeError {
            text: text.chars().take(40).collect(),
            reason,
        })
    }
}

/// Checks form and ranges. A field is digits or asterisks throughout; only the
/// microseconds may turn into asterisks half way (DSP0004 §5.2.4).
fn check(text: &str) -> Result<[u8; LEN], &'static str> {
    let bytes: [u8; LEN] = text
        .as_bytes()
        .try_into()
        .map_err(|_| "it has not 25 characters")?;
    if bytes[14] != b'.' {
        return Err("the fifteenth character is not a period");
    }
    let field = |from: usize, to: usize, low: u32, high: u32| -> Result<(), &'static str> {
        let part = &bytes[from..to];
        if part.iter().all(|b| *b == b'*') {
            return Ok(());
        }
        if !part.iter().all(u8::is_ascii_digit) {
            return Err("a field is neither all digits nor all asterisks");
        }
        let number = part.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'));
        if (low..=high).contains(&number) {
            Ok(())
        } else {
            Err("a field is out of its range")
        }
    };
    let interval = match bytes[21] {
        b':' => true,
        b'+' | b'-' => false,
        _ => return Err("the sign of the offset (or an interval's colon) is missing"),
    };
    if interval {
        field(0, 8, 0, 99_999_999)?;
        if &bytes[22..] != b"000" {
            return Err("an interval does not end in :000");
        }
    } else {
        field(0, 4, 0, 9999)?;
        field(4, 6, 1, 12)?;
        field(6, 8, 1, 31)?;
        field(22, 25, 0, 999)?;
    }
    for ((from, to), high) in CLOCK
        .into_iter()
        .zip([23, 59, if interval { 59 } else { 60 }])
    {
        field(from, to, 0, high)?;
    }
    let micros = &bytes[15..21];
    let known = micros.iter().take_while(|b| b.is_ascii_digit()).count();
    if micros[known..].iter().any(|b| *b != b'*') {
        return Err("the microseconds are not digits followed by asterisks");
    }
    Ok(bytes)
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DateTime({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn text_is_kept_as_written() {
        for text in [
            "20240229123456.250000+060",
            "20240229123456.250000-720",
            "20240229123456.2*****+000",
            "20240229******.******+000",
            "********123456.000000+***",
            "00000000000000.000000:000",
            "99999999235959.999999:000",
            "00000012******.******:000",
            "20161231235960.000000+000",
        ] {
            assert_eq!(
                text.parse::<DateTime>().map(|d| d.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in [
            "",
            "now",
            "20240229123456.250000+06",
            "20240229123456.250000+0600",
            "20240229123456,250000+060",
            "20241329123456.250000+060",
            "20240200123456.250000+060",
            "20240229243456.250000+060",
            "20240229126056.250000+060",
            "202402*9123456.250000+060",
            "20240229123456.25*000+060",
            "20240229123456.250000=060",
            "00000000000000.000000:001",
            "00000000000060.000000:000",
            "2024022912345é.25000+060",
        ] {
            assert!(text.parse::<DateTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn points_in_time_convert_both_ways() {
        for at in [
            datetime!(2024-02-29 12:34:56.789012 UTC),
            datetime!(1601-01-01 00:00:00 UTC),
            datetime!(2024-12-31 23:59:59.999999 +05:30),
            datetime!(2024-12-31 23:59:59.000001 -11:45),
        ] {
            let text = DateTime::from(at).to_string();
            let back = text.parse::<DateTime>().unwrap().as_offset_date_time();
            assert_eq!(back, Some(at), "{text}");
        }
        assert_eq!(
            DateTime::from(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)).as_str(),
            "19700101000001.500000+000"
        );
        assert_eq!(
            DateTime::from(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).as_str(),
            "19691231235959.000000+000"
        );
    }

    #[test]
    fn what_is_not_exact_is_not_converted() {
        for text in ["20240229******.******+000", "20240231000000.000000+000"] {
            assert_eq!(
                text.parse::<DateTime>().unwrap().as_offset_date_time(),
                None
            );
        }
        let interval: DateTime = "00000001000000.000000:000".parse().unwrap();
        assert_eq!(interval.as_offset_date_time(), None);
        assert_eq!(interval.as_duration(), Some(Duration::from_secs(86_400)));
        assert_eq!(
            DateTime::from(datetime!(2024-01-01 0:00 UTC)).as_duration(),
            None
        );
    }

    #[test]
    fn intervals_convert_both_ways_and_stop_at_the_longest() {
        for micros in [
            0,
            1,
            999_999,
            61_000_000,
            86_399_999_999,
            8_640_000_000_000_000,
        ] {
            let length = Duration::from_micros(micros);
            assert_eq!(DateTime::from(length).as_duration(), Some(length));
        }
        assert_eq!(
            DateTime::from(Duration::MAX).as_str(),
            "99999999235959.999999:000"
        );
    }
}
