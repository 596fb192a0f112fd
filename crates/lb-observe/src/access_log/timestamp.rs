//! RFC 3339 timestamps.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, shown in UTC with milliseconds: `2026-02-28T23:59:59.999Z`. A time before 1970 is shown as
/// the start of 1970.
pub(super) struct Timestamp {
    days: u64,
    time: Duration,
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let days = since_epoch.as_secs() / SECONDS_PER_DAY;
        Self { days, time: since_epoch.saturating_sub(Duration::from_secs(days * SECONDS_PER_DAY)) }
    }
}

impl Display for Timestamp {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.days);
        let seconds = self.time.as_secs();
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.time.subsec_millis(),
        )
    }
}

/// The time as Apache and nginx write it, without brackets: `28/Feb/2026:23:59:59 +0000`.
pub(super) struct CommonLogTime(pub(super) Timestamp);

impl Display for CommonLogTime {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Timestamp { days, time } = &self.0;
        let (year, month, day) = civil(*days);
        let seconds = time.as_secs();
        let month = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month));
        write!(
            formatter,
            "{day:02}/{}/{year:04}:{:02}:{:02}:{:02} +0000",
            month.copied().unwrap_or_default(),
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
        )
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
///
/// The calendar is counted in eras of 400 years and in years that begin in March, so that the leap day ends a
/// year and the lengths of the months follow one formula.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_era_zero = days + DAYS_FROM_YEAR_0_TO_1970;
    let era = since_era_zero / DAYS_PER_ERA;
    let day_of_era = since_era_zero % DAYS_PER_ERA;
    // Take the leap days out: one in 4 years, none in the 100th, one in the 400th.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

const SECONDS_PER_DAY: u64 = 86_400;
const DAYS_PER_ERA: u64 = 146_097;
/// From 0000-03-01.
const DAYS_FROM_YEAR_0_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seconds: u64, millis: u64) -> String {
        Timestamp::from(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis)).to_string()
    }

    #[test]
    fn known_times() {
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_399, 7), "2000-02-28T23:59:59.007Z");
        assert_eq!(shown(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(shown(1_709_164_800, 0), "2024-02-29T00:00:00.000Z");
        assert_eq!(shown(1_767_225_599, 999), "2025-12-31T23:59:59.999Z");
        assert_eq!(shown(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(shown(253_402_300_799, 0), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = civil(0);
        for days in 1..200_000 {
            let (year, month, day) = civil(days);
            let (last_year, last_month, last_day) = previous;
            let leap = last_year % 4 == 0 && (last_year % 100 != 0 || last_year % 400 == 0);
            let length = match last_month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = if last_day < length {
                (last_year, last_month, last_day + 1)
            } else if last_month < 12 {
                (last_year, last_month + 1, 1)
            } else {
                (last_year + 1, 1, 1)
            };
            assert_eq!((year, month, day), expected);
            previous = expected;
        }
    }

    #[test]
    fn times_out_of_range_do_not_panic() {
        assert_eq!(
            Timestamp::from(UNIX_EPOCH - Duration::from_secs(5)).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        if let Some(far) = UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX as u64)) {
            assert!(Timestamp::from(far).to_string().ends_with('Z'));
        }
    }
}
