//! Which requests a tap wants.

use std::time::Duration;

use lb_core::route::IpNetwork;

use crate::access_log::AccessRecord;

/// Lines a second, unless the reader says otherwise.
const USUAL_PER_SECOND: u64 = 50;

/// Lines a second at most.
const MOST_PER_SECOND: u64 = 1000;

/// Which requests are wanted, and how many lines a second of them. Each part that is given must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct TapFilter {
    route: Option<String>,
    listener: Option<String>,
    backend: Option<String>,
    reason: Option<String>,
    method: Option<String>,
    status: Option<WantedStatus>,
    client: Option<IpNetwork>,
    slower_than: Duration,
    /// Whether the fields of the request are shown.
    pub(super) fields: bool,
    pub(super) per_second: u64,
}

/// Which statuses are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum WantedStatus {
    /// From the first to the last.
    Between(u16, u16),
    /// No response was sent.
    None,
}

impl TapFilter {
    /// Reads the query of a request such as `route=shop&status=5xx&client=10.0.0.0/8`.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut filter = Self {
            route: None,
            listener: None,
            backend: None,
            reason: None,
            method: None,
            status: None,
            client: None,
            slower_than: Duration::ZERO,
            fields: false,
            per_second: USUAL_PER_SECOND,
        };
        for (name, value) in query.split('&').filter(|part| !part.is_empty()).map(pair) {
            let value = decode(value).ok_or_else(|| format!("{name}: not a text in percent encoding"))?;
            let wrong = |what: &str| format!("{name}: {value:?} is not {what}");
            match name {
                "route" => filter.route = Some(value),
                "listener" => filter.listener = Some(value),
                "backend" => filter.backend = Some(value),
                "reason" => filter.reason = Some(value),
                "method" => filter.method = Some(value),
                "status" => {
                    let status = WantedStatus::parse(&value);
                    let what = "a status, a class such as 5xx, a range such as 500-503, or none";
                    filter.status = Some(status.ok_or_else(|| wrong(what))?);
                }
                "client" => {
                    let what = "an address or a network such as 10.0.0.0/8";
                    filter.client = Some(IpNetwork::parse(&value).ok_or_else(|| wrong(what))?);
                }
                "slower_than_ms" => {
                    let millis = value.parse().map_err(|_| wrong("a number of milliseconds"))?;
                    filter.slower_than = Duration::from_millis(millis);
                }
                "fields" => filter.fields = value == "1",
                "per_second" => {
                    let number = value.parse().ok().filter(|count| (1..=MOST_PER_SECOND).contains(count));
                    filter.per_second = number.ok_or_else(|| wrong("a number from 1 to 1000"))?;
                }
                other => return Err(format!("{other}: no such condition; there are {CONDITIONS}")),
            }
        }
        Ok(filter)
    }

    /// Whether a request is wanted.
    pub(super) fn wants(&self, record: &AccessRecord<'_>) -> bool {
        let is = |wanted: &Option<String>, value: &[u8]| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == value)
        };
        is(&self.route, record.route.as_bytes())
            && is(&self.listener, record.listener.as_bytes())
            && is(&self.backend, record.backend.unwrap_or_default().as_bytes())
            && is(&self.reason, record.reason.as_bytes())
            && is(&self.method, record.method)
            && self.status.is_none_or(|wanted| wanted.holds(record.status))
            && self
                .client
                .as_ref()
                .is_none_or(|network| record.client.ip().is_some_and(|client| network.contains(client)))
            && record.duration >= self.slower_than
    }
}

const CONDITIONS: &str =
    "route, listener, backend, reason, method, status, client, slower_than_ms, fields, per_second";

impl WantedStatus {
    fn parse(text: &str) -> Option<Self> {
        let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..=599).contains(code));
        if text == "none" {
            return Some(Self::None);
        }
        if let Some(class) = text.strip_suffix("xx") {
            let first = code(&format!("{class}00"))?;
            return Some(Self::Between(first, first.saturating_add(99)));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(Self::Between(code(first)?, code(last)?)).filter(|range| match range {
            Self::Between(first, last) => first <= last,
            Self::None => true,
        })
    }

    fn holds(self, status: Option<u16>) -> bool {
        match (self, status) {
            (Self::Between(first, last), Some(status)) => (first..=last).contains(&status),
            (Self::None, None) => true,
            _ => false,
        }
    }
}

fn pair(part: &str) -> (&str, &str) {
    part.split_once('=').unwrap_or((part, ""))
}

/// A value without its percent encoding (RFC 3986 §2.1).
fn decode(value: &str) -> Option<String> {
    let (mut text, mut bytes) = (Vec::new(), value.bytes());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lb_core::address::ClientAddress;

    use super::*;

    fn wants(query: &str, change: impl FnOnce(&mut AccessRecord<'_>)) -> bool {
        let mut record = AccessRecord {
            time: SystemTime::UNIX_EPOCH,
            listener: "0.0.0.0:80",
            client: ClientAddress::Ip("192.0.2.7:4000".parse().unwrap()),
            method: b"GET",
            target: b"/a",
            host: None,
            version: "HTTP/1.1",
            tls: None,
            status: Some(503),
            grpc_status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::from_millis(250),
            backend: Some("10.0.0.1:80"),
            reason: "no_backend",
            route: "shop",
            request_id: None,
            trace_id: None,
            retries: 0,
            user_agent: None,
            referer: None,
        };
        change(&mut record);
        TapFilter::parse(query).unwrap().wants(&record)
    }

    #[test]
    fn each_condition_must_hold() {
        for query in [
            "",
            "route=shop",
            "listener=0.0.0.0:80",
            "listener=0.0.0.0%3A80",
            "backend=10.0.0.1:80",
            "reason=no_backend",
            "method=GET",
            "status=503",
            "status=5xx",
            "status=500-504",
            "client=192.0.2.0/24",
            "client=192.0.2.7",
            "slower_than_ms=250",
            "route=shop&status=5xx&client=192.0.2.0%2F24&fields=1&per_second=7",
        ] {
            assert!(wants(query, |_| {}), "{query}");
        }
        for query in [
            "route=sho",
            "route=",
            "listener=0.0.0.0:81",
            "backend=",
            "reason=timeout",
            "method=get",
            "status=502",
            "status=4xx",
            "status=none",
            "client=192.0.3.0/24",
            "client=2001:db8::/32",
            "slower_than_ms=251",
            "route=shop&status=2xx",
        ] {
            assert!(!wants(query, |_| {}), "{query}");
        }
        assert!(wants("status=none", |record| record.status = None));
        assert!(!wants("status=5xx", |record| record.status = None));
        assert!(!wants("client=0.0.0.0/0", |record| record.client = ClientAddress::Unix));
    }

    #[test]
    fn faults_are_told() {
        for (query, part) in [
            ("status=6xx", "status"),
            ("status=99", "status"),
            ("status=504-500", "status"),
            ("status=", "status"),
            ("client=10.0.0.1/8", "client"),
            ("client=x", "client"),
            ("slower_than_ms=-1", "slower_than_ms"),
            ("per_second=0", "per_second"),
            ("per_second=1001", "per_second"),
            ("route=%f", "route"),
            ("route=%ff", "route"),
            ("body=1", "no such condition"),
        ] {
            let fault = TapFilter::parse(query).expect_err(query);
            assert!(fault.contains(part), "{query}: {fault}");
        }
    }
}
