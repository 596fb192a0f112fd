//! Faults on purpose: what clients see when a backend is slow or gone, tried out without breaking one.

use std::time::Duration;

use crate::fraction::Fraction;
use crate::rng::SplitMix64;

/// How requests are made to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultPolicy {
    /// How long requests wait, and which of them.
    pub delay: Option<(Duration, Fraction)>,
    /// The status that requests are answered with, and which of them.
    pub abort: Option<(u16, Fraction)>,
}

/// What is done to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DrawnFault {
    /// How long it waits.
    pub delay: Option<Duration>,
    /// The status that it is answered with then.
    pub abort: Option<u16>,
}

impl FaultPolicy {
    /// Draws what is done to a request. Delay and abort are drawn each by itself.
    pub fn draw(&self, rng: &mut SplitMix64) -> DrawnFault {
        fn drawn<T: Copy>(part: Option<(T, Fraction)>, rng: &mut SplitMix64) -> Option<T> {
            part.filter(|(_, share)| share.draws(rng)).map(|(what, _)| what)
        }
        DrawnFault { delay: drawn(self.delay, rng), abort: drawn(self.abort, rng) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_and_abort_are_drawn_each_by_itself() {
        let half = Fraction::parse("1/2").unwrap();
        let policy = FaultPolicy { delay: Some((Duration::from_millis(5), half)), abort: Some((503, half)) };
        let mut rng = SplitMix64::new(1);
        let mut counts = [[0_u32; 2]; 2];
        for _ in 0..4000 {
            let fault = policy.draw(&mut rng);
            counts[usize::from(fault.delay.is_some())][usize::from(fault.abort.is_some())] += 1;
        }
        // A quarter each: 1000, with a standard deviation of 27.
        assert!(counts.as_flattened().iter().all(|count| (890..1110).contains(count)), "{counts:?}");
        let nothing = FaultPolicy { delay: None, abort: None };
        assert_eq!(nothing.draw(&mut rng), DrawnFault::default());
    }
}
