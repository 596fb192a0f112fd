//! The table, each budget alone, and any mix of useful traffic against any kind of flood.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { streams: 256, peer_resets: 100, local_resets: 100, percent: 100 };

fn of_client(now: Instant) -> Ledger {
    Ledger::of_client(LIMITS, now)
}

/// An empty ledger of each side, with the side's room for `charge`.
fn both(charge: Charge, now: Instant) -> [(Ledger, Room); 2] {
    let client = match charge {
        Charge::PeerReset => Room { burst: 356, refill: 178 },
        _ => charge.budget().client,
    };
    [(of_client(now), client), (Ledger::of_backend(100, now), charge.budget().backend)]
}

#[test]
fn the_table_is_in_the_order_of_the_kinds_and_the_ledger_is_small() {
    for (at, budget) in BUDGETS.iter().enumerate() {
        assert_eq!(budget.charge as usize, at, "{}", budget.reason);
        assert!(!budget.attacks.is_empty() && !budget.key.is_empty());
        for room in [budget.client, budget.backend] {
            assert!(room.burst > 0 && room.refill > 0 && room.burst <= MOST, "{}", budget.reason);
        }
        assert!(budget.backend.burst >= budget.client.burst && budget.backend.refill >= budget.client.refill);
    }
    assert!(size_of::<Ledger>() <= 80, "{}", size_of::<Ledger>());
}

#[test]
fn each_kind_is_borne_up_to_its_burst_and_comes_back_with_time() {
    let start = Instant::now();
    for budget in &BUDGETS {
        for (mut ledger, room) in both(budget.charge, start) {
            for _ in 0..room.burst {
                assert_eq!(ledger.charge(budget.charge, start), Verdict::Fine, "{}", budget.reason);
            }
            // The other budgets are untouched.
            for other in BUDGETS.iter().filter(|other| other.charge != budget.charge) {
                assert_eq!(ledger.charge(other.charge, start), Verdict::Fine);
            }
            let almost = start + Duration::from_millis(999);
            assert_eq!(ledger.charge(budget.charge, almost), Verdict::TooMuch(budget.charge));
            assert_eq!(ledger.count(budget.charge), room.burst + 1);
            let later = start + Duration::from_millis(1000);
            for _ in 0..room.refill.min(room.burst) {
                assert_eq!(ledger.charge(budget.charge, later), Verdict::Fine, "{}", budget.reason);
            }
            assert_eq!(ledger.charge(budget.charge, later), Verdict::TooMuch(budget.charge));
        }
    }
}

#[test]
fn a_flood_just_above_the_refill_ends_and_one_just_below_does_not() {
    let start = Instant::now();
    for budget in &BUDGETS {
        for side in 0..2 {
            let runs = |each_second: u32| {
                let [client, backend] = both(budget.charge, start);
                let (mut ledger, room) = if side == 0 { client } else { backend };
                // Long enough for the excess of a second to use up the burst.
                let seconds = u64::from(room.burst / (each_second.saturating_sub(room.refill)).max(1)) + 3;
                (0..seconds.min(200)).all(|second| {
                    let now = start + Duration::from_secs(second);
                    (0..each_second).all(|_| ledger.charge(budget.charge, now) == Verdict::Fine)
                })
            };
            let [(_, client), (_, backend)] = both(budget.charge, start);
            let room = if side == 0 { client } else { backend };
            assert!(runs(room.refill.min(room.burst)), "{}", budget.reason);
            assert!(!runs(room.refill + (room.burst / 50).max(1)), "{}", budget.reason);
        }
    }
}

