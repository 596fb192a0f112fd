use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> EjectionSettings {
    EjectionSettings { base: 30 * SECOND, max: 300 * SECOND, max_percent: 50, probation: 30 * SECOND }
}

/// Ejects at `now`, takes back when the time is over, and says how long it took and when that is.
fn cycle(ejector: &mut Ejector, at: usize, now: Instant) -> (Duration, Instant) {
    let until = ejector.eject(at, now, |_| true).unwrap();
    let mut back = Vec::new();
    ejector.expire(until - Duration::from_nanos(1), |at| back.push(at));
    assert_eq!(back, [0; 0], "not before its time");
    assert_eq!(ejector.standing(at, now), EjectionStanding::Out { until });
    ejector.expire(until, |at| back.push(at));
    assert_eq!(back, [at]);
    (until - now, until)
}

#[test]
fn each_ejection_in_succession_lasts_twice_as_long_up_to_the_most() {
    let mut ejector = Ejector::new(settings(), 4, 1);
    let mut now = Instant::now();
    for full in [30, 60, 120, 240, 300, 300, 300] {
        let (lasted, until) = cycle(&mut ejector, 2, now);
        assert!((SECOND * full * 9 / 10..=SECOND * full).contains(&lasted), "{lasted:?} of {full} s");
        // It fires again in the last moment of probation.
        assert_eq!(ejector.standing(2, until), EjectionStanding::Probation);
        now = until + 30 * SECOND - Duration::from_nanos(1);
        assert_eq!(ejector.standing(2, now), EjectionStanding::Probation);
    }
    assert_eq!(ejector.standing(2, now + Duration::from_nanos(1)), EjectionStanding::In);
    assert_eq!((ejector.ejections(2), ejector.ejections(0), ejector.out()), (7, 0, 0));
}

#[test]
fn quiet_periods_make_up_for_ejections_one_by_one() {
    for (quiet_periods, full) in [(0, 240), (1, 120), (2, 60), (3, 30), (9, 30)] {
        let mut ejector = Ejector::new(settings(), 2, 1);
        let mut now = Instant::now();
        for _ in 0..3 {
            now = cycle(&mut ejector, 0, now).1;
        }
        now += SECOND * 30 * quiet_periods;
        let (lasted, _) = cycle(&mut ejector, 0, now);
        assert!((SECOND * full * 9 / 10..=SECOND * full).contains(&lasted), "{quiet_periods}: {lasted:?}");
    }
}

#[test]
fn so_many_and_never_the_last_are_out() {
    let now = Instant::now();
    for (members, percent, most) in [
        (1, 100, 0),
        (2, 1, 1),
        (2, 100, 1),
        (3, 50, 1),
        (4, 50, 2),
        (10, 30, 3),
        (10, 100, 9),
        (5, 0, 0),
        (0, 50, 0),
    ] {
        let settings = EjectionSettings { max_percent: percent, ..settings() };
        let mut ejector = Ejector::new(settings, members, 7);
        let ejected = (0..members).filter(|at| ejector.eject(*at, now, |_| true).is_ok()).count();
        assert_eq!((ejected, ejector.out()), (most, most), "{members} members, {percent} %");
    }
    let mut ejector = Ejector::new(settings(), 4, 7);
    assert_eq!(ejector.eject(0, now, |at| at == 0), Err(Refused::Last), "the others are unhealthy");
    assert!(ejector.eject(0, now, |at| at == 1).is_ok());
    assert_eq!(ejector.eject(1, now, |at| at < 2), Err(Refused::Last), "who is out cannot take load");
    assert_eq!(ejector.eject(0, now, |_| true), Err(Refused::AlreadyOut));
    assert!(ejector.eject(1, now, |_| true).is_ok());
    assert_eq!(ejector.eject(2, now, |_| true), Err(Refused::TooMany));
    assert_eq!(ejector.eject(4, now, |_| true), Err(Refused::Unknown));
    // Room again once somebody is back.
    let first = ejector.next_return().unwrap();
    ejector.expire(first, |_| ());
    assert!(ejector.eject(2, first, |_| true).is_ok());
}

#[test]
fn members_ejected_together_do_not_return_together() {
    let now = Instant::now();
    let mut ejector = Ejector::new(settings(), 200, 11);
    let mut untils: Vec<_> = (0..100).map(|at| ejector.eject(at, now, |_| true).unwrap()).collect();
    untils.sort();
    untils.dedup();
    assert_eq!(untils.len(), 100);
    assert!(*untils.last().unwrap() - untils[0] > 2 * SECOND, "spread over a tenth of 30 s");
}

#[test]
fn a_change_of_the_set_keeps_ejections_as_far_as_the_new_set_bears_them() {
    let now = Instant::now();
    let mut ejector = Ejector::new(settings(), 8, 3);
    let untils: Vec<_> = (0..4).map(|at| ejector.eject(at, now, |_| true).unwrap()).collect();
    // Two that are in service leave, and one comes; the order turns round.
    let from = [None, Some(5), Some(4), Some(3), Some(2), Some(1), Some(0)];
    let mut back = Vec::new();
    ejector.rebuild(settings(), &from, now, |at| back.push(at));
    let earliest = (0..4).min_by_key(|at| untils[*at]).unwrap();
    assert_eq!((back.as_slice(), ejector.out()), ([6 - earliest].as_slice(), 3));
    for (old, until) in untils.iter().enumerate().filter(|(old, _)| *old != earliest) {
        assert_eq!(ejector.standing(6 - old, now), EjectionStanding::Out { until: *until });
        assert_eq!(ejector.ejections(6 - old), 1);
    }
    assert_eq!(ejector.standing(6 - earliest, now), EjectionStanding::Probation);
    // With one member left, it is in service.
    ejector.rebuild(settings(), &[Some(3)], now, |_| ());
    assert_eq!((ejector.out(), ejector.returned(0)), (0, Some(now)));
}

#[test]
fn settings_beyond_reason_do_not_overflow() {
    let now = Instant::now();
    let endless = EjectionSettings { base: Duration::MAX, max: SECOND, max_percent: u32::MAX, ..settings() };
    let mut ejector = Ejector::new(endless, 2, 1);
    assert!(ejector.eject(0, now, |_| true).unwrap() > now + YEAR / 2);
    let none = EjectionSettings { base: Duration::ZERO, probation: Duration::ZERO, ..settings() };
    let mut ejector = Ejector::new(none, 2, 1);
    for _ in 0..100 {
        assert_eq!(cycle(&mut ejector, 0, now).0, Duration::ZERO);
    }
}
