use std::collections::VecDeque;

use super::*;
use crate::rng::SplitMix64;

const SECOND: Duration = Duration::from_secs(1);

fn limits(max_connections: u32, max_requests: u32, max_pending: u32) -> MemberLimits {
    MemberLimits { max_connections, max_requests, max_pending, pending_timeout: SECOND }
}

fn wait(breaker: &mut Breaker<u32>, need: Need, now: Instant, name: u32) -> Ticket {
    match breaker.admit(need, now, || name) {
        Admit::Wait(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_limit_holds_and_says_its_name() {
    let now = Instant::now();
    let mut off = Breaker::<()>::new(MemberLimits::default());
    assert!((0..10_000).all(|_| off.admit(Need::Both, now, || ()) == Admit::Go));
    let mut breaker = Breaker::<()>::new(limits(2, 3, 0));
    assert_eq!(breaker.admit(Need::Both, now, || ()), Admit::Go);
    assert_eq!(breaker.admit(Need::Connection, now, || ()), Admit::Go);
    assert_eq!(breaker.admit(Need::Both, now, || ()), Admit::Refuse(Full::Connections));
    assert_eq!(breaker.admit(Need::Request, now, || ()), Admit::Go);
    assert_eq!(breaker.admit(Need::Request, now, || ()), Admit::Go);
    assert_eq!(breaker.admit(Need::Request, now, || ()), Admit::Refuse(Full::Requests));
    assert_eq!((breaker.connections(), breaker.requests()), (2, 3));
    assert!(!breaker.has_room(Need::Request) && !breaker.has_room(Need::Connection));
    breaker.request_done();
    assert!(breaker.has_room(Need::Request) && !breaker.has_room(Need::Both));
    breaker.connection_done();
    assert_eq!(breaker.admit(Need::Both, now, || ()), Admit::Go);
}

#[test]
fn who_waits_can_be_told_what_is_missing() {
    let now = Instant::now();
    let mut breaker = Breaker::new(limits(1, 2, 3));
    assert_eq!(breaker.admit(Need::Both, now, || 0), Admit::Go);
    let tickets = [1, 2].map(|name| wait(&mut breaker, Need::Both, now, name));
    let goes = |breaker: &Breaker<u32>, ticket, need| breaker.would_go(ticket, need);
    assert!(goes(&breaker, tickets[0], Need::Request) && !goes(&breaker, tickets[0], Need::Both));
    assert!(!goes(&breaker, tickets[1], Need::Request), "another is first");
    breaker.connection_done();
    assert!(goes(&breaker, tickets[0], Need::Both));
    breaker.leave(tickets[0]);
    assert!(!goes(&breaker, tickets[0], Need::Request) && goes(&breaker, tickets[1], Need::Both));
}

#[test]
fn the_queue_is_bounded_fair_and_nobody_overtakes() {
    let now = Instant::now();
    let mut breaker = Breaker::new(limits(0, 1, 3));
    assert_eq!(breaker.admit(Need::Request, now, || 0), Admit::Go);
    let tickets: Vec<_> = (1..=3).map(|name| wait(&mut breaker, Need::Request, now, name)).collect();
    assert_eq!(breaker.admit(Need::Request, now, || 4), Admit::Refuse(Full::Pending));
    assert_eq!(breaker.first(), None, "there is no room to wake anybody for");
    breaker.request_done();
    assert_eq!(breaker.first(), Some(&1));
    // Room, but not for who comes now, nor for the second.
    assert_eq!(breaker.admit(Need::Request, now, || 5), Admit::Refuse(Full::Pending));
    assert_eq!(breaker.ask(tickets[1], Need::Request, now), Answer::Wait(now + SECOND));
    assert_eq!(breaker.ask(tickets[0], Need::Request, now), Answer::Go);
    assert_eq!(breaker.ask(tickets[0], Need::Request, now), Answer::Refuse(Full::PendingTimeout), "spent");
    // The second leaves; the third is next.
    breaker.leave(tickets[1]);
    breaker.request_done();
    assert_eq!((breaker.first(), breaker.pending()), (Some(&3), 1));
    assert_eq!(breaker.ask(tickets[2], Need::Request, now), Answer::Go);
    assert_eq!((breaker.pending(), breaker.requests()), (0, 1));
}

#[test]
fn waiting_ends_in_time_even_when_there_is_room() {
    let now = Instant::now();
    let mut breaker = Breaker::new(limits(0, 1, 2));
    assert_eq!(breaker.admit(Need::Request, now, || 0), Admit::Go);
    let ticket = wait(&mut breaker, Need::Request, now, 1);
    let next = wait(&mut breaker, Need::Request, now + SECOND / 2, 2);
    breaker.request_done();
    assert_eq!(
        breaker.ask(ticket, Need::Request, now + SECOND),
        Answer::Refuse(Full::PendingTimeout),
        "whoever waited so long is answered 503 already"
    );
    assert_eq!(breaker.first(), Some(&2));
    assert_eq!(breaker.ask(next, Need::Request, now + SECOND), Answer::Go);
}

#[test]
fn who_waits_for_a_connection_may_take_one_that_stands_ready() {
    let now = Instant::now();
    let mut breaker = Breaker::new(limits(1, 0, 2));
    assert_eq!(breaker.admit(Need::Both, now, || 0), Admit::Go);
    let ticket = wait(&mut breaker, Need::Both, now, 1);
    breaker.rewake(ticket, 7);
    breaker.request_done();
    assert_eq!(breaker.first(), Some(&7));
    assert_eq!(breaker.ask(ticket, Need::Both, now), Answer::Wait(now + SECOND));
    assert_eq!(breaker.ask(ticket, Need::Request, now), Answer::Go);
    assert_eq!((breaker.connections(), breaker.requests()), (1, 1));
}

#[test]
fn shares_add_up_and_leave_nobody_without() {
    for workers in 1..=9 {
        for whole in [1, 2, 7, 8, 9, 100, u32::MAX] {
            let shares = (0..workers).map(|worker| limits(whole, whole, whole).share(worker, workers));
            let sums = shares.fold((0u64, 0u64), |(requests, pending), share| {
                assert!(share.max_requests >= 1 && share.max_connections == share.max_requests);
                (requests + u64::from(share.max_requests), pending + u64::from(share.max_pending))
            });
            assert_eq!(sums, (u64::from(whole.max(workers)), u64::from(whole)), "{whole} for {workers}");
        }
    }
    assert_eq!(limits(0, 0, 0).share(1, 4), limits(0, 0, 0));
}

#[test]
fn against_a_plain_model_over_many_seeds() {
    let start = Instant::now();
    for seed in 0..64 {
        let mut rng = SplitMix64::new(seed);
        let mut breaker = Breaker::new(limits(0, 3, 5));
        let (mut under_way, mut model) = (0u32, VecDeque::<(Ticket, Instant)>::new());
        let mut now = start;
        for name in 0..2000 {
            now += Duration::from_millis(rng.below(100));
            match rng.below(5) {
                0 | 1 => {
                    let answer = breaker.admit(Need::Request, now, || name);
                    if model.is_empty() && under_way < 3 {
                        assert_eq!(answer, Admit::Go);
                        under_way += 1;
                    } else if model.len() < 5 {
                        let Admit::Wait(ticket) = answer else { panic!("seed {seed}: {answer:?}") };
                        model.push_back((ticket, now + SECOND));
                    } else {
                        assert_eq!(answer, Admit::Refuse(Full::Pending));
                    }
                }
                2 if under_way > 0 => {
                    breaker.request_done();
                    under_way -= 1;
                }
                3 if !model.is_empty() => {
                    let at = usize::try_from(rng.below(model.len() as u64)).unwrap();
                    breaker.leave(model.remove(at).unwrap().0);
                }
                _ => {
                    let at = usize::try_from(rng.below(6)).unwrap();
                    let Some(&(ticket, until)) = model.get(at) else { continue };
                    let expected = if until <= now {
                        model.remove(at);
                        Answer::Refuse(Full::PendingTimeout)
                    } else if at == 0 && under_way < 3 {
                        model.pop_front();
                        under_way += 1;
                        Answer::Go
                    } else {
                        Answer::Wait(until)
                    };
                    assert_eq!(breaker.ask(ticket, Need::Request, now), expected, "seed {seed}");
                }
            }
            assert_eq!(
                (breaker.requests(), breaker.pending()),
                (under_way, model.len() as u32),
                "seed {seed}"
            );
            assert!(under_way <= 3 && breaker.queue.places() <= 5);
            assert_eq!(breaker.first().is_some(), !model.is_empty() && under_way < 3, "seed {seed}");
        }
    }
}