#[test]
fn budgets_follow_their_settings() {
    let now = Instant::now();
    let count = |limits: Limits, charge: Charge| {
        let mut ledger = Ledger::of_client(limits, now);
        (0..1_000_000).take_while(|_| ledger.charge(charge, now) == Verdict::Fine).count()
    };
    let narrow = Limits { streams: 1, peer_resets: 2, local_resets: 4, percent: 100 };
    assert_eq!((count(narrow, Charge::PeerReset), count(narrow, Charge::LocalReset)), (3, 4));
    assert_eq!(count(Limits { local_resets: 0, ..narrow }, Charge::LocalReset), 0);
    let most = Limits { streams: u32::MAX, peer_resets: usize::MAX, local_resets: usize::MAX, percent: 100 };
    assert_eq!(count(most, Charge::PeerReset), 1_000_000);
    assert_eq!(count(most, Charge::LocalReset), 1_000_000);
    for (percent, pings) in
        [(100, 1_000), (200, 2_000), (10_000, 100_000), (0, 1_000_000), (u32::MAX, 1_000_000)]
    {
        let limits = Limits { percent, ..narrow };
        let got = count(limits, Charge::Ping);
        // 0 cannot be configured; it must not divide.
        assert!(got == pings || percent == 0, "{percent}: {got}");
        assert_eq!(count(limits, Charge::LocalReset), 4);
    }
}

/// A smaller message costs more than a larger one, a little at a time, and the smallest of gRPC costs nothing.
#[test]
fn h2_05_the_charge_of_a_frame_falls_smoothly_with_its_content() {
    let now = Instant::now();
    let frames = |content: u32| {
        let mut ledger = of_client(now);
        (0..1_000_000).take_while(|_| ledger.data_received(content, false, now) == Verdict::Fine).count()
    };
    let borne: Vec<usize> = (0..8).map(frames).collect();
    assert_eq!(borne, [100, 100_000, 133_333, 200_000, 400_000, 1_000_000, 1_000_000, 1_000_000]);
    // Frames of one byte between those of a larger message are paid for by it.
    let mut ledger = of_client(now);
    assert!((0..1_000_000).all(|_| {
        [1, 9, 0].iter().all(|content| ledger.data_received(*content, false, now) == Verdict::Fine)
    }));
    // What ends a stream is no overhead.
    assert!((0..1_000_000).all(|_| {
        [1, 0].iter().all(|content| ledger.data_received(*content, true, now) == Verdict::Fine)
    }));
}

#[test]
fn h2_01_a_reset_counts_the_less_the_longer_the_stream_was_open() {
    let now = Instant::now();
    let resets = |open: Duration| {
        let mut ledger = of_client(now);
        (0..100_000).take_while(|_| ledger.reset(open, now) == Verdict::Fine).count()
    };
    let open = [0, 500, 900, 999, 1000, 60_000].map(|ms| resets(Duration::from_millis(ms)));
    assert_eq!(open, [356, 712, 3_560, 100_000, 100_000, 100_000]);
}

/// All streams that may be open are given up together, again and again, since the backend answers none of them in time.
#[test]
fn h2_01_calls_that_time_out_together_are_no_attack() {
    let start = Instant::now();
    for (timeout, fine) in [(10, false), (100, false), (600, true), (1_000, true), (5_000, true)] {
        let (mut ledger, timeout) = (of_client(start), Duration::from_millis(timeout));
        let mut now = start;
        let mut storms = || {
            (0..256).all(|_| ledger.reset(timeout, now) == Verdict::Fine) && {
                now += timeout;
                true
            }
        };
        assert_eq!((0..100).all(|_| storms()), fine, "{timeout:?}");
    }
}

#[test]
fn h2_01_requests_that_are_answered_pay_for_resets_and_little_is_saved_up() {
    let now = Instant::now();
    let mut ledger = of_client(now);
    for _ in 0..10_000 {
        ledger.request();
        assert_eq!(ledger.charge(Charge::PeerReset, now), Verdict::Fine);
        assert_eq!(ledger.charge(Charge::LocalReset, now), Verdict::Fine);
    }
    (0..10_000).for_each(|_| ledger.request());
    (0..10_000).for_each(|_| ledger.data_sent(16_384));
    let resets = [(Charge::PeerReset, 0), (Charge::LocalReset, 0)];
    for (charge, saved) in [resets, [(Charge::Ping, SAVED), (Charge::WindowUpdate, SAVED)]].concat() {
        // An hour saves nothing.
        let later = now + Duration::from_secs(3600);
        let borne = (0..1_000_000).take_while(|_| ledger.charge(charge, later) == Verdict::Fine).count();
        let burst = of_client(now).burst(charge);
        assert_eq!(u32::try_from(borne).unwrap(), burst * (1 + saved), "{charge:?}");
    }
}

