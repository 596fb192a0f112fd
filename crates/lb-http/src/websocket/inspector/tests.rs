use proptest::prelude::*;

use super::*;

const LIMITS: MessageLimits = MessageLimits {
    max_message_size_bytes: 1000,
    ping_rate_limit_per_window: 3,
    ping_rate_limit_window: Duration::from_secs(10),
    read_frame_timeout: Duration::from_secs(30),
};

/// A frame as its sender writes it: lengths in their shortest form, a mask from clients.
fn frame(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = if role == Role::FromClient { MASK } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(mask | length as u8),
        length @ 126..65536 => {
            out.push(mask | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(mask | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    if mask != 0 {
        out.extend([0; 4]);
    }
    out.extend(payload);
    out
}

fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(Role::FromClient, first, payload)
}

fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(Role::FromServer, first, payload)
}

/// Inspects `bytes` in pieces of `step`; the whole, or the violation with `passable` counted over all of them.
fn run(role: Role, limits: MessageLimits, bytes: &[u8], step: usize) -> Result<Inspector, Violation> {
    run_at(Instant::now(), role, limits, bytes, step)
}

fn run_at(
    now: Instant,
    role: Role,
    limits: MessageLimits,
    bytes: &[u8],
    step: usize,
) -> Result<Inspector, Violation> {
    let mut inspector = Inspector::new(role, limits);
    let mut before = 0;
    for piece in bytes.chunks(step) {
        inspector
            .inspect(piece, now)
            .map_err(|violation| Violation { passable: before + violation.passable, ..violation })?;
        before += piece.len();
    }
    Ok(inspector)
}

fn verdict(role: Role, bytes: &[u8]) -> Option<ViolationKind> {
    run(role, LIMITS, bytes, 1 << 20).err().map(|violation| violation.kind)
}

#[test]
fn sound_frames_of_all_lengths_pass() {
    let large = MessageLimits { max_message_size_bytes: 1 << 20, ..LIMITS };
    for length in [0, 1, 125, 126, 127, 65535, 65536, 100_000] {
        let payload = vec![7; length];
        for role in [Role::FromClient, Role::FromServer] {
            for step in [1, 2, 5, 1 << 20] {
                let whole = frame(role, 0x82, &payload);
                let inspector = run(role, large, &whole, step).unwrap();
                assert!(inspector.at_boundary() && !inspector.in_message, "{length}");
                let inspector = run(role, large, &whole[..whole.len() - 1], step).unwrap();
                assert!(!inspector.at_boundary(), "{length}");
            }
        }
    }
    // Reserved bits and opcodes, text that is no text, and a length longer written than needed are not ours to judge.
    for bytes in [server(0xc1, b"deflated"), server(0x83, b"?"), server(0x8b, b"?"), server(0x81, b"\xff")] {
        assert_eq!(verdict(Role::FromServer, &bytes), None);
    }
    assert_eq!(verdict(Role::FromServer, &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 9]), None);
}

#[test]
fn c_13_frames_that_break_the_framing_are_refused() {
    use ViolationKind::{FragmentedControl, Length, LongControl, Mask, MessageTooBig};
    let huge = |mask: u8, length: u64| [&[0x82, mask | 127][..], &length.to_be_bytes()].concat();
    for (role, bytes, kind) in [
        (Role::FromClient, server(0x81, b"hi"), Mask),
        (Role::FromServer, client(0x81, b"hi"), Mask),
        (Role::FromClient, client(0x09, b""), FragmentedControl),
        (Role::FromServer, server(0x08, b""), FragmentedControl),
        (Role::FromServer, server(0x89, &[0; 126]), LongControl),
        (Role::FromClient, client(0x88, &[0; 70_000]), LongControl),
        (Role::FromServer, huge(0, 1 << 63), Length),
        (Role::FromClient, huge(0x80, u64::MAX), Length),
        (Role::FromClient, huge(0x80, (1 << 63) - 1), MessageTooBig),
        (Role::FromServer, huge(0, 1001), MessageTooBig),
    ] {
        assert_eq!(verdict(role, &bytes), Some(kind), "{role:?} {:02x?}", &bytes[..2]);
    }
}

#[test]
fn fragments_are_one_message_for_its_size() {
    let fragments = |sizes: &[usize]| -> Vec<u8> {
        let last = sizes.len() - 1;
        let one = |(at, size): (usize, &usize)| {
            let first = if at == 0 { 0x02 } else { 0x00 } | if at == last { FIN } else { 0 };
            [client(first, &vec![0; *size]), client(0x8a, b"between")].concat()
        };
        sizes.iter().enumerate().flat_map(one).collect()
    };
    let fits = run(Role::FromClient, LIMITS, &fragments(&[400, 0, 600]).repeat(3), 7).unwrap();
    assert!(fits.at_boundary() && !fits.in_message);
    let violation = run(Role::FromClient, LIMITS, &fragments(&[400, 600, 1]), 1 << 20).unwrap_err();
    assert_eq!(violation.kind, ViolationKind::MessageTooBig);
    assert!(violation.may_close, "a control frame may stand between two fragments");
    // Neither a new beginning nor a continuation out of place resets the count.
    for first in [0x02, 0x00] {
        let bytes = [client(first, &[0; 600]), client(0x02, &[0; 600])].concat();
        assert_eq!(verdict(Role::FromClient, &bytes), Some(ViolationKind::MessageTooBig));
    }
    // A size that could wrap around does not.
    let all = MessageLimits { max_message_size_bytes: u64::MAX - 1, ..LIMITS };
    let huge = [&[0x82, 127][..], &(u64::MAX >> 1).to_be_bytes()].concat();
    assert!(run(Role::FromServer, all, &huge, 1).is_ok());
}

