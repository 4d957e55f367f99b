//! Datetimes: CIM's 25 characters and XML Schema's `dateTime` and `duration` (DSP0230
//! §8). What only CIM can say (a field that is not known) stays in its words.

use isochron_cim::DateTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::soap::{Node, duration_text, element, parse_duration};

/// Appends the content of a datetime's element.
pub(super) fn datetime(out: &mut String, value: &DateTime) {
    if let Some(length) = value.as_duration() {
        return element(out, "cim:Interval", &duration_text(length));
    }
    let point = value
        .as_offset_date_time()
        .and_then(|at| at.format(&Rfc3339).ok());
    match point {
        Some(point) => element(out, "cim:Datetime", &point),
        None => element(out, "cim:CIM_DateTime", value.as_str()),
    }
}

/// Reads one from its element: one child of the words above, or text in either form.
pub(super) fn parse(node: &Node) -> Option<DateTime> {
    let said = match node.children.first() {
        Some(child) => child.value(),
        None => node.value(),
    };
    parse_text(said)
}

/// Reads one from text in either form.
pub(super) fn parse_text(said: &str) -> Option<DateTime> {
    let said = said.trim();
    if let Ok(value) = said.parse() {
        return Some(value);
    }
    if let Some(length) = parse_duration(said) {
        return Some(length.into());
    }
    // XML Schema lets the offset out; CIM cannot.
    let with_offset = format!("{said}Z");
    [said, &with_offset]
        .into_iter()
        .find_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .map(DateTime::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_xmls_is_written() {
        for (text, read, written) in [
            (
                "20240229123456.250000+060",
                "20240229123456.250000+060",
                "<cim:Datetime>2024-02-29T12:34:56.25+01:00</cim:Datetime>",
            ),
            (
                "2024-02-29T12:34:56Z",
                "20240229123456.000000+000",
                "<cim:Datetime>2024-02-29T12:34:56Z</cim:Datetime>",
            ),
            (
                "2024-02-29T12:34:56.5",
                "20240229123456.500000+000",
                "<cim:Datetime>2024-02-29T12:34:56.5Z</cim:Datetime>",
            ),
            (
                "PT5M",
                "00000000000500.000000:000",
                "<cim:Interval>P0DT0H5M0.000000S</cim:Interval>",
            ),
            (
                "20240229******.******+000",
                "20240229******.******+000",
                "<cim:CIM_DateTime>20240229******.******+000</cim:CIM_DateTime>",
            ),
        ] {
            let value = parse_text(text).unwrap();
            assert_eq!(value.as_str(), read, "{text}");
            let mut out = String::new();
            datetime(&mut out, &value);
            assert_eq!(out, written, "{text}");
        }
        assert_eq!(parse_text("yesterday"), None);
    }
}
