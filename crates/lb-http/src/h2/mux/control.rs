//! What the peer says of the connection and its windows, and of streams without a word of their messages.

use std::time::Duration;

use lb_core::ledger::Charge;
use tokio::time::Instant;

use super::{Ending, GOAWAY_PING, Happening, Key, MAX_STREAM_ID, Mux, Role};
use crate::h2::frame::{self, ErrorCode, FrameError, SettingId, SettingsPayload};
use crate::h2::stream::{Last, Reset};

impl Mux {
    pub(super) fn window_update(
        &mut self,
        id: u32,
        increment: u32,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        self.charge(Charge::WindowUpdate, now)?;
        if id == 0 {
            let beyond = |_| FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, "window beyond 2^31-1");
            self.send_window.open(increment).map_err(beyond)?;
            self.used_up = None;
        } else {
            let Some(key) = self.find(id) else { return self.absent(id).map(|()| Happening::Nothing) };
            let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
            if stream.send_window.open(increment).is_err() {
                return Err(FrameError::stream(id, ErrorCode::FLOW_CONTROL_ERROR, "window beyond 2^31-1"));
            }
            self.resume(key);
        }
        // What the windows let pass is sent when all that was read is taken: windows that open bit by bit would make small frames.
        Ok(Happening::Nothing)
    }

    pub(super) fn settings(
        &mut self,
        settings: SettingsPayload<'_>,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        if self.peer.known {
            self.charge(Charge::Settings, now)?;
        }
        let first = !std::mem::replace(&mut self.peer.known, true);
        if first {
            // Without the setting there is no limit (RFC 9113 §6.5.2).
            self.peer.max_concurrent_streams = u32::MAX;
        }
        for setting in settings.iter() {
            let (id, value) = setting?;
            match id {
                SettingId::HEADER_TABLE_SIZE => self.encoder.set_max_table_size(value),
                SettingId::MAX_CONCURRENT_STREAMS => self.peer.max_concurrent_streams = value,
                SettingId::MAX_FRAME_SIZE => self.peer.max_frame_size = value,
                SettingId::ENABLE_CONNECT_PROTOCOL => self.peer.extended_connect = value == 1,
                SettingId::ENABLE_PUSH if value == 1 && self.role == Role::Client => {
                    return Err(FrameError::connection(
                        ErrorCode::PROTOCOL_ERROR,
                        "a server that enables push",
                    ));
                }
                SettingId::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
                _ => {}
            }
        }
        frame::write::settings_ack(&mut self.out.frames);
        if first {
            for (_, stream) in &mut self.streams {
                stream.wake();
            }
        }
        Ok(Happening::Nothing)
    }

    /// The windows of all streams change by the difference (RFC 9113 §6.9.2).
    fn initial_window(&mut self, value: u32) -> Result<(), FrameError> {
        let before = std::mem::replace(&mut self.peer.initial_window, value);
        let mut opened = Vec::new();
        for (key, stream) in &mut self.streams {
            stream.send_window.initial_changed(before, value).map_err(|_| {
                FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
            })?;
            if stream.unsent() > 0 {
                opened.push(key);
            }
        }
        for key in opened {
            self.resume(Key(key));
        }
        Ok(())
    }

    pub(super) fn ping_received(
        &mut self,
        data: [u8; 8],
        ack: bool,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        if ack {
            // Ours are seconds apart. Others answer nothing, and any number of them may come.
            self.charge(Charge::Unwanted, now)?;
            self.ping_answered |= data == GOAWAY_PING;
        } else {
            self.charge(Charge::Ping, now)?;
            frame::write::ping_ack(&mut self.out.frames, data);
        }
        Ok(Happening::Nothing)
    }

    pub(super) fn rst_stream(
        &mut self,
        id: u32,
        code: ErrorCode,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        let Some(key) = self.find(id) else {
            self.absent(id)?;
            // It crossed the end of the stream. Where that was a refusal, the request is given up all the same (attack H2-01).
            let refused = self.role == Role::Server && self.ending(id) == Some(Ending::ByUs);
            let charge = if refused { Charge::PeerReset } else { Charge::Unwanted };
            return self.charge(charge, now).map(|()| Happening::Nothing);
        };
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        if stream.reset.is_some() {
            self.charge(Charge::Unwanted, now)?;
        } else if self.role == Role::Server && !stream.answered {
            // Work of which the client will have seen nothing (attack H2-01). Once a response has begun the request was served like any other,
            // and the stream counts until the work behind it has ended.
            let open = stream.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
            super::calm(self.ledger.reset(open, now.into_std()))?;
        }
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        // A response that is complete stays so when the rest of the request is not wanted (RFC 9113 §8.1).
        let complete = self.role == Role::Client && stream.received_end && code == ErrorCode::NO_ERROR;
        if complete {
            stream.sent_end = true;
            stream.last = Last::Done;
            stream.pending.clear();
            stream.pending_at = 0;
        } else if stream.reset.is_none() {
            stream.reset = Some(if code == ErrorCode::REFUSED_STREAM && self.role == Role::Client {
                Reset::Unprocessed { goaway: false }
            } else {
                Reset::Peer(code)
            });
        }
        stream.wake();
        self.reap(key);
        Ok(Happening::Nothing)
    }

    pub(super) fn goaway_received(&mut self, last: u32, now: Instant) -> Result<Happening, FrameError> {
        if self.goaway_received.replace(last).is_some() {
            self.charge(Charge::Unwanted, now)?;
        }
        if self.role == Role::Client {
            for (_, stream) in &mut self.streams {
                if stream.id > last && stream.reset.is_none() {
                    stream.reset = Some(Reset::Unprocessed { goaway: true });
                    stream.wake();
                }
            }
        }
        debug_assert!(last <= MAX_STREAM_ID);
        Ok(Happening::Nothing)
    }
}
