//! What is counted while an exchange runs, and recorded when it is over.

use lb_core::reason::Reason;
use tokio::time::Instant;

use super::{Exchange, Stage};
use crate::exchange::{Front, Traffic};
use crate::record;

impl Exchange {
    /// Adds what has passed since the last turn to the counters.
    pub(super) fn account(&mut self, front: &mut impl Front) {
        use crate::exchange::Back;
        let metrics = &self.service.worker.metrics;
        let traffic = front.take_traffic();
        let mut moved = traffic != Traffic::default();
        self.received = self.received.saturating_add(traffic.received);
        if traffic.sent > 0 {
            if let Some(tunnel) = &mut self.tunnel {
                tunnel.touch(self.now);
            }
            self.sent = self.sent.saturating_add(traffic.sent);
            metrics.bytes_backend_to_client.add(traffic.sent);
            self.front_stall.progress(traffic.sent, self.now);
        }
        if let Stage::Relay { back, .. } = &mut self.stage {
            let traffic = back.take_traffic();
            moved |= traffic != Traffic::default();
            let sent = traffic.sent;
            if sent > 0 {
                if let Some(tunnel) = &mut self.tunnel {
                    tunnel.touch(self.now);
                }
                metrics.bytes_client_to_backend.add(sent);
                self.back_stall.progress(sent, self.now);
            }
        }
        if moved {
            self.active = self.now;
            if let Some(call) = &mut self.call {
                call.moved(self.now);
            }
        }
    }

    /// Adds what has left for the backend of a try that ends here.
    pub(super) fn account_sent(&mut self) {
        use crate::exchange::Back;
        if let Stage::Relay { back, .. } = &mut self.stage {
            self.service.worker.metrics.bytes_client_to_backend.add(back.take_traffic().sent);
        }
    }
}

impl Drop for Exchange {
    /// Every exchange is recorded once, however it ends.
    fn drop(&mut self) {
        if !self.ended {
            // Cut off from outside, at a moment that no turn has seen.
            self.now = Instant::now();
            self.reason.get_or_insert(Reason::Aborted);
        }
        record::write(&self.entry());
        self.drop_beside();
        self.leave_member(self.backend_status);
        self.leave_budget();
        self.service.worker.put_head(std::mem::take(&mut self.request));
        self.service.worker.ended();
    }
}

impl Exchange {
    /// The facts to write down.
    fn entry(&self) -> record::Entry<'_> {
        let member = self.member.map(|(at, _)| at);
        record::Entry {
            service: &self.service,
            request: &self.request,
            client: self.client,
            session: self.session.as_deref(),
            status: Some(self.response.status).filter(|status| *status != 0),
            call: self.call.as_ref().map(|call| call.status()),
            received: self.received,
            sent: self.sent,
            duration: self.now - self.started,
            backend: member
                .and_then(|at| self.settings.pool(self.pool)?.members.get(at))
                .map(|member| member.name.as_str()),
            reason: self.tunnel.as_ref().and_then(|tunnel| tunnel.reason()).or(self.reason),
            retries: self.retries,
        }
    }
}
