//! What stands between a source and the sink on the other side: a counter, and the rules for responses.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::head::{FieldName, Fields, RequestHead, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use tokio::time::Instant;

use super::again::Again;
use super::grpc::Call;
use super::response::Response;
use super::tunnel::Tunnel;
use crate::answer;
use crate::filter::{self, Filtered};
use crate::message::{Front, FrontCapabilities, Gone, Next, ResponseSink, Sink};
use crate::rules;
use crate::service::{Service, Settings};
use crate::websocket::handshake;

/// Interim responses that one request may be given at once (attack H1-15).
const MAX_INTERIM: u32 = 16;

/// How many interim responses may have come so long after the first: a server that tells each second that it is still at work may do so
/// for as long as it is.
fn most_interims(passed: Duration) -> u32 {
    MAX_INTERIM.saturating_add(u32::try_from(passed.as_secs()).unwrap_or(u32::MAX))
}

/// Counts body bytes on their way, and lets no more pass than are allowed.
pub(super) struct Counted<'a, S> {
    pub(super) to: &'a mut S,
    pub(super) bytes: u64,
    /// How many may pass.
    pub(super) most: u64,
    /// There were more.
    pub(super) over: bool,
}

impl<S: Sink> Sink for Counted<'_, S> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let count = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.over |= count > self.most;
        if !self.over {
            self.bytes = count;
            self.to.data(cx, bytes);
        }
    }

    fn trailers(&mut self, fields: &Fields) {
        if !self.over {
            self.to.trailers(fields);
        }
    }

    fn end(&mut self) {
        // A body that is too long must not look complete on the other side.
        if !self.over {
            self.to.end();
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.to.poll_flush(cx)
    }
}

/// Takes a response for the client, head rules applied.
pub(super) struct ToClient<'a, F> {
    pub(super) front: &'a mut F,
    pub(super) response: &'a mut Response,
    pub(super) tunnel: &'a mut Option<Box<Tunnel>>,
    pub(super) call: Option<&'a mut Call>,
    /// The rules by which the response may be held back.
    pub(super) again: Option<Again<'a>>,
    /// The client has its whole response, and the rest of the backend's is not for it.
    pub(super) cut: bool,
    /// It was told something else in place of the backend's body.
    pub(super) replaced: bool,
    /// What the client's protocol can do.
    pub(super) capabilities: FrontCapabilities,
    /// How the backend agrees to a tunnel.
    pub(super) agrees_by: TunnelBy,
    pub(super) settings: &'a Settings,
    pub(super) filtered: Option<&'a Filtered>,
    pub(super) request: &'a RequestHead,
    pub(super) service: &'a Rc<Service>,
    /// A cookie for the client.
    pub(super) set_cookie: Option<&'a [u8]>,
    pub(super) now: Instant,
}

impl<F> ToClient<'_, F> {
    /// The status of a response that is not for the client.
    #[inline]
    pub(super) fn withheld(&self) -> Option<u16> {
        self.again.as_ref()?.withheld
    }

    /// Whether what comes of the backend's response is not for the client.
    #[inline]
    fn is_kept_back(&self) -> bool {
        self.cut || self.replaced || self.withheld().is_some()
    }

    /// Makes a tunnel of the exchange, if the backend has agreed to what was asked.
    fn switch(&mut self, cx: &Context<'_>, head: &mut ResponseHead) -> Result<(), Reason> {
        // A backend that switches to another protocol than was asked for speaks it to a client that does not (RFC 9110 §7.8).
        let agreed = head.fields.values(FieldName::Upgrade).next();
        let asked = agreed.is_some_and(|agreed| agreed.eq_ignore_ascii_case(self.request.upgrade()));
        let Some(limits) = self.settings.websocket.filter(|_| asked) else {
            return Err(Reason::UnaskedSwitch);
        };
        match (self.capabilities.tunnel, self.agrees_by) {
            (TunnelBy::Upgrade, TunnelBy::ExtendedConnect) => {
                handshake::complete_h2_response(head, self.request);
            }
            (TunnelBy::ExtendedConnect, TunnelBy::Upgrade) => {
                handshake::check_h1_response(head, self.request).map_err(|_| Reason::WebSocketHandshake)?;
            }
            // Both ends see one handshake.
            _ => {}
        }
        *self.tunnel = Some(Box::new(Tunnel::new(limits, self.service, cx, self.now)));
        Ok(())
    }
}

