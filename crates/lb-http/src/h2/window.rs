//! Flow-control windows (RFC 9113 §5.2 and §6.9). A connection has one of each kind, and so has each stream.

/// The largest window (RFC 9113 §6.9.1).
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The window before anybody has changed it (RFC 9113 §6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;

/// A window was overrun, or opened too far. Of a stream it is a stream error, of the connection a connection error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowControlError;

/// What is little enough to be worth waiting for more.
const SLIVER: u32 = 2048;

/// What the peer lets us send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow {
    size: i32,
    /// The most that has ever been open at once.
    widest: u32,
    /// It was opened after something was last taken from it.
    opened: bool,
}

impl SendWindow {
    /// A window of `size` bytes, at most [`MAX_WINDOW`].
    pub fn new(size: u32) -> Self {
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        Self { size, widest: size.unsigned_abs(), opened: false }
    }

    /// Bytes that may be sent now; 0 also while the window is negative.
    #[inline]
    pub fn available(self) -> u32 {
        u32::try_from(self.size).unwrap_or(0)
    }

    /// Whether it is open by so little that a frame of it is hardly worth its header, though the peer is known to open it further
    /// (RFC 9113 §5.2.2; the rule is that of RFC 1122 §4.2.3.4).
    #[inline]
    pub fn is_sliver(self) -> bool {
        (1..SLIVER.min(self.widest / 2)).contains(&self.available())
    }

    /// Whether the peer has opened it after something was last taken from it.
    pub fn was_opened(self) -> bool {
        self.opened
    }

    /// Takes up to `wanted` bytes from the window, and says how many.
    #[inline]
    pub fn take(&mut self, wanted: u32) -> u32 {
        let taken = wanted.min(self.available());
        self.size -= i32::try_from(taken).unwrap_or(0);
        self.opened = false;
        taken
    }

    /// WINDOW_UPDATE came.
    ///
    /// # Errors
    /// When the window would exceed [`MAX_WINDOW`]; it stays as it was.
    #[inline]
    pub fn open(&mut self, increment: u32) -> Result<(), FlowControlError> {
        self.set(self.size.checked_add_unsigned(increment).ok_or(FlowControlError)?);
        Ok(())
    }

    /// The peer changed SETTINGS_INITIAL_WINDOW_SIZE, which moves the window of each stream and may make it negative
    /// (RFC 9113 §6.9.2). It leaves the window of the connection alone.
    ///
    /// # Errors
    /// When the window would exceed [`MAX_WINDOW`], which is a connection error here.
    pub fn initial_changed(&mut self, from: u32, to: u32) -> Result<(), FlowControlError> {
        let moved = i64::from(self.size) + i64::from(to) - i64::from(from);
        self.set(i32::try_from(moved).map_err(|_| FlowControlError)?);
        Ok(())
    }

    fn set(&mut self, size: i32) {
        self.opened |= size > self.size;
        self.size = size;
        self.widest = self.widest.max(self.available());
    }
}

/// What we let the peer send.
///
/// At any time the bytes that the peer may still send, those that wait here to be consumed, and those that were consumed and not yet
/// announced make up the size of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    size: u32,
    /// What the peer may still send; negative after it has sent by the size that it knew first.
    available: i32,
    /// Consumed, and not yet announced.
    consumed: u32,
}

impl ReceiveWindow {
    /// A window of `size` bytes, at most [`MAX_WINDOW`], which the peer knows of.
    pub fn new(size: u32) -> Self {
        let available = i32::try_from(size).unwrap_or(i32::MAX);
        Self { size: available.unsigned_abs(), available, consumed: 0 }
    }

    /// Bytes that came and wait to be consumed: what this window holds in memory.
    pub fn waiting(self) -> u32 {
        let gone = i64::from(self.size) - i64::from(self.available) - i64::from(self.consumed);
        u32::try_from(gone).unwrap_or(0)
    }

    /// Flow-controlled bytes came, padding included. `beyond` is what the peer may have sent beyond the window, because it did not know
    /// of its size (RFC 9113 §6.9.3).
    ///
    /// # Errors
    /// When the peer sends more than it may.
    #[inline]
    pub fn receive(&mut self, flow_len: u32, beyond: u32) -> Result<(), FlowControlError> {
        let left = i64::from(self.available) - i64::from(flow_len);
        // No bytes fit into any window.
        if flow_len > 0 && left < -i64::from(beyond) {
            return Err(FlowControlError);
        }
        self.available = i32::try_from(left).map_err(|_| FlowControlError)?;
        Ok(())
    }

