//! How values are written: the same on the command line, in the environment and in the file.

use std::time::Duration;

/// What [`duration`] takes.
pub const DURATION: &str = "a number with a unit: ms, s, m, h or d, for example 30s";
/// What [`bytes`] takes.
pub const BYTES: &str = "a number of bytes, or one with KiB, MiB or GiB";

/// `250ms`, `30s`, `5m`, `1h`, `30d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).map(Duration::from_millis)
}

/// `65536`, `64KiB`, `16MiB`, `1GiB`.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A duration for people: `850ms`, `1.24s`, `2m05s`.
#[must_use]
pub fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 {
        format!("{ms}ms")
    } else if ms < 60_000 {
        format!("{:.2}s", duration.as_secs_f64())
    } else {
        format!("{}m{:02}s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// The parts of a comma-separated list; spaces around them and empty ones do not count.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, wanted_ms) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("5 min", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("30d", Some(2_592_000_000)),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999d", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), wanted_ms, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("65536", Some(65_536)),
            ("1GiB", Some(1 << 30)),
            ("16 MiB", Some(16 << 20)),
            ("1GB", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }
}
