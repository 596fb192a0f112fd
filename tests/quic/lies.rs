//! Clients that break QUIC itself, below HTTP/3 (attacks ): each ends its own connection, with the code of RFC 9000, and
//! nobody else's.

use crate::rig::Rig;
use testkit::peers::scenario;

const FLOW_CONTROL_ERROR: u64 = 0x3;
const STREAM_LIMIT_ERROR: u64 = 0x4;
const FINAL_SIZE_ERROR: u64 = 0x6;
const FRAME_ENCODING_ERROR: u64 = 0x7;
const CONNECTION_ID_LIMIT_ERROR: u64 = 0x9;
const PROTOCOL_VIOLATION: u64 = 0xa;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0xd;

#[track_caller]
fn assert_ends(rig: &Rig, lies: &[(&str, Option<u64>)]) {
    for (lie, code) in lies {
        let saw = scenario("quic_liar.py", rig.gateway.front(), lie, &[]);
        assert_eq!(saw["closed"].as_u64(), *code, "{lie}: {saw}");
        rig.assert_serves(lie);
    }
}

pub(crate) fn q_03_handshake_data_with_gaps_end_the_connection() {
    assert_ends(&Rig::standard(), &[("crypto_gap", Some(CRYPTO_BUFFER_EXCEEDED))]);
}

pub(crate) fn q_04_ids_that_retire_each_other_end_the_connection() {
    assert_ends(&Rig::standard(), &[("retire", Some(CONNECTION_ID_LIMIT_ERROR))]);
}

pub(crate) fn q_06_what_was_not_sent_cannot_be_acknowledged() {
    assert_ends(&Rig::standard(), &[("ack_unsent", Some(PROTOCOL_VIOLATION))]);
}

pub(crate) fn q_07_windows_and_limits_hold() {
    let lies = [
        ("final_size", Some(FINAL_SIZE_ERROR)),
        ("past_window", Some(FLOW_CONTROL_ERROR)),
        ("past_limit", Some(STREAM_LIMIT_ERROR)),
        ("huge_limit", Some(FRAME_ENCODING_ERROR)),
        ("blocked", None),
    ];
    assert_ends(&Rig::standard(), &lies);
}

/// What a client sends whose acknowledgements were lost: nothing that is wrong. quiche has no use for the bytes, and does not say that the end is new.
pub(crate) fn an_end_that_comes_with_bytes_that_were_read_is_seen() {
    let rig = Rig::standard();
    let saw = scenario("quic_liar.py", rig.gateway.front(), "late_end", &[]);
    assert_eq!(saw["answered"].as_bool(), Some(true), "{saw}");
    let request = rig.origin.last_request();
    assert_eq!((request.method.as_str(), &request.body[..]), ("POST", &b"body"[..]));
}
