//! What is counted while an exchange runs, and recorded when it is over.

use lb_core::reason::Reason;
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::filter;
use crate::message::{Front, Traffic};
use crate::record;

impl Exchange {
    /// Adds what has passed since the last turn to the counters.
    pub(super) fn account(&mut self, front: &mut impl Front) {
        use crate::message::Back;
        let metrics = &self.service.worker.metrics;
        let traffic = front.take_traffic();
        let mut moved = traffic != Traffic::default();
        self.client.received = self.client.received.saturating_add(traffic.received);
        if traffic.sent > 0 {
            if let Some(tunnel) = &mut self.tunnel {
                tunnel.touch(self.clock.now);
            }
            self.client.sent = self.client.sent.saturating_add(traffic.sent);
            metrics.bytes_backend_to_client.add(traffic.sent);
            self.client.stall.progress(traffic.sent, self.clock.now);
        }
        if let Some(back) = self.tries.current.back() {
            let traffic = back.take_traffic();
            moved |= traffic != Traffic::default();
            let sent = traffic.sent;
            if sent > 0 {
                if let Some(tunnel) = &mut self.tunnel {
                    tunnel.touch(self.clock.now);
                }
                metrics.bytes_client_to_backend.add(sent);
                self.tries.current.stall.progress(sent, self.clock.now);
            }
        }
        if moved {
            self.clock.active = self.clock.now;
            if let Some(call) = &mut self.call {
                call.moved(self.clock.now);
            }
        }
    }

    /// Adds what has left for the backend of a try that ends here.
    pub(super) fn account_sent(&mut self) {
        use crate::message::Back;
        if let Some(back) = self.tries.current.back() {
            self.service.worker.metrics.bytes_client_to_backend.add(back.take_traffic().sent);
        }
    }
}

impl Drop for Exchange {
    /// Every exchange is recorded once, however it ends.
    fn drop(&mut self) {
        if !self.clock.ended {
            // Cut off from outside, at a moment that no turn has seen.
            self.clock.now = Instant::now();
            self.reason.get_or_insert(Reason::Aborted);
        }
        let is_late = self.reason == Some(Reason::Timeout) && self.response.status == 504;
        filter::ends(self.filtered.as_deref(), self.clock.now, is_late);
        if !self.is_errand() {
            record::write(&self.entry());
        }
        self.drop_beside();
        self.leave_member();
        self.hand_trace_over();
        self.leave_budget();
        self.service.worker.put_head(std::mem::take(&mut self.request.head));
        self.service.worker.ended();
    }
}

impl Exchange {
    /// The facts to write down.
    fn entry(&self) -> record::Entry<'_> {
        record::Entry {
            service: &self.service,
            request: &self.request.head,
            asked: self.filtered.as_ref().and_then(|filtered| filtered.asked),
            request_id: self.filtered.as_ref().and_then(|filtered| filtered.id.as_deref()),
            client: self.client.address,
            session: self.client.session.as_deref(),
            status: Some(self.response.status).filter(|status| *status != 0),
            call: self.call.as_ref().map(|call| call.status()),
            received: self.client.received,
            sent: self.client.sent,
            duration: self.clock.now - self.clock.started,
            backend: self.tries.current.backend(),
            reason: self.tunnel.as_ref().and_then(|tunnel| tunnel.reason()).or(self.reason),
            route: self.request.route.map(|route| (&self.settings.routes, route)),
            retries: self.tries.count,
        }
    }
}
