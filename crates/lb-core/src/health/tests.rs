use super::*;

/// Runs a probe at once and ends it.
fn probe(target: &mut Target, outcome: ProbeOutcome) -> Option<HealthChange> {
    let now = target.due().unwrap();
    assert!(target.begin(now));
    target.end(outcome, now)
}

fn target(rise: u32, fall: u32) -> Target {
    Target::new(ProbeSettings { rise, fall, ..ProbeSettings::default() }, Instant::now(), 1)
}

#[test]
fn unknown_is_usable_and_the_first_probe_decides_either_way() {
    let mut good = target(5, 5);
    assert_eq!(good.state(), HealthState::Unknown);
    assert!(good.state().is_usable());
    let change = probe(&mut good, ProbeOutcome::Passed);
    assert_eq!(
        change,
        Some(HealthChange {
            from: HealthState::Unknown,
            to: HealthState::Healthy,
            why: ProbeOutcome::Passed
        })
    );
    assert_eq!(good.healthy_since(), None, "a first verdict is no return");
    let mut bad = target(5, 5);
    let change = probe(&mut bad, ProbeOutcome::Status(503)).unwrap();
    assert_eq!((change.to, change.why), (HealthState::Unhealthy, ProbeOutcome::Status(503)));
    assert!(!bad.state().is_usable());
}

#[test]
fn who_was_not_asked_has_said_nothing() {
    let mut target = target(1, 1);
    probe(&mut target, ProbeOutcome::Passed);
    let before = target.counts();
    assert_eq!(probe(&mut target, ProbeOutcome::NotAsked), None);
    assert_eq!(
        (target.state(), target.last(), target.counts()),
        (HealthState::Healthy, Some(ProbeOutcome::Passed), before)
    );
    assert!(target.due().is_some(), "it is asked again at its time");
}

#[test]
fn who_refuses_is_there_until_it_falls_silent() {
    let mut target = target(1, 2);
    probe(&mut target, ProbeOutcome::Passed);
    assert!(!target.refuses(), "it is healthy");
    probe(&mut target, ProbeOutcome::Status(503));
    assert!(!target.refuses(), "one answer decides nothing");
    probe(&mut target, ProbeOutcome::Status(503));
    assert!(target.refuses());
    // One probe that is lost is none of its silence.
    for outcome in [ProbeOutcome::Timeout, ProbeOutcome::NotServing, ProbeOutcome::Connect] {
        probe(&mut target, outcome);
        assert!(target.refuses(), "{outcome:?}");
    }
    probe(&mut target, ProbeOutcome::Connect);
    assert!(!target.refuses());
    probe(&mut target, ProbeOutcome::Body);
    assert!(target.refuses(), "it is back, and wants nothing yet");
    probe(&mut target, ProbeOutcome::Passed);
    assert!(!target.refuses());
    // Who has not answered is not there.
    probe(&mut target, ProbeOutcome::Status(503));
    probe(&mut target, ProbeOutcome::Connect);
    assert_eq!((target.state(), target.refuses()), (HealthState::Unhealthy, false));
}

#[test]
fn rise_and_fall_count_in_a_row() {
    let mut target = target(2, 3);
    probe(&mut target, ProbeOutcome::Passed);
    for outcome in [
        ProbeOutcome::Timeout,
        ProbeOutcome::Connect,
        ProbeOutcome::Passed,
        ProbeOutcome::Body,
        ProbeOutcome::Closed,
    ] {
        assert_eq!(probe(&mut target, outcome), None);
    }
    assert_eq!(probe(&mut target, ProbeOutcome::NotServing).unwrap().to, HealthState::Unhealthy);
    assert_eq!(probe(&mut target, ProbeOutcome::Passed), None);
    assert_eq!(probe(&mut target, ProbeOutcome::Passed).unwrap().to, HealthState::Healthy);
    assert_eq!(target.healthy_since(), Some(target.since()));
    assert_eq!(target.counts(), ProbeCounts { probes: 9, failures: 5, changes: 3 });
}

