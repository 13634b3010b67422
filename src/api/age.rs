//! Ages as kubectl prints them (`k8s.io/apimachinery/pkg/util/duration.HumanDuration`).

use jiff::Timestamp;

/// `5s`, `3m12s`, `47h`, `12d`: two units where the second still says something.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: i64, l: &str, small: i64, s: &str| match small {
        0 => format!("{large}{l}"),
        _ => format!("{large}{l}{small}{s}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// How long ago an RFC 3339 time was; `<unknown>` where there is none.
pub fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|text| text.parse::<Timestamp>().ok()) {
        // Kubernetes keeps whole seconds, and so does its age.
        Some(then) => human((now.as_millisecond() - then.as_millisecond()).div_euclid(1000)),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let table = [(-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (192, "3m12s")];
        for (seconds, text) in table {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(human(3600 * 2), "120m");
        assert_eq!(human(3600 * 3 + 60), "3h1m");
        assert_eq!(human(3600 * 47), "47h");
        assert_eq!(human(86400 * 3 + 3600), "3d1h");
        assert_eq!(human(86400 * 400), "400d");
        assert_eq!(human(86400 * 731), "2y1d");
        assert_eq!(human(86400 * 365 * 9), "9y");
    }
}
