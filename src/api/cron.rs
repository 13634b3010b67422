//! Schedules as CronJobs write them: five fields, names, steps, `@daily`, `@every 5m` (`robfig/cron` v3, its
//! `ParseStandard`, with its texts).

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::go_duration;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {0}: [{1}]")]
    Fields(usize, String),
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    Below(u32, u32, String),
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    Above(u32, u32, String),
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Backwards(u32, u32, String),
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}: time: invalid duration {1:?}")]
    Every(String, String),
}

/// What one field may say.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: MONTHS },
    Bounds { min: 0, max: 6, names: DAYS },
];
/// A day that never comes (30 February) is given up after so many days, upstream's five years.
const FARTHEST: usize = 5 * 366;

/// The values a field allows, one bit each, and whether it was `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    star: bool,
}

impl Set {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

/// When to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Minute, hour, day of the month, month, day of the week.
    Fields(Box<[u64; 5]>, bool, bool),
    Every(SignedDuration),
}

impl Schedule {
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError::Empty);
        }
        // A zone at the start is read over: it has a field of its own.
        let rest = match text.split_once(' ') {
            Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
            _ => text,
        };
        if rest.starts_with('@') {
            return descriptor(rest);
        }
        let fields: Vec<&str> = rest.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(CronError::Fields(fields.len(), fields.join(" ")));
        }
        let mut sets = [Set { bits: 0, star: false }; 5];
        for ((set, text), bounds) in sets.iter_mut().zip(&fields).zip(&FIELDS) {
            *set = field(text, bounds)?;
        }
        Ok(Self::Fields(Box::new(sets.map(|set| set.bits)), sets[2].star, sets[4].star))
    }

    /// The first time after this one, as clocks of the zone show it.
    pub fn after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(delay) => {
                let whole = Timestamp::from_second(time.as_second()).ok()?;
                whole.checked_add(*delay).ok()
            }
            Self::Fields(bits, any_day, any_weekday) => {
                let now = zone.to_datetime(time);
                let mut date = now.date();
                for _ in 0..FARTHEST {
                    if on_day(bits, *any_day, *any_weekday, date)
                        && let Some(found) = on(bits, date, time, zone)
                    {
                        return Some(found);
                    }
                    date = date.checked_add(1.day()).ok()?;
                }
                None
            }
        }
    }
}

/// Where both the day of the month and of the week are said, either will do.
fn on_day(bits: &[u64; 5], any_day: bool, any_weekday: bool, date: Date) -> bool {
    let has = |field: usize, value: i8| Set { bits: bits[field], star: false }.has(value);
    let (day, weekday) = (has(2, date.day()), has(4, date.weekday().to_sunday_zero_offset()));
    let fits = if any_day || any_weekday { day && weekday } else { day || weekday };
    has(3, date.month()) && fits
}

/// The first fitting minute of a day after a time; one that the zone's clocks jump over does not count.
fn on(bits: &[u64; 5], date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let set = |field: usize| Set { bits: bits[field], star: false };
    let hours = (0..24).filter(|hour| set(1).has(*hour));
    let minutes =
        hours.flat_map(|hour| (0..60).filter(|minute| set(0).has(*minute)).map(move |minute| (hour, minute)));
    minutes
        .filter_map(|(hour, minute)| {
            let civil = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
            let ambiguous = zone.to_ambiguous_timestamp(civil);
            let gap = matches!(ambiguous.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
            if gap { None } else { ambiguous.compatible().ok() }
        })
        .find(|candidate| *candidate > after)
}

fn descriptor(text: &str) -> Result<Schedule, CronError> {
    let standard = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(CronError::Descriptor(text.to_owned()));
            };
            let wrong = || CronError::Every(text.to_owned(), every.to_owned());
            let delay = go_duration::parse(every).ok().ok_or_else(wrong)?;
            let seconds = i64::try_from(delay.as_secs()).map_err(|_| wrong())?;
            return Ok(Schedule::Every(SignedDuration::from_secs(seconds.max(1))));
        }
    };
    Schedule::parse(standard)
}

