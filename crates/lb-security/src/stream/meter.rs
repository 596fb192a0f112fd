//! Counts records as they arrive, before anything else looks at them.
//!
//! The engine counts the records that held data; the rest are handshake messages, alerts and empty records, which cost work and carry
//! nothing. A connection may have some of them, not endlessly many (attack T-04).

use crate::failure::TlsFailure;

/// Bytes before the body of a record: type, version, length (RFC 8446 §5.1).
const HEADER: usize = 5;

/// The longest body of a record: 2^14 bytes of data, and 2048 more in TLS 1.2 (RFC 5246 §6.2.3).
pub(super) const MAX_BODY: usize = 16_384 + 2048;

/// Bytes that a client may send before it has an answer (attack T-01). Larger than any hello with post-quantum shares, GREASE
/// and padding.
pub(super) const MAX_HELLO_BYTES: usize = 64 * 1024;

/// Bytes that a peer may send in a whole handshake, certificates included.
pub(super) const MAX_HANDSHAKE_BYTES: usize = 192 * 1024;

/// Records in a row that may bring no data once the handshake is over.
const MAX_IDLE_RECORDS: u32 = 32;

/// Records of a whole connection that may bring no data, beyond one for each [`DATA_PER_IDLE`] that do.
const MAX_IDLE_TOTAL: u64 = 1024;

const DATA_PER_IDLE: u64 = 16;

/// Where in a record the stream of bytes stands.
#[derive(Debug, Default)]
pub(super) struct RecordMeter {
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    header_bytes: usize,
    /// Bytes of the body that are still to come.
    missing: usize,
    in_a_row: u32,
    idle: u64,
    data: u64,
}

impl RecordMeter {
    /// Takes note of bytes that have arrived; returns how many records they complete.
    ///
    /// # Errors
    /// [`TlsFailure::NotTls`] when a record begins with what begins no record, or is longer than any.
    pub(super) fn arrived(&mut self, mut bytes: &[u8]) -> Result<u32, TlsFailure> {
        let mut complete = 0u32;
        while let Some((first, rest)) = bytes.split_first() {
            if self.missing > 0 {
                let n = self.missing.min(bytes.len());
                self.missing = self.missing.saturating_sub(n);
                bytes = bytes.get(n..).unwrap_or(&[]);
                complete = complete.saturating_add(u32::from(self.missing == 0));
                continue;
            }
            if let Some(byte) = self.header.get_mut(self.header_bytes) {
                *byte = *first;
            }
            self.header_bytes = self.header_bytes.saturating_add(1);
            bytes = rest;
            let [kind, major, _, high, low] = self.header;
            // change_cipher_spec, alert, handshake, application_data; versions are all 3.x.
            if !(20..=23).contains(&kind) || self.header_bytes > 1 && major != 3 {
                return Err(TlsFailure::NotTls);
            }
            if self.header_bytes == HEADER {
                self.header_bytes = 0;
                self.missing = usize::from(u16::from_be_bytes([high, low]));
                if self.missing > MAX_BODY {
                    return Err(TlsFailure::NotTls);
                }
                complete = complete.saturating_add(u32::from(self.missing == 0));
            }
        }
        Ok(complete)
    }

    /// Charges records of an established connection, of which `with_data` brought data.
    ///
    /// # Errors
    /// [`TlsFailure::Flood`].
    pub(super) fn charge(&mut self, records: u32, with_data: u32) -> Result<(), TlsFailure> {
        let idle = records.saturating_sub(with_data);
        self.in_a_row = if with_data > 0 { idle } else { self.in_a_row.saturating_add(idle) };
        self.idle = self.idle.saturating_add(u64::from(idle));
        self.data = self.data.saturating_add(u64::from(with_data));
        let allowed = MAX_IDLE_TOTAL.saturating_add(self.data / DATA_PER_IDLE);
        // The order of what arrived together with data is unknown; it counts in full.
        if self.in_a_row > MAX_IDLE_RECORDS.saturating_add(with_data) || self.idle > allowed {
            return Err(TlsFailure::Flood);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, body: usize) -> Vec<u8> {
        let length = u16::try_from(body).unwrap().to_be_bytes();
        [&[kind, 3, 3, length[0], length[1]], vec![0; body].as_slice()].concat()
    }

    proptest! {
        #[test]
        fn records_are_counted_however_they_are_cut(bodies in proptest::collection::vec(0usize..300, 1..20), step in 1usize..40) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| record(23, *body)).collect();
            let mut meter = RecordMeter::default();
            let mut complete = 0;
            for part in bytes.chunks(step) {
                complete += meter.arrived(part).unwrap();
            }
            prop_assert_eq!(complete as usize, bodies.len());
        }
    }

    #[test]
    fn t_05_what_is_not_tls_is_known_by_its_first_bytes() {
        for garbage in
            [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0", b"\x16\x02", b"\x80\x2e\x01", b"\x17\x03\x03\xff\xff"]
        {
            assert_eq!(RecordMeter::default().arrived(garbage), Err(TlsFailure::NotTls), "{garbage:?}");
        }
    }

    #[test]
    fn t_04_records_without_data_are_bounded_in_a_row_and_in_all() {
        let mut meter = RecordMeter::default();
        (0..32).for_each(|_| meter.charge(1, 0).unwrap());
        assert_eq!(meter.charge(1, 0), Err(TlsFailure::Flood));
        let mut meter = RecordMeter::default();
        let rounds = (0..10_000).take_while(|_| meter.charge(2, 1).is_ok()).count();
        assert!((1024..1200).contains(&rounds), "{rounds}");
        let mut meter = RecordMeter::default();
        (0..100_000).for_each(|_| meter.charge(4, 4).unwrap());
    }
}
