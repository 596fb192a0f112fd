//! Extensible priorities (RFC 9218): what the gateway sends first, seen by a client that lets answers wait until all have been asked for.

use serde_json::{Value, json};
use testkit::peers::scenario;

use crate::rig::Rig;

/// Bytes of the first answer, more than the client has room for.
const FIRST: u64 = 400_000;

/// Bytes of a first answer of which the gateway has the rest at hand when there is room: nothing else is sent while it would wait for more.
const HELD: u64 = 100_000;

/// Bytes of an answer that the gateway reads from its backend at once, so that nothing else is sent while it waits for the rest.
const SIZE: u64 = 40_000;

/// H3_ID_ERROR (RFC 9114 section 8.1).
const ID_ERROR: u64 = 0x108;

/// A GET of so many bytes.
fn ask(bytes: u64, priority: Option<&str>) -> Value {
    json!(["ask", format!("/bytes/{bytes}"), priority])
}

/// PRIORITY_UPDATE of the request with this number, from 0.
fn update(request: u64, priority: &str) -> Value {
    json!(["update", request, priority])
}

/// The requests in the order of their last bytes, and how often another one had its turn among those that came since there was room.
#[track_caller]
fn order(case: &str, steps: &[Value]) -> (Vec<u64>, usize) {
    let rig = Rig::standard();
    let steps = Value::from(steps.to_vec()).to_string();
    let saw = scenario("h3_client.py", rig.gateway.front(), "priorities", &["--steps", &steps]);
    assert!(saw["closed"].is_null(), "{case}: {saw}");
    let parts: Vec<u64> =
        saw["order"].as_array().unwrap().iter().map(|part| part[0].as_u64().unwrap()).collect();
    let mut last: Vec<u64> = Vec::new();
    for request in &parts {
        last.retain(|other| other != request);
        last.push(*request);
    }
    (last, parts.len())
}

pub(crate) fn an_urgent_response_overtakes() {
    // The first answer has begun, and waits with the others.
    for (case, steps, wanted) in [
        ("by its field", [ask(HELD, None), ask(SIZE, Some("u=0"))].to_vec(), vec![1, 0]),
        ("the field of the first", [ask(HELD, Some("u=6")), ask(SIZE, None)].to_vec(), vec![1, 0]),
        ("less urgent than the default", [ask(HELD, None), ask(SIZE, Some("u=4"))].to_vec(), vec![0, 1]),
        (
            "from most to least",
            [ask(HELD, Some("u=7")), ask(SIZE, Some("u=5")), ask(SIZE, None), ask(SIZE, Some("u=1, i"))]
                .to_vec(),
            vec![3, 2, 1, 0],
        ),
    ] {
        let (order, parts) = order(case, &steps);
        assert_eq!(order, wanted, "{case}");
        assert_eq!(parts, steps.len(), "{case}: one after the other");
    }
}

pub(crate) fn a_frame_changes_what_a_field_has_said() {
    for (case, steps, wanted) in [
        (
            "of a request that waits",
            [ask(FIRST, None), ask(SIZE, None), update(1, "u=0")].to_vec(),
            vec![1, 0],
        ),
        (
            "against its field",
            [ask(HELD, None), ask(SIZE, Some("u=1")), update(1, "u=5")].to_vec(),
            vec![0, 1],
        ),
        (
            "before its request",
            [ask(FIRST, None), update(1, "u=0"), ask(SIZE, Some("u=6"))].to_vec(),
            vec![1, 0],
        ),
        (
            "twice before its request",
            [ask(HELD, None), update(1, "u=0"), update(1, "u=6"), ask(SIZE, Some("u=0"))].to_vec(),
            vec![0, 1],
        ),
    ] {
        let (order, _) = order(case, &steps);
        assert_eq!(order, wanted, "{case}");
    }
    // A stream that the client cannot have.
    let rig = Rig::standard();
    let steps = json!([ask(FIRST, None), update(1 << 20, "u=0")]).to_string();
    let saw = scenario("h3_client.py", rig.gateway.front(), "priorities", &["--steps", &steps]);
    assert_eq!(saw["closed"].as_u64(), Some(ID_ERROR), "{saw}");
    rig.assert_serves("a priority of a stream beyond the limit");
}

pub(crate) fn incremental_responses_share_the_connection() {
    let asked = |priority| [ask(FIRST, priority), ask(FIRST, priority), ask(FIRST, priority)];
    let (_, shared) = order("incremental", &asked(Some("i")));
    // What is of use only as a whole comes as a whole, the first one asked for before the others (RFC 9218 section 10).
    for priority in [None, Some("u=3"), Some("i=?0")] {
        let (order, parts) = order("not incremental", &asked(priority));
        assert_eq!(order, [0, 1, 2], "{priority:?}");
        assert!(parts * 2 < shared, "{priority:?}: {parts} parts, and {shared} where they are shared");
    }
    // Less urgent ones share what the others leave.
    let mixed = [ask(HELD, Some("u=5, i")), ask(SIZE, Some("u=5, i")), ask(SIZE, Some("u=2, i"))];
    assert_eq!(order("two urgencies", &mixed).0[0], 2);
}