    /// Bytes that came were consumed, padding included. Returns the increment to announce, once it is half of the window: fewer
    /// frames would stall the peer, more would be noise.
    #[inline]
    pub fn consume(&mut self, flow_len: u32) -> Option<u32> {
        self.consumed = self.consumed.saturating_add(flow_len.min(self.waiting()));
        if self.consumed == 0 || self.consumed < self.size / 2 {
            return None;
        }
        self.announce()
    }

    /// As [`Self::consume`] for a window that many streams share, of which what waits may wait for long: the increment to announce, once
    /// it is as much as the peer may still send. So the peer always has half of what no stream holds, and never stands still while something
    /// of it is there.
    #[inline]
    pub fn consume_shared(&mut self, flow_len: u32) -> Option<u32> {
        self.consumed = self.consumed.saturating_add(flow_len.min(self.waiting()));
        if i64::from(self.consumed) < i64::from(self.available) {
            return None;
        }
        self.announce()
    }

    /// Announces what was consumed, however little it is.
    pub fn announce(&mut self) -> Option<u32> {
        let increment = std::mem::take(&mut self.consumed);
        self.available = self.available.saturating_add_unsigned(increment);
        (increment > 0).then_some(increment)
    }

    /// Makes the window larger. Returns the increment to announce with WINDOW_UPDATE.
    pub fn grow(&mut self, size: u32) -> Option<u32> {
        let more = size.min(MAX_WINDOW).checked_sub(self.size)?;
        self.size += more;
        self.available = self.available.saturating_add_unsigned(more);
        (more > 0).then_some(more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_send_window_may_become_negative_and_never_overflows() {
        let mut window = SendWindow::new(DEFAULT_WINDOW);
        assert_eq!(window.take(70_000), 65_535);
        window.initial_changed(65_535, 16_384).unwrap();
        assert_eq!((window.size, window.available(), window.take(1)), (16_384 - 65_535, 0, 0));
        window.open(49_152).unwrap();
        assert_eq!(window.available(), 1);
        assert_eq!(window.open(MAX_WINDOW), Err(FlowControlError));
        assert_eq!(window.initial_changed(0, MAX_WINDOW), Err(FlowControlError));
        assert_eq!(window.available(), 1);
        window.open(MAX_WINDOW - 1).unwrap();
        assert_eq!(window.available(), MAX_WINDOW);
    }

    #[test]
    fn a_sliver_is_less_than_half_of_what_the_peer_ever_opened() {
        let is_sliver = |initial, taken| {
            let mut window = SendWindow::new(initial);
            window.take(taken);
            window.is_sliver()
        };
        assert!(!is_sliver(65_535, 65_535 - 2048) && is_sliver(65_535, 65_535 - 2047));
        assert!(is_sliver(65_535, 65_534) && !is_sliver(65_535, 65_535));
        // Peers with small windows open them by little.
        assert!(!is_sliver(1000, 500) && is_sliver(1000, 501));
        assert!([1, 2, 3].iter().all(|initial| !is_sliver(*initial, initial - 1)));
        let mut window = SendWindow::new(0);
        window.open(1).unwrap();
        assert!(!window.is_sliver() && window.was_opened());
        window.open(9999).unwrap();
        window.take(9999);
        assert!(window.is_sliver() && !window.was_opened());
        window.initial_changed(0, 1).unwrap();
        assert!(window.was_opened());
    }

    #[test]
    fn an_update_is_due_after_half_of_the_window() {
        let mut window = ReceiveWindow::new(1000);
        window.receive(1000, 0).unwrap();
        assert_eq!(window.receive(1, 0), Err(FlowControlError));
        assert_eq!(window.receive(0, 0), Ok(()));
        assert_eq!(window.consume(499), None);
        assert_eq!(window.consume(1), Some(500));
        assert_eq!(window.waiting(), 500);
        window.receive(500, 0).unwrap();
        assert_eq!(window.grow(1500), Some(500));
        window.receive(500, 0).unwrap();
        assert_eq!(window.receive(1, 0), Err(FlowControlError));
    }

    #[test]
    fn what_is_left_of_a_shared_window_is_given_back_however_much_waits() {
        let mut window = ReceiveWindow::new(1000);
        window.receive(499, 0).unwrap();
        assert_eq!(window.consume_shared(499), None);
        window.receive(2, 0).unwrap();
        assert_eq!(window.consume_shared(1), Some(500));
        // 900 bytes wait for good: the rest goes round in halves.
        window.receive(899, 0).unwrap();
        for _ in 0..10 {
            window.receive(50, 0).unwrap();
            assert_eq!(window.consume_shared(49), None);
            assert_eq!(window.consume_shared(1), Some(50));
        }
        window.receive(100, 0).unwrap();
        assert_eq!((window.consume_shared(1), window.consume_shared(0)), (Some(1), None));
    }

    #[test]
    fn a_peer_that_knows_nothing_of_a_small_window_may_overrun_it() {
        let mut window = ReceiveWindow::new(1000);
        let beyond = DEFAULT_WINDOW - 1000;
        window.receive(DEFAULT_WINDOW, beyond).unwrap();
        assert_eq!(window.receive(1, beyond), Err(FlowControlError));
        assert_eq!(window.waiting(), DEFAULT_WINDOW);
        // From its acknowledgement on nothing may come until the window is open again.
        assert_eq!((window.receive(1, 0), window.receive(0, 0)), (Err(FlowControlError), Ok(())));
        assert_eq!(window.consume(beyond), Some(beyond));
        assert_eq!(window.receive(1, 0), Err(FlowControlError));
        assert_eq!(window.consume(600), Some(600));
        assert_eq!((window.receive(600, 0), window.receive(1, 0)), (Ok(()), Err(FlowControlError)));
        assert_eq!(window.waiting(), 1000);
    }

    proptest! {
        /// However much waits for good, a peer that sends all it may is told of what is consumed of the rest before it stands still.
        #[test]
        fn a_shared_window_never_stands_still(
            size in 1u32..100_000,
            held in 0u32..100_000,
            steps in prop::collection::vec((1u32..60_000, 1u32..60_000), 1..60),
        ) {
            let held = held.min(size - 1);
            let mut ours = ReceiveWindow::new(size);
            ours.receive(held, 0).unwrap();
            let mut theirs = SendWindow::new(size - held);
            for (send, consume) in steps {
                ours.receive(theirs.take(send), 0).unwrap();
                let unread = ours.waiting() - held;
                if let Some(increment) = ours.consume_shared(consume.min(unread)) {
                    theirs.open(increment).unwrap();
                }
                prop_assert!(theirs.available() > 0 || ours.waiting() > held);
            }
            if let Some(increment) = ours.consume_shared(ours.waiting() - held) {
                theirs.open(increment).unwrap();
            }
            prop_assert!(theirs.available() >= (size - held) / 2);
        }

        /// A peer that keeps to what it was told is never refused, and one that goes a byte beyond always is.
        #[test]
        fn both_sides_agree_on_what_may_be_sent(
            size in 1u32..100_000,
            steps in prop::collection::vec((0u32..60_000, 0u32..60_000, 0u8..10), 0..60),
        ) {
            let mut ours = ReceiveWindow::new(size);
            let mut theirs = SendWindow::new(size);
            for (send, consume, kind) in steps {
                let sent = theirs.take(send);
                prop_assert_eq!(ours.receive(sent, 0), Ok(()));
                let update = match kind {
                    0 => ours.announce(),
                    1 => ours.grow(size + send),
                    2..5 => ours.consume_shared(consume),
                    _ => ours.consume(consume),
                };
                if let Some(increment) = update {
                    prop_assert_eq!(theirs.open(increment), Ok(()));
                }
                prop_assert_eq!(theirs.size, ours.available);
                prop_assert!(ours.waiting() <= ours.size);
                prop_assert_eq!(ours.clone().receive(theirs.available() + 1, 0), Err(FlowControlError));
            }
            // All consumed, the whole window is open again but for less than half of it.
            if let Some(increment) = ours.consume(ours.waiting()) {
                theirs.open(increment).unwrap();
            }
            prop_assert!(theirs.available() >= ours.size / 2);
        }
    }
}
