//! A ring of points, by which a key goes to the member whose point follows it.

use super::hash::{mix, part};
use super::table::Seat;

/// The points of all members in order, with an index.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// A point and the position of its member.
    points: Vec<(u64, u32)>,
    /// The ring is cut into equal parts, about as many as points: where the points of each part begin.
    starts: Vec<u32>,
}

impl Ring {
    /// A ring with `density` points for each unit of weight, over seats in order.
    pub(super) fn new(seats: &[Seat], density: u32) -> Self {
        let density = u128::from(density.max(1));
        let wanted: u128 = seats.iter().map(|seat| u128::from(seat.weight) * density).sum();
        let scale = |points: u128| if wanted > MOST { points * MOST / wanted } else { points };
        let mut points = Vec::new();
        for seat in seats {
            let count = u64::try_from(scale(u128::from(seat.weight) * density)).unwrap_or(0).max(1);
            // Fewer points of a member are a part of its more: a changed weight moves only what it must.
            points.extend((0..count).map(|point| (mix(mix(point).wrapping_add(seat.identity)), seat.at)));
        }
        let parts = points.len().next_power_of_two();
        Self::indexed(points, parts)
    }

    /// Sorts the points by the part of the ring that they are in, then within each.
    fn indexed(points: Vec<(u64, u32)>, parts: usize) -> Self {
        let mut starts = vec![0u32; parts + 1];
        for (point, _) in &points {
            if let Some(count) = starts.get_mut(part(*point, parts) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut places = starts.clone();
        let mut sorted = vec![(0, 0); points.len()];
        for (point, at) in points {
            if let Some(place) = places.get_mut(part(point, parts)) {
                if let Some(slot) = sorted.get_mut(*place as usize) {
                    *slot = (point, at);
                }
                *place += 1;
            }
        }
        for bounds in starts.windows(2) {
            if let &[start, end] = bounds
                && let Some(points) = sorted.get_mut(start as usize..end as usize)
                && points.len() > 1
            {
                // Stable, so that of equal points that of the smaller identity comes first, whatever the positions are.
                points.sort_by_key(|(point, _)| *point);
            }
        }
        Self { points: sorted, starts }
    }

    /// The member of the first point from the key on that suits.
    #[inline]
    pub(super) fn find(&self, key: u64, suits: impl Fn(usize) -> bool) -> Option<usize> {
        let start = *self.starts.get(part(key, self.starts.len().saturating_sub(1)))? as usize;
        let (before, after) = self.points.split_at_checked(start)?;
        let after = after.iter().skip_while(|(point, _)| *point < key);
        // The points of the key's own part that lie before it come last, and are not worth the care.
        after.chain(before).take(STEPS).map(|(_, at)| *at as usize).find(|&at| suits(at))
    }
}

/// No ring has more points, but each member has at least one.
const MOST: u128 = 262_144;

/// So many points are looked at.
const STEPS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(weights: &[u32]) -> Vec<Seat> {
        let each = (0u32..).zip(weights);
        each.map(|(at, &weight)| Seat { identity: mix(u64::from(at)), at, weight }).collect()
    }

    #[test]
    fn a_key_goes_to_the_point_that_follows_it() {
        let ring = Ring::new(&seats(&[1, 2, 3]), 20);
        assert_eq!(ring.points.len(), 120);
        assert!(ring.points.is_sorted());
        for step in 0..10_000u64 {
            let key = mix(step);
            let follows = ring.points.iter().find(|(point, _)| *point >= key).or(ring.points.first());
            assert_eq!(ring.find(key, |_| true), follows.map(|(_, at)| *at as usize));
        }
        // The very ends.
        let (first, last) = (ring.points[0], ring.points[119]);
        assert_eq!(ring.find(0, |_| true), Some(first.1 as usize));
        assert_eq!(ring.find(last.0, |_| true), Some(last.1 as usize));
        assert_eq!(ring.find(u64::MAX, |_| true), Some(first.1 as usize));
        assert_eq!(Ring::new(&[], 160).find(7, |_| true), None);
    }

    #[test]
    fn the_ring_is_bounded_and_nobody_is_left_out() {
        let ring = Ring::new(&seats(&[u32::MAX, u32::MAX, 1]), 1000);
        assert!(ring.points.len() as u128 <= MOST + 1);
        assert_eq!(ring.points.iter().filter(|(_, at)| *at == 2).count(), 1);
        assert_eq!(Ring::new(&seats(&[1]), 0).points.len(), 1);
    }
}