#[test]
fn c_04_flapping_cannot_multiply_changes() {
    for (rise, fall) in [(1, 1), (2, 3), (3, 2), (5, 5), (0, 0)] {
        for seed in 0..64 {
            let mut target = target(rise, fall);
            let mut rng = SplitMix64::new(seed);
            let mut changes = 0;
            for n in 1..=400 {
                let outcome = if rng.below(2) == 0 { ProbeOutcome::Passed } else { ProbeOutcome::Timeout };
                changes += u32::from(probe(&mut target, outcome).is_some());
                assert!(
                    changes <= 1 + n / rise.min(fall).max(1),
                    "seed {seed}, {n} probes, {changes} changes"
                );
            }
            assert!(changes > 1, "seed {seed}: nothing ever changed");
        }
    }
    // Strict alternation changes nothing after the first verdict.
    let mut target = target(2, 2);
    let changes = (0..1000)
        .filter(|n| {
            probe(&mut target, if n % 2 == 0 { ProbeOutcome::Passed } else { ProbeOutcome::Connect })
                .is_some()
        })
        .count();
    assert_eq!(changes, 1);
}

#[test]
fn distances_keep_to_the_jitter_average_the_interval_and_differ_between_targets() {
    let start = Instant::now();
    let settings =
        ProbeSettings { interval: Duration::from_secs(5), jitter_percent: 10, ..ProbeSettings::default() };
    let starts = |seed| {
        let mut target = Target::new(settings, start, seed);
        (0..1000)
            .map(|_| {
                let due = target.due().unwrap();
                probe(&mut target, ProbeOutcome::Passed);
                due - start
            })
            .collect::<Vec<_>>()
    };
    let first = starts(1);
    assert!(first[0] <= Duration::from_millis(500));
    for pair in first.windows(2) {
        let distance = pair[1] - pair[0];
        assert!(
            (Duration::from_millis(4500)..=Duration::from_millis(5500)).contains(&distance),
            "{distance:?}"
        );
    }
    let mean = (first[999] - first[0]) / 999;
    assert!((Duration::from_millis(4950)..Duration::from_millis(5050)).contains(&mean), "{mean:?}");
    assert!(first.iter().zip(starts(2)).all(|(one, other)| *one != other));
}

#[test]
fn c_04_a_tar_pit_has_one_probe_at_a_time_and_no_backlog() {
    let start = Instant::now();
    let settings = ProbeSettings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(3),
        ..ProbeSettings::default()
    };
    let mut target = Target::new(settings, start, 3);
    let began = target.due().unwrap();
    assert!(!target.begin(began - Duration::from_millis(1)), "not due yet");
    assert!(target.begin(began));
    assert_eq!((target.due(), target.begin(began + Duration::from_secs(60))), (None, false));
    let deadline = target.deadline().unwrap();
    assert_eq!(deadline, began + Duration::from_secs(3));
    assert!(target.end(ProbeOutcome::Timeout, deadline).is_some());
    assert_eq!(
        target.end(ProbeOutcome::Passed, deadline),
        None,
        "an answer after the end counts for nothing"
    );
    assert_eq!((target.state(), target.deadline()), (HealthState::Unhealthy, None));
    // The next one at once, not the two that were missed.
    assert_eq!(target.due(), Some(deadline));
    assert!(target.begin(deadline));
    target.end(ProbeOutcome::Passed, deadline);
    assert!(target.due().unwrap() >= deadline + Duration::from_millis(900));
}

#[test]
fn settings_beyond_their_bounds_neither_flood_nor_overflow() {
    let start = Instant::now();
    let wild =
        ProbeSettings { interval: Duration::ZERO, jitter_percent: u32::MAX, ..ProbeSettings::default() };
    let mut target = Target::new(wild, start, 9);
    let mut last = target.due().unwrap();
    for _ in 0..100 {
        probe(&mut target, ProbeOutcome::Passed);
        let due = target.due().unwrap();
        assert!(due - last >= MIN_INTERVAL / 2);
        last = due;
    }
    let endless = ProbeSettings { interval: Duration::MAX, timeout: Duration::MAX, ..wild };
    target.reconfigure(endless, last);
    assert!(target.begin(last));
    target.end(ProbeOutcome::Timeout, last);
    // From an hour to ten seconds: the change is felt within the new interval, and what is known stays.
    let slow = ProbeSettings { interval: Duration::from_secs(3600), ..ProbeSettings::default() };
    let mut target = Target::new(slow, start, 4);
    probe(&mut target, ProbeOutcome::Connect);
    let now = target.since();
    target.reconfigure(ProbeSettings { interval: Duration::from_secs(10), ..slow }, now);
    assert!(target.due().unwrap() <= now + Duration::from_secs(11));
    assert_eq!(target.state(), HealthState::Unhealthy);
}
