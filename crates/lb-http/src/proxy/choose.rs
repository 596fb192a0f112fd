//! Which member of its pool a request goes to.

use std::rc::Rc;
use std::task::Context;

use lb_pool::Pass;

use super::exchange::{Exchange, Turn};
use super::tries::Try;
use crate::affinity;
use crate::message::Front;
use crate::service::Pool;

/// What is asked of a member besides that it has not failed the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// It is none of those that are avoided.
    elsewhere: bool,
    /// It has room.
    room: bool,
}

impl Wanted {
    /// These wishes, and lesser ones for the case that no member meets them; each once. A member that was avoided is preferred to one
    /// without room.
    fn less_and_less(self) -> impl Iterator<Item = Self> {
        let all = [(true, true), (false, true), (true, false), (false, false)];
        let all = all.into_iter().map(|(elsewhere, room)| Self { elsewhere, room });
        all.filter(move |less| less.elsewhere <= self.elsewhere && less.room <= self.room)
    }
}

impl Exchange {
    /// Chooses a member of the pool, and a pooled connection to it or a new one.
    pub(super) fn choose(&mut self, cx: &mut Context<'_>, front: &mut impl Front, fresh: bool) -> Turn {
        if let Some(turn) = self.begin_call(cx, front) {
            return turn;
        }
        self.begin_mirrors();
        let pool = Rc::clone(&self.pool);
        if !std::mem::replace(&mut self.tries.counted, true) {
            pool.balance.begin_request();
        }
        let Some((at, moves)) = self.pick(&pool, fresh) else { return self.unavailable(cx, front) };
        self.leave_member();
        let charged = self.tries.current.charged;
        self.tries.current = Try { charged, moves, ..Try::default() };
        match pool.balance.gate(at) {
            None => self.attempt(cx, front, at, fresh, Pass::default()),
            Some(gate) => self.enter(cx, front, gate, at, fresh),
        }
    }

    /// The member for the next try: one that has not failed this request if there is one, and one with room if there is one. Also whether
    /// it is another than the one that the client's cookie stands for.
    #[inline]
    fn pick(&self, pool: &Pool, fresh: bool) -> Option<(usize, bool)> {
        let key = match pool.balance.follows_key() {
            // Connections over TCP have no ID.
            true => affinity::key(&pool.hash_key, &self.request.head, self.client.address, None),
            false => None,
        };
        let stuck_to = pool.sticky.as_ref().and_then(|sticky| sticky.member(&self.request.head));
        let picked = self.pick_by(pool, key, stuck_to, fresh);
        picked.map(|at| (at, pool.sticky.is_some() && picked != stuck_to))
    }

    /// The member for the next try, where it is known what the request goes by: a key, or the member that its client is stuck to.
    #[inline]
    fn pick_by(&self, pool: &Pool, key: Option<u64>, stuck_to: Option<usize>, fresh: bool) -> Option<usize> {
        let now = self.clock.now.into_std();
        let works = |at: usize| !self.tries.has_failed(at);
        let (avoids, limited) = (self.tries.avoids_some(), pool.balance.is_limited());
        if !avoids && !limited {
            return stuck_to
                .filter(|at| works(*at))
                .and_then(|at| pool.balance.pick_again(now, at))
                .or_else(|| pool.balance.pick(now, key, works));
        }
        let admits = |wanted: Wanted, at: usize| {
            works(at)
                && !(wanted.elsewhere && self.tries.avoids(at))
                && (!wanted.room
                    || pool.balance.gate(at).is_none_or(|gate| gate.has_room(self.need(at, fresh))))
        };
        let most = Wanted { elsewhere: avoids, room: limited };
        let stuck = stuck_to.filter(|at| admits(most, *at)).and_then(|at| pool.balance.pick_again(now, at));
        let pick = |wanted: Wanted| pool.balance.pick(now, key, |at| admits(wanted, at));
        stuck.or_else(|| most.less_and_less().find_map(pick))
    }

    /// No member is left that could take the request.
    pub(super) fn unavailable(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let failure = self.tries.exhausted();
        let current = &self.tries.current;
        // The last try has ended, and has said of its member what there is to say.
        let said = current.member.is_some().then_some((current.failure, current.status));
        let turn = self.fail(cx, front, failure);
        if let Some((failure, status)) = said {
            (self.tries.current.failure, self.tries.current.status) = (failure, status);
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_looked_through_once_for_each_thing_that_is_wanted() {
        let asked = |elsewhere, room| -> Vec<(bool, bool)> {
            let wanted = Wanted { elsewhere, room };
            wanted.less_and_less().map(|less| (less.elsewhere, less.room)).collect()
        };
        assert_eq!(asked(false, false), [(false, false)]);
        assert_eq!(asked(false, true), [(false, true), (false, false)]);
        assert_eq!(asked(true, false), [(true, false), (false, false)]);
        assert_eq!(asked(true, true), [(true, true), (false, true), (true, false), (false, false)]);
    }
}
