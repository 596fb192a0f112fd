//! expressgateway
fn main() {}
