//! A share of requests, drawn by chance.

use std::fmt;

use crate::rng::SplitMix64;

/// A share of requests: none, some or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fraction {
    numerator: u64,
    denominator: u64,
}

/// The most that either side of a fraction may be.
const MOST: u64 = 1_000_000_000;

impl Fraction {
    /// All requests.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// Reads a share in percent, of which six decimals count (`"100%"`, `"0.1%"`), or a fraction (`"1/3"`); at most all, and the sides of a fraction at
    /// most 10^9.
    pub fn parse(text: &str) -> Option<Self> {
        let (numerator, denominator) = match text.strip_suffix('%') {
            Some(percent) => {
                let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
                if decimals.is_empty() || decimals.len() > 6 {
                    return None;
                }
                let scale = 10u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
                let whole = number(whole)?.checked_mul(scale)?;
                (whole.checked_add(number(decimals)?)?, scale.checked_mul(100)?)
            }
            None => {
                let (numerator, denominator) = text.split_once('/')?;
                (number(numerator)?, number(denominator)?)
            }
        };
        (denominator > 0 && numerator <= denominator).then_some(Self { numerator, denominator })
    }

    /// So much of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        let part = u128::from(whole) * u128::from(self.numerator) / u128::from(self.denominator.max(1));
        u64::try_from(part).unwrap_or(whole)
    }

    /// Whether a request is one of the share.
    #[inline]
    pub fn draws(self, rng: &mut SplitMix64) -> bool {
        self.numerator >= self.denominator || rng.below(self.denominator) < self.numerator
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number <= MOST)
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.numerator {
            all if all == self.denominator => f.write_str("all"),
            some => write!(f, "{some}/{}", self.denominator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_exactly() {
        let of = |numerator, denominator| Some(Fraction { numerator, denominator });
        for (text, expected) in [
            ("100%", of(1000, 1000)),
            ("0%", of(0, 1000)),
            ("0.1%", of(1, 1000)),
            ("12.5%", of(125, 1000)),
            ("0.000001%", of(1, 100_000_000)),
            ("1/3", of(1, 3)),
            ("0/1", of(0, 1)),
            ("1000000000/1000000000", of(MOST, MOST)),
        ] {
            assert_eq!(Fraction::parse(text), expected, "{text}");
        }
        for wrong in [
            "",
            "%",
            "1",
            "101%",
            "100.1%",
            "-1%",
            "+1%",
            "1.%",
            ".1%",
            "0.0000001%",
            "1e1%",
            "2/1",
            "1/0",
            "1/",
            "/1",
            "1 / 2",
            "1/10000000000",
            "1/2%",
        ] {
            assert_eq!(Fraction::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            (Fraction::ALL.to_string(), Fraction { numerator: 1, denominator: 3 }.to_string()),
            ("all".into(), "1/3".into())
        );
    }

    #[test]
    fn draws_keep_within_four_sigma() {
        for (text, share) in [
            ("50%", 0.5_f64),
            ("0.1%", 0.001),
            ("20%", 0.2),
            ("1/3", 1.0 / 3.0),
            ("99.9%", 0.999),
            ("0%", 0.0),
            ("100%", 1.0),
        ] {
            let fraction = Fraction::parse(text).unwrap();
            for seed in 0..20 {
                let mut rng = SplitMix64::new(seed);
                let drawn = (0..20_000).filter(|_| fraction.draws(&mut rng)).count();
                let (mean, sigma) = (20_000.0 * share, (20_000.0 * share * (1.0 - share)).sqrt());
                #[expect(clippy::cast_precision_loss, reason = "20000 is exact")]
                let away = (drawn as f64 - mean).abs();
                assert!(away <= 4.0 * sigma, "{text}, seed {seed}: {drawn}");
            }
        }
    }

    #[test]
    fn one_seed_draws_the_same() {
        let draws = |seed| {
            let mut rng = SplitMix64::new(seed);
            (0..64).map(|_| Fraction::parse("1/2").unwrap().draws(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(draws(5), draws(5));
        assert_ne!(draws(5), draws(6));
    }
}
