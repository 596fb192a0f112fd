//! SETTINGS (RFC 9114 §7.2.4).

use super::code::{H3Code, H3Error};
use super::varint;

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const QPACK_BLOCKED_STREAMS: u64 = 0x7;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;

/// What an endpoint says of itself. The default is what holds without a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct H3Settings {
    /// Bytes that the dynamic table of its decoder may have (RFC 9204 §5).
    pub qpack_max_table_capacity: u64,
    /// Bytes of a decoded field section that it takes; `None` for any number.
    pub max_field_section_size: Option<u64>,
    /// Streams that may wait for its decoder (RFC 9204 §5).
    pub qpack_blocked_streams: u64,
    /// Whether the extended CONNECT is offered (RFC 9220).
    pub enable_connect_protocol: bool,
    /// Whether HTTP datagrams are taken (RFC 9297).
    pub datagram: bool,
}

impl H3Settings {
    /// Reads the payload of a SETTINGS frame. Unknown settings are ignored.
    ///
    /// # Errors
    /// When the payload ends inside a setting, a setting has an impossible value or comes twice, or was of HTTP/2 alone.
    pub(crate) fn parse(mut payload: &[u8]) -> Result<Self, H3Error> {
        let wrong = |what| Err(H3Error::connection(H3Code::SETTINGS_ERROR, what));
        let mut settings = Self::default();
        let mut seen = 0u64;
        while !payload.is_empty() {
            let Some((id, value)) = varint::take(&mut payload).zip(varint::take(&mut payload)) else {
                return Err(H3Error::connection(H3Code::FRAME_ERROR, "SETTINGS cut inside a setting"));
            };
            if id < 64 {
                let bit = 1 << id;
                if seen & bit != 0 {
                    return wrong("a setting twice");
                }
                seen |= bit;
            }
            let flag = || match value {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(H3Error::connection(H3Code::SETTINGS_ERROR, "a setting that is neither 0 nor 1")),
            };
            match id {
                QPACK_MAX_TABLE_CAPACITY => settings.qpack_max_table_capacity = value,
                MAX_FIELD_SECTION_SIZE => settings.max_field_section_size = Some(value),
                QPACK_BLOCKED_STREAMS => settings.qpack_blocked_streams = value,
                ENABLE_CONNECT_PROTOCOL => settings.enable_connect_protocol = flag()?,
                H3_DATAGRAM => settings.datagram = flag()?,
                // RFC 9114 §7.2.4.1.
                0x2..=0x5 => return wrong("a setting of HTTP/2"),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// Appends the payload of a SETTINGS frame, without settings that have their default.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut put = |id, value: Option<u64>| {
            if let Some(value) = value {
                varint::put(id, out);
                varint::put(value.min(varint::MAX), out);
            }
        };
        let unless_zero = |value: u64| (value > 0).then_some(value);
        put(QPACK_MAX_TABLE_CAPACITY, unless_zero(self.qpack_max_table_capacity));
        put(MAX_FIELD_SECTION_SIZE, self.max_field_section_size);
        put(QPACK_BLOCKED_STREAMS, unless_zero(self.qpack_blocked_streams));
        put(ENABLE_CONNECT_PROTOCOL, self.enable_connect_protocol.then_some(1));
        put(H3_DATAGRAM, self.datagram.then_some(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back() {
        let all = H3Settings {
            qpack_max_table_capacity: 4096,
            max_field_section_size: Some(65_536),
            qpack_blocked_streams: 16,
            enable_connect_protocol: true,
            datagram: true,
        };
        for settings in [all, H3Settings::default()] {
            let mut out = Vec::new();
            settings.write(&mut out);
            assert_eq!(H3Settings::parse(&out), Ok(settings));
        }
        let mut none = Vec::new();
        H3Settings::default().write(&mut none);
        assert!(none.is_empty());
        // A reserved setting and one that nobody has defined yet.
        assert_eq!(H3Settings::parse(&[0x21, 0x05, 0x40, 0x99, 0x00]), Ok(H3Settings::default()));
    }

    #[test]
    fn q_10_settings_that_break_a_rule() {
        let code = |payload: &[u8]| H3Settings::parse(payload).unwrap_err().code;
        for id in 2..=5 {
            assert_eq!(code(&[id, 0]), H3Code::SETTINGS_ERROR);
        }
        for payload in [&[8, 2][..], &[0x33, 0x40, 0x40], &[6, 1, 6, 1], &[1, 0, 1, 0]] {
            assert_eq!(code(payload), H3Code::SETTINGS_ERROR);
        }
        for payload in [&[6][..], &[6, 0x40], &[0x40], &[6, 1, 1]] {
            assert_eq!(code(payload), H3Code::FRAME_ERROR);
        }
    }
}