#[test]
fn pings_are_counted_in_windows_and_only_from_the_client() {
    let now = Instant::now();
    let ping = client(0x89, b"are you there");
    let mut inspector = Inspector::new(Role::FromClient, LIMITS);
    for at in [0, 9, 9, 10, 19, 19] {
        inspector.inspect(&ping, now + Duration::from_secs(at)).unwrap();
    }
    // A message makes up for one.
    let bytes = [client(0x81, b"text"), ping.clone(), ping.clone()].concat();
    let violation = inspector.inspect(&bytes, now + Duration::from_secs(19)).unwrap_err();
    assert_eq!(
        (violation.kind, violation.passable, violation.may_close),
        (ViolationKind::PingFlood, 29, true)
    );
    let close = violation.kind.close();
    assert_eq!((close.code, close.reason), (1008, "ping flood: rate limit exceeded"));
    let busy = [client(0x81, b"text"), ping.clone()].concat().repeat(10_000);
    assert_eq!(verdict(Role::FromClient, &busy), None, "a ping after each message");
    let fragments = [client(0x01, b"te"), ping].concat().repeat(10);
    assert!(verdict(Role::FromClient, &fragments).is_some(), "a part of a message is none");
    assert_eq!(verdict(Role::FromServer, &server(0x89, b"").repeat(100)), None);
    assert_eq!(verdict(Role::FromClient, &client(0x8a, b"").repeat(100)), None, "pongs are not pings");
}

#[test]
fn a_frame_has_a_deadline_from_its_first_byte() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut inspector = Inspector::new(Role::FromServer, LIMITS);
    assert_eq!(inspector.deadline(), None);
    inspector.inspect(&[0x82], now).unwrap();
    inspector.inspect(&[2, 1], at(20)).unwrap();
    assert_eq!(inspector.deadline(), Some(at(30)));
    assert!(!inspector.may_close());
    inspector.extend_deadline(Duration::from_secs(5));
    assert_eq!(inspector.deadline(), Some(at(35)));
    inspector.inspect(&[1], at(34)).unwrap();
    assert_eq!(inspector.deadline(), None);
    // Silence between frames, even of one message, is the idle clock's business.
    inspector.inspect(&server(0x02, b"fragment"), at(35)).unwrap();
    assert_eq!((inspector.deadline(), inspector.in_message), (None, true));
}

#[test]
fn a_close_frame_of_ours_follows_whole_frames_only_and_never_a_close() {
    let now = Instant::now();
    let mut inspector = Inspector::new(Role::FromServer, LIMITS);
    let whole = server(0x81, b"whole");
    let bad = server(0x09, b"");
    let violation = inspector.clone().inspect(&[whole.clone(), bad.clone()].concat(), now).unwrap_err();
    assert_eq!((violation.passable, violation.may_close), (whole.len(), true));
    // The first byte of the bad frame has gone out already: nothing can stand behind it.
    inspector.inspect(&[0x82], now).unwrap();
    let violation = inspector.clone().inspect(&[0x80], now).unwrap_err();
    assert_eq!((violation.passable, violation.may_close), (0, false));
    inspector.inspect(&[0], now).unwrap();
    inspector.inspect(&server(0x88, b"\x03\xe8")[..3], now).unwrap();
    assert!(!inspector.closed);
    inspector.inspect(b"\xe8", now).unwrap();
    assert!(inspector.closed && inspector.at_boundary() && !inspector.may_close());
    assert!(!inspector.inspect(&bad, now).unwrap_err().may_close);
}

/// Mostly sound frames, with enough that is not.
fn stream(role: Role) -> impl Strategy<Value = Vec<u8>> {
    let first =
        prop_oneof![Just(0x82u8), Just(0x02), Just(0x00), Just(0x80), Just(0x89), Just(0x88), any::<u8>()];
    let length = prop_oneof![0usize..10, 120usize..130, 0usize..700];
    let one = (first, length).prop_map(move |(first, length)| frame(role, first, &vec![0; length]));
    let raw = proptest::collection::vec(any::<u8>(), 0..20);
    let piece = prop_oneof![8 => one, 1 => raw];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_verdict_at_the_same_byte(
        bytes in prop_oneof![stream(Role::FromClient), stream(Role::FromServer)],
        from_client: bool,
        cuts in proptest::collection::vec(1usize..40, 1..40),
    ) {
        let role = if from_client { Role::FromClient } else { Role::FromServer };
        let now = Instant::now();
        let whole = run_at(now, role, LIMITS, &bytes, bytes.len().max(1));
        let mut inspector = Inspector::new(role, LIMITS);
        let (mut rest, mut outcome) = (&bytes[..], None);
        let mut sizes = cuts.iter().copied().cycle();
        while !rest.is_empty() && outcome.is_none() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            outcome = inspector.inspect(piece, now).err();
            rest = after;
        }
        match (whole, outcome) {
            (Ok(end), None) => prop_assert_eq!(end, inspector),
            (Err(whole), Some(cut)) => {
                prop_assert_eq!((whole.kind, whole.position), (cut.kind, cut.position));
                // A close frame is allowed after a cut only if it is allowed without one.
                prop_assert!(whole.may_close || !cut.may_close);
            }
            (whole, cut) => prop_assert!(false, "{whole:?} without cuts, {cut:?} with"),
        }
    }
}
