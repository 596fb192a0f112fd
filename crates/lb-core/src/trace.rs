//! Which trace a request belongs to (W3C Trace Context), and whether its spans are recorded.

use crate::fraction::Fraction;

/// The length of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// Where the ID of the parent span stands in a `traceparent`.
pub const SPAN_AT: usize = 36;

/// Where the flags stand in a `traceparent`.
pub const FLAGS_AT: usize = 53;

/// What a `traceparent` of version 00 says (W3C Trace Context §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    /// The trace, never 0.
    pub trace: u128,
    /// The span of the sender, never 0.
    pub span: u64,
    /// The sender may have recorded its span.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads the value of a field. `None` where it breaks the rules, in which case a new trace begins, and for versions that are not
    /// known.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
        if value.len() != TRACEPARENT_BYTES || !value.starts_with(b"00") || !dashes {
            return None;
        }
        let part = |from: usize, to: usize| hex(value.get(from..to)?);
        let (trace, span, flags) = (part(3, 35)?, part(SPAN_AT, 52)?, part(FLAGS_AT, 55)?);
        let span = u64::try_from(span).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// The number that lower-case hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |sum, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit.wrapping_sub(b'0'),
            b'a'..=b'f' => digit.wrapping_sub(b'a').wrapping_add(10),
            _ => return None,
        };
        Some(sum << 4 | u128::from(digit))
    })
}

/// Decides which requests have their spans recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampler {
    /// Traces whose number, in 63 bits, is lower are recorded.
    below: u64,
    heeds_parent: bool,
}

/// The numbers that traces are compared by.
const RANGE: u64 = 1 << 63;

impl Sampler {
    /// Records `share` of the traces that begin here; where it heeds the parent, a trace that has begun elsewhere is recorded as its sender says.
    pub fn new(share: Fraction, heeds_parent: bool) -> Self {
        Self { below: share.of(RANGE), heeds_parent }
    }

    /// Whether a request of this trace is recorded. Everybody who records a share of traces by their ID chooses the same ones, and more of them where
    /// the share is larger (OpenTelemetry's `TraceIdRatioBased`).
    #[inline]
    pub fn records(&self, parent: Option<&TraceParent>, trace: u128) -> bool {
        match parent {
            Some(parent) if self.heeds_parent => parent.is_sampled,
            _ => u64::try_from((trace & u128::from(u64::MAX)) >> 1).unwrap_or(u64::MAX) < self.below,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_rules_allow_is_read_and_nothing_else() {
        let read = TraceParent::parse(GIVEN).unwrap();
        assert_eq!(read.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((read.span, read.is_sampled), (0xb7ad_6b71_6920_3331, true));
        for at in 0..GIVEN.len() {
            for byte in 0..=u8::MAX {
                let mut other = GIVEN.to_vec();
                other[at] = byte;
                let is_hex = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                let may_be = match at {
                    0 | 1 => byte == b'0',
                    2 | 35 | 52 => byte == b'-',
                    _ => is_hex,
                };
                assert_eq!(TraceParent::parse(&other).is_some(), may_be, "{}", other.escape_ascii());
            }
        }
        for wrong in [
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01".as_slice(),
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            b"",
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_share_is_a_share_and_grows_around_the_smaller_one() {
        let share = |text: &str| Sampler::new(Fraction::parse(text).unwrap(), true);
        let (none, some, most, all) = (share("0%"), share("1/10"), share("9/10"), share("100%"));
        let mut rng = crate::rng::SplitMix64::new(7);
        let mut counts = [0u32; 2];
        for _ in 0..10_000 {
            let trace = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            assert!(all.records(None, trace) && !none.records(None, trace));
            assert!(most.records(None, trace) || !some.records(None, trace));
            counts[0] += u32::from(some.records(None, trace));
            counts[1] += u32::from(most.records(None, trace));
        }
        assert!((900..1100).contains(&counts[0]) && (8900..9100).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn the_parent_decides_where_it_is_heeded() {
        let parent = |is_sampled| TraceParent { trace: 1, span: 1, is_sampled };
        let (none, all) = (Fraction::parse("0%").unwrap(), Fraction::ALL);
        for is_sampled in [false, true] {
            for share in [none, all] {
                let heeding = Sampler::new(share, true).records(Some(&parent(is_sampled)), 1);
                let deaf = Sampler::new(share, false).records(Some(&parent(is_sampled)), 1);
                assert_eq!((heeding, deaf), (is_sampled, share == all));
            }
        }
    }
}
