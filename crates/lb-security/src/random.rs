//! Unpredictable randomness.

/// A key to mask a WebSocket frame with. It must come from a strong source of entropy (RFC 6455 §5.3): with a predictable key, a peer can
/// choose what the bytes on the wire look like.
///
/// None when the system has no randomness to give.
pub fn masking_key() -> Option<[u8; 4]> {
    let mut key = [0; 4];
    aws_lc_rs::rand::fill(&mut key).ok().map(|()| key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn masking_keys_differ() {
        let keys: HashSet<_> = (0..1000).map(|_| masking_key().unwrap()).collect();
        // Two of a thousand are alike once in ten thousand times, six hardly ever.
        assert!(keys.len() > 995);
    }
}
