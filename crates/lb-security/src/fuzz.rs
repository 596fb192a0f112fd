//! Entry points for the fuzz targets.

use crate::hello::WishReader;

/// The first bytes of a connection whose TLS ends behind the gateway: what they ask for does not depend on how they arrive.
pub fn client_hello(input: &[u8]) {
    let whole = WishReader::default().take_in(input);
    let mut reader = WishReader::default();
    let piecewise = input.iter().find_map(|byte| reader.take_in(&[*byte]));
    if let (Some(whole), Some(piecewise)) = (&whole, &piecewise) {
        assert_eq!(whole, piecewise, "pieces ask for something else");
    }
    let mut halves = WishReader::default();
    let (first, second) = input.split_at(input.len() / 2);
    let halves = halves.take_in(first).or_else(|| halves.take_in(second));
    assert_eq!(halves, whole, "two reads ask for something else");
}
