//! Durations as Go writes them (`time.ParseDuration`): `8760h0m0s`, `50s`, `1.5h`, `250ms`.

use std::time::Duration;

const UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads one; the error is Go's text. Negative durations have no use here and are refused.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|sign: char| !sign.is_ascii_digit() && sign != '.')
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|sign: char| sign.is_ascii_digit() || sign == '.').unwrap_or(rest.len());
        let known = UNITS.iter().find(|(name, _)| *name == &rest[..unit]);
        let (_, factor) =
            known.ok_or_else(|| format!("time: unknown unit {:?} in duration {text:?}", &rest[..unit]))?;
        seconds += number * factor;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// Writes one as Go's `Duration.String` does for whole milliseconds: `2m0s`, `8760h0m0s`, `250ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 && millis > 0 {
        return format!("{millis}ms");
    }
    let rest = match millis {
        0 => format!("{}s", seconds % 60),
        _ => format!("{}.{}s", seconds % 60, format!("{millis:03}").trim_end_matches('0')),
    };
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for text in ["2m0s", "8760h0m0s", "250ms", "0s", "1.5s", "30s", "4h0m0s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn go_durations_are_read() {
        assert_eq!(parse("8760h0m0s").unwrap(), Duration::from_secs(8760 * 3600));
        assert_eq!(parse("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse("250ms").unwrap(), Duration::from_millis(250));
        assert!(parse("10").unwrap_err().contains("missing unit"));
        assert!(parse("10d").unwrap_err().contains("unknown unit"));
        assert!(parse("").is_err());
    }
}