/// `1,3-5,*/10`.
fn field(text: &str, bounds: &Bounds) -> Result<Set, CronError> {
    let mut set = Set { bits: 0, star: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, bounds)?;
        set.bits |= one.bits;
        set.star |= one.star;
    }
    Ok(set)
}

/// `*`, `7`, `mon-fri`, `10-20/5`, `*/15`.
fn range(part: &str, bounds: &Bounds) -> Result<Set, CronError> {
    let whole = || part.to_owned();
    let pieces: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let (mut star, start, mut end);
    if matches!(ends[0], "*" | "?") {
        (start, end, star) = (bounds.min, bounds.max, true);
    } else {
        start = number(ends[0], bounds)?;
        end = match ends.as_slice() {
            [_] => start,
            [_, last] => number(last, bounds)?,
            _ => return Err(CronError::Hyphens(whole())),
        };
        star = false;
    }
    let step = match pieces.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = plain(step)?;
            // "N/step" means "N-max/step".
            if ends.len() == 1 && !star {
                end = bounds.max;
            }
            star &= step <= 1;
            step
        }
        _ => return Err(CronError::Slashes(whole())),
    };
    if start < bounds.min {
        return Err(CronError::Below(start, bounds.min, whole()));
    }
    if end > bounds.max {
        return Err(CronError::Above(end, bounds.max, whole()));
    }
    if start > end {
        return Err(CronError::Backwards(start, end, whole()));
    }
    let step = usize::try_from(step).ok().filter(|step| *step > 0).ok_or_else(|| CronError::Step(whole()))?;
    Ok(Set { bits: (start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value), star })
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, CronError> {
    let small = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == small) {
        Some(index) => Ok(bounds.min + u32::try_from(index).unwrap_or(0)),
        None => plain(text),
    }
}

fn plain(text: &str) -> Result<u32, CronError> {
    text.parse().map_err(|_| CronError::Number(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        schedule.after(after.parse().unwrap(), &TimeZone::UTC).map_or("never".into(), |time| time.to_string())
    }

    #[test]
    fn the_next_time_is_found_by_every_kind_of_field() {
        let after = "2026-01-15T10:07:30Z"; // a Thursday
        let table = [
            ("* * * * *", "2026-01-15T10:08:00Z"),
            ("*/15 * * * *", "2026-01-15T10:15:00Z"),
            ("0 9-17/4 * * *", "2026-01-15T13:00:00Z"),
            ("5 4 * * sun", "2026-01-18T04:05:00Z"),
            ("0 0 1 jan *", "2027-01-01T00:00:00Z"),
            ("0 0 13 * fri", "2026-01-16T00:00:00Z"),
            ("0 0 */2 * fri", "2026-01-16T00:00:00Z"),
            ("@hourly", "2026-01-15T11:00:00Z"),
            ("@every 90s", "2026-01-15T10:09:00Z"),
            ("0 0 30 2 *", "never"),
        ];
        for (schedule, expect) in table {
            assert_eq!(next(schedule, after), expect, "{schedule}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_the_librarys_words() {
        let wrong = |text: &str| Schedule::parse(text).unwrap_err().to_string();
        assert_eq!(wrong("* * *"), "expected exactly 5 fields, found 3: [* * *]");
        assert_eq!(wrong("60 * * * *"), "end of range (60) above maximum (59): 60");
        assert_eq!(
            wrong("a * * * *"),
            r#"failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax"#
        );
        assert_eq!(wrong("5-2 * * * *"), "beginning of range (5) beyond end of range (2): 5-2");
        assert_eq!(wrong("*/0 * * * *"), "step of range should be a positive number: */0");
        assert_eq!(wrong("@often"), "unrecognized descriptor: @often");
    }
}