impl<F: Front> Sink for ToClient<'_, F> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if self.is_kept_back() {
            return;
        }
        match self.tunnel {
            None if self.response.takes(bytes) => self.front.data(cx, bytes),
            None => {}
            Some(tunnel) => tunnel.down(self.front, self.now).data(cx, bytes),
        }
    }

    fn trailers(&mut self, fields: &Fields) {
        if self.is_kept_back() || self.response.over {
            return;
        }
        if let Some(call) = &mut self.call {
            call.trailers(fields);
        }
        self.front.trailers(fields);
    }

    fn end(&mut self) {
        if self.replaced || self.withheld().is_some() {
            return;
        }
        match self.tunnel {
            None if self.response.over => {}
            None => self.front.end(),
            Some(tunnel) => tunnel.down(self.front, self.now).end(),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.front.poll_flush(cx)
    }
}

impl<F: Front> ToClient<'_, F> {
    /// Passes an interim response on, to a client that takes some.
    fn interim(&mut self, head: &mut ResponseHead) -> Result<(), Reason> {
        self.response.interims = self.response.interims.saturating_add(1);
        let since = *self.response.interim_since.get_or_insert(self.now);
        if self.response.interims > most_interims(self.now.saturating_duration_since(since)) {
            return Err(Reason::InterimFlood);
        }
        self.response.continues |= head.status == 100;
        if self.capabilities.interim {
            self.response.interim_passed = true;
            rules::response(head, None);
            self.front.interim(head);
        }
        Ok(())
    }
}

impl<F: Front> ResponseSink for ToClient<'_, F> {
    fn head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Result<Next, Reason> {
        if head.is_interim() {
            self.interim(head)?;
            return Ok(Next::Head);
        }
        if let Some(again) = &mut self.again
            && again.withholds(head.status, self.response.interim_passed)
        {
            return Ok(Next::Body);
        }
        let switches = head.status == 101;
        if switches {
            self.switch(cx, head)?;
        }
        if !switches
            && self.capabilities.tunnel == TunnelBy::ExtendedConnect
            && !self.request.upgrade().is_empty()
            && (200..300).contains(&head.status)
        {
            // It would accept a tunnel that is not there (RFC 8441 §5).
            return Err(Reason::WebSocketHandshake);
        }
        if !self.request.is_head() && self.response.is_too_large(head) {
            return Err(Reason::ResponseTooLarge);
        }
        rules::response(head, self.settings.alt_svc.as_deref());
        filter::answered(self.filtered, head.status, self.now);
        let intercepted = match &self.call {
            None => filter::intercepted(self.filtered, self.settings, self.request, head.status),
            Some(_) => None,
        };
        if let Some(told) = &intercepted {
            answer::describe(told, head);
        }
        filter::response(self.filtered, self.settings, head);
        if let Some(cookie) = self.set_cookie {
            head.fields.push(b"Set-Cookie", cookie);
        }
        if let Some(call) = &mut self.call {
            self.cut = call.response(head);
        }
        self.response.begun(head);
        self.front.head(head);
        if let Some(told) = intercepted {
            if !told.body.is_empty() {
                self.front.data(cx, &told.body);
            }
            self.front.end();
            // Nothing more of the backend's response is for the client.
            self.replaced = true;
        }
        if switches {
            self.front.switch();
            return Ok(Next::Tunnel);
        }
        Ok(Next::Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h1_15_one_more_interim_response_may_come_with_each_second() {
        let most = [0, 999, 1000, 60_000].map(|ms| most_interims(Duration::from_millis(ms)));
        assert_eq!((most, most_interims(Duration::MAX)), ([16, 16, 17, 76], u32::MAX));
    }
}
