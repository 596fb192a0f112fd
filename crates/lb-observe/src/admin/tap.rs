//! `GET /tap`: requests as they end, one line of JSON each, as long as somebody reads them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::peer::Peer;
use super::status::PATIENCE;
use crate::tap::{OpenTap, TapFilter, Taps};

/// How often a line tells of the counts: so that a reader knows what it misses, and a reader that is gone is noticed.
const CADENCE: Duration = Duration::from_secs(1);

/// Bytes of lines that are sent in one piece, about.
const PIECE: usize = 64 * 1024;

/// The lines of a new tap. `None` when as many are open as may be.
pub(super) fn open(taps: &Arc<Taps>, filter: TapFilter, peer: &Rc<Peer>) -> Option<mpsc::Receiver<Bytes>> {
    let tap = taps.open(filter)?;
    let (sender, parts) = mpsc::channel(1);
    let peer = Rc::clone(peer);
    peer.begin_stream();
    tokio::task::spawn_local(async move { pass_on(tap, &sender, &peer).await });
    Some(parts)
}

async fn pass_on(mut tap: OpenTap, sender: &mpsc::Sender<Bytes>, peer: &Peer) {
    let mut clock = interval(CADENCE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(room) = timeout(PATIENCE, sender.reserve()).await else {
            peer.cut();
            return;
        };
        let Ok(room) = room else { return };
        let mut piece = Vec::new();
        tokio::select! {
            () = sender.closed() => return,
            _ = clock.tick() => {
                let (matched, shown) = tap.counts();
                piece.extend_from_slice(format!("{{\"tap\":{{\"matched\":{matched},\"shown\":{shown}}}}}\n").as_bytes());
            }
            line = tap.line() => {
                piece.extend(line.into_iter().flatten());
                while piece.len() < PIECE {
                    let Some(line) = tap.ready() else { break };
                    piece.extend(line);
                }
            }
        }
        room.send(piece.into());
    }
}
