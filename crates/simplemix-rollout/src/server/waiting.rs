//! Waiting times between attempts, and rate limits that a server announces.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::random::{mix, unit};

/// First wait; every further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// Wait after failed attempt `attempt` (from 1) of request `number`. It doubles with each attempt up to `most`, times a
/// random factor from 0.5 to 1, so that requests that failed together are not retried together. The factor is a function of
/// `number` and `attempt`.
pub(crate) fn backoff(number: u64, attempt: u32, most: Duration) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(most);
    whole.mul_f64(0.5 + 0.5 * unit(mix(mix(number) ^ u64::from(attempt))))
}

/// Waiting times that a server's headers announce.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Advice {
    /// Wait before another attempt of this request.
    pub(crate) retry_after: Option<Duration>,
    /// Wait before any further request, since a rate limit is used up.
    pub(crate) pause: Option<Duration>,
}

impl Advice {
    /// Reads the headers `retry-after`, `retry-after-ms` and `x-ratelimit-*`.
    pub(crate) fn from_headers<'a>(header: &dyn Fn(&str) -> Option<&'a str>) -> Self {
        let millis = header("retry-after-ms").and_then(|text| text.trim().parse().ok()).and_then(seconds);
        let retry_after = millis.map(|wait| wait / 1000).or_else(|| {
            let text = header("retry-after")?.trim();
            match text.parse().ok() {
                Some(number) => seconds(number),
                // The header may be a date, to compare with the server's own clock.
                None => {
                    let wait = http_date(text)? - http_date(header("date")?.trim())?;
                    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(0)))
                }
            }
        });
        let used_up = |kind: &str| {
            let left: f64 = header(&format!("x-ratelimit-remaining-{kind}"))?.trim().parse().ok()?;
            if left > 0.0 { None } else { span(header(&format!("x-ratelimit-reset-{kind}"))?.trim()) }
        };
        Self { retry_after, pause: used_up("requests").max(used_up("tokens")) }
    }
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

/// Parses `1s`, `6m0s`, `20ms`, `1h2m`, or a number of seconds.
fn span(text: &str) -> Option<Duration> {
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        sum += number
            * match &rest[..unit] {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    seconds(sum)
}

/// Parses a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7) to seconds since 1970.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(", ")?.1.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let number = |word: &str| word.parse::<u32>().ok().map(i64::from);
    let (day, year, hour, minute, second) =
        (number(day)?, number(year)?, number(hour)?, number(minute)?, number(second)?);
    // Days of the civil calendar, with years that start in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 1
            - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Gate that all requests pass, and that can be closed for a time.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Option<Instant>>);

impl Gate {
    /// Closes the gate for `wait`.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = now() + wait;
        let mut closed = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *closed = Some(closed.map_or(until, |closed| closed.max(until)));
    }

    /// Whether the gate is open.
    pub(crate) fn is_open(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        let until = *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now()))
    }

    /// Waits until the gate is open. Returns false if `stopped` becomes true before.
    pub(crate) fn pass(&self, stopped: &dyn Fn() -> bool) -> bool {
        loop {
            let left = self.left();
            if left.is_zero() {
                return !stopped();
            }
            if !sleep(left, stopped) {
                return false;
            }
        }
    }
}

/// Sleeps for `wait`. Returns false as soon as `stopped` becomes true.
pub(crate) fn sleep(wait: Duration, stopped: &dyn Fn() -> bool) -> bool {
    let until = now() + wait;
    loop {
        let left = until.saturating_duration_since(now());
        if stopped() {
            return false;
        }
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

#[expect(clippy::disallowed_methods, reason = "waits need a clock; no result depends on it")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(headers: &[(&str, &'static str)]) -> Advice {
        Advice::from_headers(&|name| headers.iter().find(|(of, _)| *of == name).map(|(_, value)| *value))
    }

    #[test]
    fn waits_grow_up_to_a_limit_and_differ_between_requests() {
        let most = Duration::from_secs(10);
        for attempt in 1..12 {
            let whole = FIRST.mul_f64(f64::from(1 << (attempt - 1))).min(most);
            let waits: Vec<Duration> = (0..50).map(|number| backoff(number, attempt, most)).collect();
            assert!(waits.iter().all(|wait| *wait >= whole / 2 && *wait <= whole), "{attempt}: {waits:?}");
            assert!(waits.iter().collect::<std::collections::BTreeSet<_>>().len() > 45);
            assert_eq!(backoff(7, attempt, most), waits[7], "the same each time");
        }
    }

    #[test]
    fn headers_announce_waits() {
        let after = |text: &'static str| advice(&[("retry-after", text)]).retry_after;
        assert_eq!(after("2"), Some(Duration::from_secs(2)));
        assert_eq!(after("0.5"), Some(Duration::from_millis(500)));
        assert_eq!([after("-1"), after("soon"), after("1e300")], [None; 3]);
        let date =
            advice(&[("retry-after", "Wed, 01 Mar 2028 00:00:10 GMT"), ("date", "Tue, 29 Feb 2028 23:59:50 GMT")]);
        assert_eq!(date.retry_after, Some(Duration::from_secs(20)));
        assert_eq!(advice(&[("retry-after-ms", "250")]).retry_after, Some(Duration::from_millis(250)));
        let limits = advice(&[
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "1m0.5s"),
            ("x-ratelimit-remaining-tokens", "12"),
            ("x-ratelimit-reset-tokens", "9h"),
        ]);
        assert_eq!(limits, Advice { retry_after: None, pause: Some(Duration::from_millis(60_500)) });
        assert_eq!(span("20ms"), Some(Duration::from_millis(20)));
        assert_eq!([span("5 apples"), span("s"), span("1w")], [None; 3]);
    }

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        // Example of RFC 9110.
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn a_closed_gate_opens_by_itself_or_waiting_stops() {
        let gate = Gate::default();
        assert!(gate.pass(&|| false));
        gate.pause(Duration::from_millis(30));
        let before = now();
        assert!(gate.pass(&|| false));
        assert!(before.elapsed() >= Duration::from_millis(30));
        gate.pause(Duration::from_secs(3600));
        assert!(!gate.pass(&|| true));
    }
}
