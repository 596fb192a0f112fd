//! Any mix of useful traffic goes on at any speed.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A step of a client that is good, and of the exchanges behind its streams.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request begins, with priorities.
    Request {
        body: bool,
        priorities: u8,
    },
    /// One with a list of fields as long as is allowed, in a block of several frames, and with a body of the length that it announces.
    Whole {
        content: usize,
    },
    /// One is answered.
    Answer(usize),
    /// A message of a response; the client answers it with window updates and a PING.
    Down {
        of: usize,
        content: usize,
        updates: bool,
        ping: bool,
    },
    /// A message of an upload.
    Up {
        of: usize,
        content: usize,
        empty: bool,
    },
    /// A response ends, and its exchange with it.
    Finish(usize),
    /// The client gives a request up whose answer has begun.
    Cancel(usize),
    /// It gives up all that it has, answered or not.
    CancelAll,
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..STREAMS as usize;
    prop_oneof![
        4 => (any::<bool>(), 0u8..8).prop_map(|(body, priorities)| Step::Request { body, priorities }),
        1 => (0usize..9000).prop_map(|content| Step::Whole { content }),
        3 => at().prop_map(Step::Answer),
        6 => (at(), prop_oneof![5usize..60, 5usize..9000], any::<bool>(), any::<bool>())
            .prop_map(|(of, content, updates, ping)| Step::Down { of, content, updates, ping }),
        6 => (at(), prop_oneof![5usize..60, 5usize..9000], any::<bool>())
            .prop_map(|(of, content, empty)| Step::Up { of, content, empty }),
        2 => at().prop_map(Step::Finish),
        2 => at().prop_map(Step::Cancel),
        1 => (0u64..20).prop_map(Step::Pause),
    ]
}

/// A stream, as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u32,
    key: Key,
    uploads: bool,
    answered: bool,
}

fn take_step(rig: &mut Rig, open: &mut VecDeque<Open>, step: Step) -> Result<(), FrameError> {
    let at = |of: usize, open: &VecDeque<Open>| of.checked_rem(open.len());
    match step {
        Step::Request { body, priorities } => {
            if open.len() + 1 >= STREAMS as usize {
                return Ok(());
            }
            let (id, key) = rig.request(body)?;
            open.push_back(Open { id, key, uploads: body, answered: false });
            rig.feed(&frame(2, 0, id, &[0, 0, 0, 0, 1]).repeat(usize::from(priorities)))?;
        }
        Step::Whole { content } => {
            if open.len() + 1 >= STREAMS as usize {
                return Ok(());
            }
            let id = rig.next;
            rig.next += 2;
            let length = content.to_string();
            let fields = [field("host", "A"), field("content-length", &length), vec![0x90; 120]].concat();
            let mut frames = frame(1, 0, id, POST);
            for (at, part) in fields.chunks(40).enumerate() {
                let last = (at + 1) * 40 >= fields.len();
                frames.extend(frame(9, if last { 4 } else { 0 }, id, part));
            }
            rig.feed(&[frames, data(id, content, true)].concat())?;
            let (_, key) = *rig.keys.last().unwrap();
            rig.take(key);
            rig.answer(key);
            rig.mux.send_end(key);
            rig.mux.leave(key, ErrorCode::NO_ERROR);
        }
        Step::Answer(of) => {
            let Some(stream) = at(of, open).and_then(|at| open.get_mut(at)) else { return Ok(()) };
            stream.answered = true;
            rig.answer(stream.key);
        }
        Step::Down { of, content, updates, ping: asks } => {
            let Some(stream) = at(of, open).and_then(|at| open.get(at)).filter(|stream| stream.answered)
            else {
                return Ok(());
            };
            rig.mux.send_data(stream.key, &vec![1; content]);
            for (id, content) in rig.read() {
                if updates {
                    rig.feed(&[update(0, content), update(id, content)].concat())?;
                }
                if asks {
                    rig.feed(&ping())?;
                }
            }
        }
        Step::Up { of, content, empty } => {
            let Some(stream) = at(of, open).and_then(|at| open.get(at)).filter(|stream| stream.uploads)
            else {
                return Ok(());
            };
            let Open { id, key, .. } = *stream;
            rig.feed(&data(id, content, false))?;
            if empty {
                rig.feed(&data(id, 0, false))?;
            }
            rig.take(key);
        }
        Step::Finish(of) => {
            let Some(at) = at(of, open) else { return Ok(()) };
            let Some(stream) = open.remove(at) else { return Ok(()) };
            if !stream.answered {
                rig.answer(stream.key);
            }
            if stream.uploads {
                rig.feed(&data(stream.id, 0, true))?;
            }
            rig.mux.send_end(stream.key);
            rig.mux.leave(stream.key, ErrorCode::NO_ERROR);
        }
        Step::Cancel(of) => {
            let Some(at) = at(of, open).filter(|at| open.get(*at).is_some_and(|stream| stream.answered))
            else {
                return Ok(());
            };
            let Some(stream) = open.remove(at) else { return Ok(()) };
            rig.feed(&reset(stream.id))?;
            rig.mux.leave(stream.key, ErrorCode::CANCEL);
        }
        Step::CancelAll => {
            for stream in open.drain(..) {
                rig.feed(&reset(stream.id))?;
                rig.mux.leave(stream.key, ErrorCode::CANCEL);
            }
        }
        Step::Pause(ms) => rig.now += std::time::Duration::from_millis(ms),
    }
    rig.read();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a client does with what it asked for, and however fast: it is served.
    #[test]
    fn a_client_that_does_something_useful_is_never_ended(
        steps in prop::collection::vec(step(), 5..40),
        repeats in 1usize..60,
    ) {
        let mut rig = Rig::new(Role::Server);
        let mut open = VecDeque::new();
        for step in steps.iter().cycle().take(steps.len() * repeats) {
            let done = take_step(&mut rig, &mut open, *step);
            prop_assert!(done.is_ok(), "{:?}: {:?}", step, done);
        }
        let all = take_step(&mut rig, &mut open, Step::CancelAll);
        prop_assert!(all.is_ok(), "{:?}", all);
        prop_assert!(rig.mux.goaway_sent.is_none() && rig.mux.streams.is_empty());
    }
}
