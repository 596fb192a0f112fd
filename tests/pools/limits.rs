//! Limits of one backend: who is let in, who waits, who is refused.

use testkit::harness::Case;

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![]
}
