//! `expressgateway xdp flows`: the flows that had a packet last.

use std::io::Write;

use lb_l4_xdp::layout::TcpState;
use lb_l4_xdp::{KnownFlow, Pins, Tables};

use super::{place_of, protocol_name};

/// Live flows with their backends, the latest first.
pub(super) struct Flows {
    shown: Vec<(KnownFlow, String)>,
}

impl Flows {
    /// At most so many of those that are pinned.
    pub(super) fn read(pins: &Pins, most: usize) -> anyhow::Result<Self> {
        let tables = pins.tables()?;
        let flows = pins.flows(&tables, most)?.into_iter();
        let shown = flows.map(|flow| {
            let backend = backend_of(&tables, &flow);
            (flow, backend)
        });
        Ok(Self { shown: shown.collect() })
    }

    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        if self.shown.is_empty() {
            return writeln!(out, "no flows");
        }
        for (flow, backend) in &self.shown {
            let by = flow.gateway.map_or(String::new(), |gateway| format!(" by {gateway}"));
            writeln!(
                out,
                "{} {} to {}, at {backend}{by}, {}last packet {:.3} s ago",
                protocol_name(flow.protocol),
                flow.client,
                flow.service,
                state(flow).map_or(String::new(), |state| format!("{state}, ")),
                flow.idle.as_secs_f64()
            )?;
        }
        Ok(())
    }

    /// Names, numbers and addresses alone: nothing of it needs an escape.
    pub(super) fn json(&self) -> String {
        let flows = self.shown.iter().map(|(flow, backend)| {
            let gateway = flow.gateway.map_or("null".to_owned(), |gateway| format!("\"{gateway}\""));
            format!(
                "{{\"protocol\":\"{}\",\"client\":\"{}\",\"service\":\"{}\",\"backend\":\"{backend}\",\"gateway\":{gateway},\"state\":{},\"idle_ms\":{}}}",
                protocol_name(flow.protocol),
                flow.client,
                flow.service,
                state(flow).map_or("null".to_owned(), |state| format!("\"{state}\"")),
                flow.idle.as_millis()
            )
        });
        format!("{{\"flows\":[{}]}}", flows.collect::<Vec<_>>().join(","))
    }
}

fn backend_of(tables: &Tables, flow: &KnownFlow) -> String {
    tables.backend(flow.backend).map_or_else(|| "unknown".to_owned(), place_of)
}

/// How far a TCP connection is, in the direction from the client.
fn state(flow: &KnownFlow) -> Option<&'static str> {
    match flow.state {
        TcpState::None => None,
        TcpState::Open => Some("open"),
        TcpState::Finished => Some("finished"),
        TcpState::Reset => Some("reset"),
    }
}