/// A client takes long to read what is under way to it, and answers it all at once.
#[test]
fn answers_may_come_long_after_what_they_answer() {
    let now = Instant::now();
    let mut ledger = of_client(now);
    let later = now + Duration::from_secs(10);
    for _ in 0..5 {
        (0..200_000).for_each(|_| ledger.data_sent(35));
        for _ in 0..10_000 {
            assert_eq!(ledger.charge(Charge::Ping, later), Verdict::Fine);
        }
        for _ in 0..400_000 {
            assert_eq!(ledger.charge(Charge::WindowUpdate, later), Verdict::Fine);
        }
    }
}

#[test]
fn a_client_may_open_both_windows_after_each_frame_but_not_byte_by_byte() {
    let start = Instant::now();
    let frames = |content: u32, updates: u32| {
        let mut ledger = of_client(start);
        let mut frame = || {
            ledger.data_sent(content);
            (0..updates).all(|_| ledger.charge(Charge::WindowUpdate, start) == Verdict::Fine)
        };
        (0..1_000_000).take_while(|_| frame()).count()
    };
    for (content, updates) in [(5, 2), (35, 2), (1024, 8), (16_384, 128)] {
        assert_eq!(frames(content, updates), 1_000_000, "{content} bytes");
    }
    assert!(frames(1, 2) < 40_000 && frames(1, 1) < 90_000);
    // A backend may.
    let mut backend = Ledger::of_backend(100, start);
    assert!((0..1_000_000).all(|_| {
        backend.data_sent(1);
        (0..2).all(|_| backend.charge(Charge::WindowUpdate, start) == Verdict::Fine)
    }));
}

/// A part of useful traffic, with what the peer adds to it.
#[derive(Clone, Copy, Debug)]
enum Useful {
    /// Content for the peer: it answers with window updates and a PING.
    Down { content: u32, updates: u32, ping: bool },
    /// Content from the peer, with an empty frame behind it.
    Up { content: u32, empty: bool },
    /// A request that is answered, with priorities and unknown frames, and one that is not: it is given up at once, or breaks the protocol.
    Request { priorities: u32, unknown: u32, reset: bool, fault: bool },
    /// A frame for a request that was answered.
    Late,
    /// Nothing for a while.
    Pause { ms: u64 },
}

fn useful() -> impl Strategy<Value = Useful> {
    prop_oneof![
        (SMALLEST_MESSAGE..20_000, 0u32..=2, any::<bool>()).prop_map(|(content, updates, ping)| {
            Useful::Down { content, updates: updates * (1 + content / 256), ping }
        }),
        (SMALLEST_MESSAGE..60, 0u32..=2, any::<bool>()).prop_map(|(content, updates, ping)| Useful::Down {
            content,
            updates,
            ping
        }),
        (SMALLEST_MESSAGE..60, any::<bool>()).prop_map(|(content, empty)| Useful::Up { content, empty }),
        (0u32..=8, 0u32..=2, any::<bool>(), any::<bool>()).prop_map(|(priorities, unknown, reset, fault)| {
            Useful::Request { priorities, unknown, reset, fault }
        }),
        Just(Useful::Late),
        (0u64..50).prop_map(|ms| Useful::Pause { ms }),
    ]
}

