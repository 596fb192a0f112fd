//! Flow-control windows (RFC 9113 section 5.2), of one direction of a connection.

use std::collections::HashMap;

/// The size of every window before SETTINGS and WINDOW_UPDATE change it.
pub const DEFAULT: i64 = 65_535;

/// The windows of one direction.
#[derive(Debug)]
pub struct Windows {
    initial: i64,
    connection: i64,
    streams: HashMap<u32, i64>,
}

impl Default for Windows {
    fn default() -> Self {
        Windows { initial: DEFAULT, connection: DEFAULT, streams: HashMap::new() }
    }
}

impl Windows {
    /// What a stream may still send; the connection may allow less.
    pub fn stream(&self, stream: u32) -> i64 {
        self.streams.get(&stream).copied().unwrap_or(self.initial)
    }

    /// What all streams together may still send.
    pub fn connection(&self) -> i64 {
        self.connection
    }

    /// How many bytes may be sent on a stream now.
    pub fn room(&self, stream: u32) -> usize {
        self.stream(stream).min(self.connection).max(0) as usize
    }

    /// Takes bytes out of both windows; an error when one of them did not hold them.
    pub fn take(&mut self, stream: u32, bytes: usize) -> Result<(), String> {
        let (bytes, initial) = (bytes as i64, self.initial);
        let own = self.streams.entry(stream).or_insert(initial);
        *own -= bytes;
        self.connection -= bytes;
        if bytes > 0 && (*own < 0 || self.connection < 0) {
            return Err(format!(
                "{bytes} bytes beyond a window: stream {stream} {own}, connection {}",
                self.connection
            ));
        }
        Ok(())
    }

    /// Opens a window further; stream 0 is the connection.
    pub fn credit(&mut self, stream: u32, increment: u32) {
        if stream == 0 {
            self.connection += i64::from(increment);
        } else {
            let initial = self.initial;
            *self.streams.entry(stream).or_insert(initial) += i64::from(increment);
        }
    }

    /// Sets the initial size of streams' windows; those of the streams that exist move by the difference.
    pub fn set_initial(&mut self, size: u32) {
        let change = i64::from(size) - self.initial;
        self.initial = i64::from(size);
        self.streams.values_mut().for_each(|window| *window += change);
    }

    /// The window that new streams start with.
    pub fn initial(&self) -> i64 {
        self.initial
    }
}
