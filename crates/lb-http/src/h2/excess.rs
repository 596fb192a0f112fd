//! Connections that are ended for a budget: a line of the log, since the operator may have to widen a budget for a harmless peer.

use std::time::Duration;

use lb_core::address::ClientAddress;
use lb_core::ledger::{BUDGETS, LedgerBudget};
use lb_core::log_limit::LogLimit;
use lb_core::reason::Reason;
use tokio::time::Instant;

use super::client::Backend;
use super::mux::Mux;

/// Lines about clients. Any number of them may try.
static CLIENTS: LogLimit = LogLimit::new(5, Duration::from_secs(10));

/// Lines about backends, which clients must not be able to crowd out.
static BACKENDS: LogLimit = LogLimit::new(5, Duration::from_secs(10));

/// Lines about clients whose responses are cut.
static CUT: LogLimit = LogLimit::new(5, Duration::from_secs(10));

/// The connection of a client ends, because the budget of `reason` is used up. `false` where the reason has none, and nothing was logged.
pub(super) fn client_ended(
    listener: &str,
    client: ClientAddress,
    reason: Reason,
    mux: &Mux,
    now: Instant,
) -> bool {
    let Some((budget, count)) = budget(reason, mux) else { return false };
    let Some(left_out) = CLIENTS.admit(now.into_std()) else { return true };
    tracing::warn!(
        listener, %client, budget = budget.reason.name(), count, key = format_args!("h2_security.{}", budget.key), left_out,
        "HTTP/2 connection of a client ended: a budget is used up"
    );
    true
}

/// The connection of a client ends for `reason`, and with it the responses that have begun on it. `key` names the setting whose limit came,
/// if one did.
pub(super) fn client_cut(
    listener: &str,
    client: ClientAddress,
    reason: Reason,
    key: Option<&str>,
    mux: &Mux,
    now: Instant,
) {
    let responses = mux.unfinished();
    if responses == 0 {
        return;
    }
    let Some(left_out) = CUT.admit(now.into_std()) else { return };
    tracing::warn!(listener, %client, reason = reason.name(), key, responses, left_out, "HTTP/2 connection of a client ended with responses under way");
}

/// The connection to a backend ends, because the budget of `reason` is used up.
pub(super) fn backend_ended(backend: &Backend, reason: Reason, mux: &Mux, now: Instant) {
    let Some((budget, count)) = budget(reason, mux) else { return };
    let Some(left_out) = BACKENDS.admit(now.into_std()) else { return };
    tracing::warn!(
        backend = &*backend.name, address = %backend.address, budget = budget.reason.name(), count,
        key = format_args!("h2_security.{}", budget.backend_key()), left_out,
        "HTTP/2 connection to a backend ended: a budget is used up"
    );
}

/// The connection to a backend gets no more requests, because too many of its responses broke the protocol.
pub(super) fn backend_retired(backend: &Backend, now: Instant) {
    let Some(left_out) = BACKENDS.admit(now.into_std()) else { return };
    tracing::warn!(
        backend = &*backend.name, address = %backend.address, left_out,
        "HTTP/2 connection to a backend gets no more requests: too many broken responses"
    );
}

/// The budget of that reason, and how much was charged against it.
fn budget(reason: Reason, mux: &Mux) -> Option<(&'static LedgerBudget, u32)> {
    let budget = BUDGETS.iter().find(|budget| budget.reason == reason)?;
    Some((budget, mux.count(budget.charge)))
}