fn is_borne(ledger: &mut Ledger, part: Useful, now: Instant) -> bool {
    let times = |count: u32, charge: Charge, ledger: &mut Ledger| {
        (0..count).all(|_| ledger.charge(charge, now) == Verdict::Fine)
    };
    match part {
        Useful::Down { content, updates, ping } => {
            ledger.data_sent(content);
            times(updates, Charge::WindowUpdate, ledger) && times(u32::from(ping), Charge::Ping, ledger)
        }
        Useful::Up { content, empty } => {
            ledger.data_received(content, false, now) == Verdict::Fine
                && (!empty || ledger.data_received(0, false, now) == Verdict::Fine)
        }
        Useful::Request { priorities, unknown, reset, fault } => {
            ledger.request();
            times(priorities, Charge::Priority, ledger)
                && times(unknown, Charge::Unknown, ledger)
                && times(u32::from(fault), Charge::LocalReset, ledger)
                && (!reset || ledger.reset(Duration::ZERO, now) == Verdict::Fine)
        }
        Useful::Late => {
            ledger.request();
            times(1, Charge::Unwanted, ledger)
        }
        Useful::Pause { .. } => true,
    }
}

proptest! {
    /// However fast it comes, whatever it is mixed with.
    #[test]
    fn any_mix_of_useful_traffic_at_any_speed_is_borne(
        parts in prop::collection::vec(useful(), 1..30),
        repeats in 1usize..2_000,
        backend in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut ledger = if backend { Ledger::of_backend(100, start) } else { of_client(start) };
        let mut now = start;
        // What the settings of a connection are, changed as often as windows are doubled; and all streams given up at once.
        for _ in 0..12 {
            prop_assert_eq!(ledger.charge(Charge::Settings, now), Verdict::Fine);
        }
        for _ in 0..LIMITS.streams {
            prop_assert_eq!(ledger.reset(Duration::ZERO, now), Verdict::Fine);
        }
        for part in parts.iter().cycle().take(parts.len() * repeats.min(20_000 / parts.len())) {
            if let Useful::Pause { ms } = part {
                now += Duration::from_millis(*ms);
            }
            prop_assert!(is_borne(&mut ledger, *part, now), "{:?}, {:?}", part, ledger);
        }
    }

    /// No amount of good traffic before it makes a flood much longer, and no kind of flood goes on for ever.
    #[test]
    fn any_flood_without_useful_traffic_ends(
        before in prop::collection::vec(useful(), 0..200),
        kind in 0usize..KINDS,
        backend in any::<bool>(),
        excess in 2u32..50,
    ) {
        let start = Instant::now();
        let charge = BUDGETS[kind].charge;
        let mut ledger = if backend { Ledger::of_backend(100, start) } else { of_client(start) };
        for part in before {
            is_borne(&mut ledger, part, start);
        }
        let [(_, client), (_, server)] = both(charge, start);
        let room = if backend { server } else { client };
        // So much faster than what comes back with time.
        let step = Duration::from_nanos(1_000_000_000 / u64::from(room.refill * excess));
        let borne = (0..).take_while(|n| ledger.charge(charge, start + step * *n) == Verdict::Fine).count();
        let most = u64::from(SAVED + 2) * 2 * u64::from(room.burst.max(room.refill));
        prop_assert!(borne as u64 <= most, "{} of {:?}", borne, charge);
    }

    /// Nor does a flood that pays with what is cheap: frames of one byte in either direction, by windows of one byte.
    #[test]
    fn slivers_do_not_pay_for_a_flood(updates in 1u32..4, up in any::<bool>(), down in any::<bool>()) {
        let start = Instant::now();
        let mut ledger = of_client(start);
        let rounds = (0..1_000_000u32).take_while(|n| {
            // A million rounds a second.
            let now = start + Duration::from_micros(u64::from(*n));
            if down {
                ledger.data_sent(1);
            }
            (!up || ledger.data_received(1, false, now) == Verdict::Fine)
                && (0..updates).all(|_| ledger.charge(Charge::WindowUpdate, now) == Verdict::Fine)
        });
        prop_assert!(rounds.count() < 150_000);
    }
}
