//! Rendezvous hashing: every member draws a number for the key, and the best takes it.
//!
//! With weights as in Schindelhauer and Schomaker's logarithmic method: the draws are times of arrival, exponential with the weight as
//! rate, and the first to arrive wins. Removing a member moves its keys and no others, in proportion to the weights.

use super::hash::mix;
use super::table::Seat;

/// The members that draw for a key.
#[derive(Clone, Debug)]
pub(super) struct Rendezvous {
    /// Identity, position, and what a time of arrival is multiplied by.
    seats: Vec<(u64, u32, f64)>,
}

impl Rendezvous {
    /// Over seats in order.
    pub(super) fn new(seats: &[Seat]) -> Self {
        let each = seats.iter().map(|seat| (seat.identity, seat.at, f64::from(seat.weight).recip()));
        Self { seats: each.collect() }
    }

    /// The best member for `key` among those that suit.
    pub(super) fn find(&self, key: u64, suits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut earliest = f64::INFINITY;
        let mut found = None;
        for &(identity, at, slowness) in &self.seats {
            // Above 0 and at most 1; 53 bits are what an f64 holds exactly.
            let draw = ((mix(key ^ identity) >> 11) + 1) as f64 * (1.0 / 9_007_199_254_740_992.0);
            // -ln(x) is at least 1 - x, which spares most logarithms.
            if (1.0 - draw) * slowness >= earliest {
                continue;
            }
            let arrival = -logarithm(draw) * slowness;
            if arrival < earliest && suits(at as usize) {
                earliest = arrival;
                found = Some(at as usize);
            }
        }
        found
    }
}

/// ln(x) for x above 0, within 10^-10. Made of additions, multiplications and divisions, which give the same on every machine, as the
/// logarithm of a system's library does not.
fn logarithm(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as f64 - 1023.0;
    let mut mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    // ln(m) = 2 artanh((m - 1) / (m + 1)).
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = [11.0, 9.0, 7.0, 5.0, 3.0, 1.0].iter().fold(0.0, |sum, odd| sum * square + 1.0 / odd);
    exponent * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_close_and_exact_at_one() {
        assert_eq!(logarithm(1.0), 0.0);
        for step in 1..10_000u32 {
            for x in [f64::from(step) / 10_000.0, f64::from(step) / 9e15] {
                assert!((logarithm(x) - x.ln()).abs() < 1e-9, "{x}");
            }
        }
    }

    #[test]
    fn nobody_to_ask_or_nobody_who_suits_is_nobody() {
        assert_eq!(Rendezvous::new(&[]).find(1, |_| true), None);
        let seat = Seat { identity: 1, at: 0, weight: 1 };
        assert_eq!(Rendezvous::new(&[seat]).find(1, |_| false), None);
        assert_eq!(Rendezvous::new(&[seat]).find(1, |_| true), Some(0));
    }
}
