//! Times as Go's `time.Parse(time.RFC3339, …)` reads them, and its words for those that are none.

use jiff::Timestamp;

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
/// The layout's elements, what is between them, and how many digits an element has.
const ELEMENTS: [(&str, usize); 11] = [
    ("2006", 4),
    ("-", 0),
    ("01", 2),
    ("-", 0),
    ("02", 2),
    ("T", 0),
    ("15", 2),
    (":", 0),
    ("04", 2),
    (":", 0),
    ("05", 2),
];

/// The time to the second, in UTC and in the same format; or Go's complaint.
pub fn rfc3339(text: &str) -> Result<String, String> {
    let quoted = format!("parsing time {text:?}");
    let cannot =
        |rest: &str, element: &str| format!("{quoted} as {LAYOUT:?}: cannot parse {rest:?} as {element:?}");
    let mut rest = text;
    for (element, digits) in ELEMENTS {
        let fits = match digits {
            0 => rest.starts_with(element),
            count => rest.len() >= count && rest.bytes().take(count).all(|byte| byte.is_ascii_digit()),
        };
        if !fits {
            return Err(cannot(rest, element));
        }
        let (taken, after) = rest.split_at(element.len());
        rest = after;
        if let Some(name) = out_of_range(element, taken.parse().unwrap_or(0)) {
            return Err(format!("{quoted}: {name} out of range"));
        }
    }
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            rest = &fraction[digits..];
        }
    }
    let zone = match rest.as_bytes() {
        [b'Z', ..] => 1,
        [b'+' | b'-', a, b, b':', c, d, ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) => 6,
        _ => return Err(cannot(rest, "Z07:00")),
    };
    if rest.len() > zone {
        return Err(format!("{quoted}: extra text: {:?}", &rest[zone..]));
    }
    match text.replacen(',', ".", 1).parse::<Timestamp>() {
        Ok(time) => Ok(format!("{time:.0}")),
        // Every element is right by itself: the month has no such day.
        Err(_) => Err(format!("{quoted}: day out of range")),
    }
}

fn out_of_range(element: &str, number: u32) -> Option<&'static str> {
    let (name, range) = match element {
        "01" => ("month", 1..=12),
        "02" => ("day", 1..=31),
        "15" => ("hour", 0..=23),
        "04" => ("minute", 0..=59),
        "05" => ("second", 0..=59),
        _ => return None,
    };
    (!range.contains(&number)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_refused_in_gos_words() {
        assert_eq!(rfc3339("2026-11-22T07:06:37Z").unwrap(), "2026-11-22T07:06:37Z");
        assert_eq!(rfc3339("2026-11-22T07:06:37.987+02:00").unwrap(), "2026-11-22T05:06:37Z");
        let layout = "\"2006-01-02T15:04:05Z07:00\"";
        let said = |text: &str| rfc3339(text).unwrap_err();
        assert_eq!(
            said("foo"),
            format!("parsing time \"foo\" as {layout}: cannot parse \"foo\" as \"2006\"")
        );
        assert_eq!(
            said("2026-11-22"),
            format!("parsing time \"2026-11-22\" as {layout}: cannot parse \"\" as \"T\"")
        );
        assert_eq!(
            said("2026-11-22T07:06:37"),
            format!("parsing time \"2026-11-22T07:06:37\" as {layout}: cannot parse \"\" as \"Z07:00\"")
        );
        assert_eq!(said("2026-13-22T07:06:37Z"), "parsing time \"2026-13-22T07:06:37Z\": month out of range");
        assert_eq!(said("2026-02-30T07:06:37Z"), "parsing time \"2026-02-30T07:06:37Z\": day out of range");
        assert_eq!(
            said("2026-11-22T07:06:37Zx"),
            "parsing time \"2026-11-22T07:06:37Zx\": extra text: \"x\""
        );
        assert!(rfc3339("２026-11-22").is_err(), "digits are ASCII");
    }
}
