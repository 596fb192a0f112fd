//! Many short texts in one piece of memory.

/// Texts one behind the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts(Vec<u8>);

/// One of [`Texts`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text {
    start: u32,
    end: u32,
}

impl Texts {
    /// Puts a text behind the others.
    pub(super) fn push(&mut self, text: &[u8]) -> Text {
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let start = at(self.0.len());
        self.0.extend_from_slice(text);
        Text { start, end: at(self.0.len()) }
    }

    #[inline]
    pub(super) fn get(&self, text: Text) -> &[u8] {
        self.0.get(text.start as usize..text.end as usize).unwrap_or_default()
    }
}
