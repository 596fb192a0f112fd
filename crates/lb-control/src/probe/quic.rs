//! Whether somebody speaks QUIC.
//!
//! A datagram of a version that nobody speaks, large enough to begin a connection: a server answers it with the versions that it does
//! speak (RFC 9000 §6.1). That costs it no state, needs no certificate, and holds for every version of QUIC there will be (RFC 8999 §6).

use std::rc::Rc;

use lb_core::health::ProbeOutcome;
use lb_io::WorkerIo;

use super::plan::Plan;
use super::udp;

/// The size that a client's first datagram has at least (RFC 9000 §14.1).
const DATAGRAM: usize = 1200;

/// Bytes of each connection ID that the probe chooses.
const ID: usize = 8;

/// A version of the form that is kept free for asking (RFC 9000 §15).
const NOBODYS_VERSION: u32 = 0x1a2a_3a4a;

/// Versions that an answer must have one of: QUIC 1 and 2.
const SPOKEN: [u32; 2] = [1, 0x6b33_43cf];

/// Asks until an answer comes. The caller bounds the time.
pub(super) async fn check(plan: &Plan, io: &Rc<WorkerIo>) -> Result<(), ProbeOutcome> {
    let (own, theirs) = {
        let mut rng = io.rng.borrow_mut();
        (rng.next_u64().to_be_bytes(), rng.next_u64().to_be_bytes())
    };
    match udp::ask(plan, &question(theirs, own), |answer| read(answer, theirs, own)).await? {
        true => Ok(()),
        false => Err(ProbeOutcome::Malformed),
    }
}

/// A long header (RFC 8999 §5.1) and what stands for a payload.
fn question(destination: [u8; ID], source: [u8; ID]) -> Vec<u8> {
    let mut datagram = vec![0xc0];
    datagram.extend_from_slice(&NOBODYS_VERSION.to_be_bytes());
    for id in [destination, source] {
        datagram.push(8);
        datagram.extend_from_slice(&id);
    }
    datagram.resize(DATAGRAM, 0);
    datagram
}

/// Whether a Version Negotiation packet (RFC 8999 §6) names a version that we know; `None` when the datagram is no answer to the question,
/// so that nobody who has not seen it can answer.
fn read(datagram: &[u8], destination: [u8; ID], source: [u8; ID]) -> Option<bool> {
    let (first, rest) = datagram.split_first()?;
    let rest = rest.strip_prefix(&[0; 4]).filter(|_| first & 0x80 != 0)?;
    let rest = rest.strip_prefix(&[8])?.strip_prefix(&source)?;
    let versions = rest.strip_prefix(&[8])?.strip_prefix(&destination)?;
    let mut versions = versions.chunks_exact(4).filter_map(|version| version.try_into().ok());
    Some(versions.any(|version| SPOKEN.contains(&u32::from_be_bytes(version))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; ID] = *b"ourselve";
    const THEIRS: [u8; ID] = *b"somebody";

    fn answer(versions: &[u32]) -> Vec<u8> {
        let mut datagram = vec![0x80, 0, 0, 0, 0, 8];
        datagram.extend_from_slice(&OWN);
        datagram.push(8);
        datagram.extend_from_slice(&THEIRS);
        versions.iter().for_each(|version| datagram.extend_from_slice(&version.to_be_bytes()));
        datagram
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        assert_eq!(read(&answer(&[0xff00_001d, 1]), THEIRS, OWN), Some(true));
        assert_eq!(read(&answer(&[0x6b33_43cf]), THEIRS, OWN), Some(true));
        assert_eq!(read(&answer(&[0xff00_001d]), THEIRS, OWN), Some(false));
        assert_eq!(read(&answer(&[]), THEIRS, OWN), Some(false));
        assert_eq!(read(&answer(&[1]), OWN, THEIRS), None, "identifiers the other way round");
        assert_eq!(read(&question(THEIRS, OWN), THEIRS, OWN), None, "an echo");
        let whole = answer(&[1]);
        for cut in 0..23 {
            assert_eq!(read(&whole[..cut], THEIRS, OWN), None, "{cut} bytes");
        }
        assert_eq!(question(THEIRS, OWN).len(), DATAGRAM);
    }
}
