//! Which branch of a route a request takes where its traffic is split by weight, and how a client stays on it.
//!
//! The weights lie on a line, one behind the other, and a request has a place on it. A client that stays keeps its place, not its branch: when a
//! weight changes, only clients move whose place lies where the borders have passed. So a canary that grows from 5 to 10 % takes over 5 % of the
//! clients of the other branch, and nobody else notices.

use crate::balance::hash;

/// A place on the line of weights: a fraction of its length in units of 2⁻³².
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitPlace(u32);

impl SplitPlace {
    /// A place by chance.
    pub fn of_chance(chance: u64) -> Self {
        Self((chance >> 32) as u32)
    }

    /// The place of whoever has this key: an address, or the value of a field.
    pub fn of_key(key: &[u8]) -> Self {
        Self::of_chance(hash::mix(hash::bytes(key)))
    }

    /// The place that a cookie holds: eight hex digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let fits = text.len() == 8 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let text = std::str::from_utf8(text).ok().filter(|_| fits)?;
        u32::from_str_radix(text, 16).ok().map(Self)
    }

    /// What a cookie holds.
    pub fn digits(self) -> String {
        format!("{:08x}", self.0)
    }

    /// The branch at this place, by its position; `None` where all weights are 0.
    pub fn branch(self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let total: u64 = weights.clone().map(u64::from).fold(0, u64::saturating_add);
        // Below `total`, since the place is below 2³².
        let at = u64::try_from((u128::from(total) * u128::from(self.0)) >> 32).ok()?;
        let mut end = 0_u64;
        weights.into_iter().position(|weight| {
            end = end.saturating_add(u64::from(weight));
            at < end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn branch(place: SplitPlace, weights: &[u32]) -> Option<usize> {
        place.branch(weights.iter().copied())
    }

    fn places(count: u32) -> Vec<SplitPlace> {
        let mut rng = SplitMix64::new(7);
        (0..count).map(|_| SplitPlace::of_chance(rng.next_u64())).collect()
    }

    #[test]
    fn x_07_each_branch_gets_its_share_within_four_sigma() {
        const COUNT: u32 = 100_000;
        for weights in [&[70, 30, 0][..], &[1, 1, 1], &[95, 5], &[0, 1], &[u32::MAX, u32::MAX, 1]] {
            let mut counts = vec![0_u32; weights.len()];
            for place in places(COUNT) {
                counts[branch(place, weights).unwrap()] += 1;
            }
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (count, weight) in counts.iter().zip(weights) {
                let share = f64::from(*weight) / total;
                let (mean, sigma) =
                    (share * f64::from(COUNT), (share * (1.0 - share) * f64::from(COUNT)).sqrt());
                assert!((f64::from(*count) - mean).abs() <= 4.0 * sigma + 1e-9, "{weights:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn x_08_without_a_weight_there_is_no_branch() {
        for weights in [&[0, 0][..], &[]] {
            assert_eq!(branch(SplitPlace(0), weights), None);
            assert_eq!(branch(SplitPlace(u32::MAX), weights), None);
        }
        assert_eq!(branch(SplitPlace(u32::MAX), &[1, 0]), Some(0));
        assert_eq!(branch(SplitPlace(0), &[0, 0, 3]), Some(2));
    }

    #[test]
    fn a_weight_moves_no_more_clients_than_its_share() {
        const COUNT: u32 = 100_000;
        for (before, after) in
            [([95, 5], [90, 10]), ([50, 50], [100, 0]), ([1, 99], [2, 98]), ([95, 5], [950, 50])]
        {
            let share = |weights: [u32; 2]| f64::from(weights[0]) / f64::from(weights[0] + weights[1]);
            let moved = places(COUNT)
                .iter()
                .filter(|place| branch(**place, &before) != branch(**place, &after))
                .count();
            let most = (share(before) - share(after)).abs();
            let sigma = (most * (1.0 - most) / f64::from(COUNT)).sqrt();
            assert!(moved as f64 / f64::from(COUNT) <= most + 4.0 * sigma, "{before:?} {after:?}: {moved}");
        }
    }

    #[test]
    fn a_cookie_holds_a_place_and_nothing_else() {
        for place in places(100) {
            assert_eq!(SplitPlace::parse(place.digits().as_bytes()), Some(place));
        }
        for text in ["", "0", "0123456", "012345678", "0123456G", "0123456A", "+1234567", " 1234567"] {
            assert_eq!(SplitPlace::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(SplitPlace::of_key(b"a"), SplitPlace::of_key(b"a"));
    }
}
