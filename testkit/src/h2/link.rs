//! A connection to a scripted backend: read by one thread, answered by the scripts of its requests.

use super::backend::{BODY_KEPT, H2Request, Manners, REMEMBERED, State};
use super::call::Call;
use super::frame::{self, Frame, PREFACE, setting};
use super::reader::{Event, Reader, Role};
use super::window::Windows;
use crate::pattern::Verifier;
use crate::seconds;
use crate::wire::{Fault, Headers, Wire};
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};

pub(super) type Script = dyn Fn(&mut Call) -> Result<(), Fault> + Send + Sync;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) queue: VecDeque<(Vec<u8>, usize)>,
    pub(super) request: H2Request,
    pub(super) slot: Option<usize>,
    /// Whether the script has ended its own direction.
    pub(super) answered: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) streams: HashMap<u32, Stream>,
    pub(super) send_windows: Windows,
    pub(super) receive_windows: Windows,
    pub(super) gone: bool,
    open: usize,
}

/// A connection, as its reader and the scripts of its requests share it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shared: Mutex<Shared>,
    pub(super) changed: Condvar,
    pub(super) writer: Mutex<TcpStream>,
    pub(super) manners: Manners,
    pub(super) state: Arc<State>,
    pub(super) number: usize,
}

impl Link {
    pub(super) fn send(&self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.writer.lock().unwrap().write_all(bytes.as_ref()).map_err(Fault::from)
    }

    pub(super) fn remember(&self, stream: &Stream) {
        if let Some(slot) = stream.slot
            && let Some(place) = self.state.requests.lock().unwrap().get_mut(slot)
        {
            *place = stream.request.clone();
        }
    }

    /// One direction of a stream came to its end.
    pub(super) fn settle(&self, shared: &mut Shared, stream: u32) {
        let over = shared
            .streams
            .get(&stream)
            .is_some_and(|s| s.answered && s.request.complete || s.request.reset.is_some());
        if over {
            shared.open = shared.open.saturating_sub(1);
        }
    }
}

/// Reads a connection to its end.
pub(super) fn serve(
    stream: TcpStream,
    number: usize,
    state: Arc<State>,
    manners: Manners,
    script: &Arc<Script>,
) {
    stream.set_nodelay(true).ok();
    let Ok(writer) = stream.try_clone() else { return };
    let mut shared = Shared::default();
    for &(id, value) in &manners.settings {
        if id == setting::INITIAL_WINDOW_SIZE {
            // A smaller window binds the peer only once it has acknowledged it; this side does not make that difference.
            shared.receive_windows.set_initial(value.max(65_535));
        }
    }
    let link = Arc::new(Link {
        shared: Mutex::new(shared),
        changed: Condvar::new(),
        writer: Mutex::new(writer),
        manners,
        state: Arc::clone(&state),
        number,
    });
    let mut reader = Reader::new(Wire::new(stream), Role::Server);
    for &(id, value) in &link.manners.settings {
        if id == setting::HEADER_TABLE_SIZE {
            reader.decoder.allow(value as usize);
        }
    }
    // A pooled connection may lie idle for the length of a test.
    reader.wire.set_timeout(seconds(120));
    let outcome = converse(&mut reader, &link, script);
    state.note(number, &outcome);
    let mut shared = link.shared.lock().unwrap();
    shared.gone = true;
    for stream in shared.streams.values_mut() {
        if !stream.request.complete || !stream.answered {
            stream.request.cut = true;
            link.remember(stream);
        }
    }
    drop(shared);
    link.changed.notify_all();
    // A fault of the peer's ends the connection.
    reader.wire.stream().shutdown(Shutdown::Both).ok();
}

fn converse(reader: &mut Reader, link: &Arc<Link>, script: &Arc<Script>) -> Result<(), Fault> {
    let preface = reader.wire.exactly(PREFACE.len())?;
    if preface != PREFACE {
        return Err(Fault::Malformed(format!("preface {:?}", String::from_utf8_lossy(&preface))));
    }
    link.send(frame::settings(&link.manners.settings))?;
    let mut greeted = false;
    loop {
        let event = match reader.event() {
            Err(Fault::Closed) => return Ok(()),
            other => other?,
        };
        if !greeted && !matches!(event, Event::Settings(_)) {
            return Err(Fault::Malformed("the first frame is not SETTINGS".into()));
        }
        greeted = true;
        file(event, link, script)?;
        link.changed.notify_all();
    }
}

fn file(event: Event, link: &Arc<Link>, script: &Arc<Script>) -> Result<(), Fault> {
    let malformed = |why: String| Err(Fault::Malformed(why));
    let mut shared = link.shared.lock().unwrap();
    let shared = &mut *shared;
    match event {
        Event::Headers { stream, headers, end, frames } => {
            if let Some(known) = shared.streams.get_mut(&stream) {
                if !end || known.request.complete || headers.has(":path") {
                    return malformed(format!("stream {stream}: a second head {headers:?}"));
                }
                known.request.trailers = headers;
                known.request.complete = true;
                link.remember(known);
                link.settle(shared, stream);
                return Ok(());
            }
            let newer = shared.streams.keys().max().is_none_or(|last| stream > *last);
            if stream % 2 == 0 || !newer || !headers.has(":method") {
                return malformed(format!("stream {stream}: not a new request: {headers:?}"));
            }
            let request = H2Request {
                headers,
                body: Vec::new(),
                pattern: Verifier::default(),
                trailers: Headers::default(),
                complete: end,
                reset: None,
                cut: false,
                connection: link.number,
                stream,
                head_frames: frames,
                data_frames: 0,
            };
            link.state.request_count.fetch_add(1, Ordering::SeqCst);
            let mut requests = link.state.requests.lock().unwrap();
            let slot = (requests.len() < REMEMBERED).then_some(requests.len());
            if slot.is_some() {
                requests.push(request.clone());
            }
            drop(requests);
            shared.open += 1;
            let open = shared.open;
            link.state.with_control(link.number, |c| {
                // A limit does not bind the peer before it has read our SETTINGS.
                if c.settings_acks > 0 {
                    c.peak_streams = c.peak_streams.max(open);
                }
            });
            shared.streams.insert(stream, Stream { queue: VecDeque::new(), request, slot, answered: false });
            let mut call = Call::new(Arc::clone(link), stream);
            let script = Arc::clone(script);
            let run = move || {
                let outcome = script(&mut call);
                call.conclude(outcome);
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn(run).unwrap();
        }
        Event::Data { stream, bytes, flow, end } => {
            if let Err(why) = shared.receive_windows.take(stream, flow) {
                return malformed(why);
            }
            if flow > 0 && !link.manners.withholds {
                // The connection's window never makes one stream wait for another's script.
                shared.receive_windows.credit(0, flow as u32);
                link.send(frame::window_update(0, flow as u32)).ok();
            }
            let Some(known) = shared.streams.get_mut(&stream).filter(|s| !s.request.complete) else {
                return malformed(format!("DATA on stream {stream}, which is not open"));
            };
            let request = &mut known.request;
            let room = BODY_KEPT.saturating_sub(request.body.len()).min(bytes.len());
            request.body.extend_from_slice(&bytes[..room]);
            request.pattern.feed(&bytes);
            request.data_frames += 1;
            request.complete = end;
            known.queue.push_back((bytes, flow));
            if end {
                link.remember(known);
                link.settle(shared, stream);
            }
        }
        Event::Reset { stream, code } => {
            let Some(known) = shared.streams.get_mut(&stream) else {
                return malformed(format!("a reset of idle stream {stream}"));
            };
            if known.request.reset.is_none() && !(known.answered && known.request.complete) {
                known.request.reset = Some(code);
                link.remember(known);
                link.settle(shared, stream);
            }
        }
        Event::GoAway { last, code, .. } => {
            link.state.with_control(link.number, |c| c.goaways.push((last, code)));
        }
        Event::Settings(pairs) => {
            for (id, value) in pairs {
                if id == setting::INITIAL_WINDOW_SIZE {
                    shared.send_windows.set_initial(value);
                }
                link.state.with_control(link.number, |c| {
                    c.settings.insert(id, value);
                });
            }
            link.send(frame::settings_ack()).ok();
        }
        Event::SettingsAck => link.state.with_control(link.number, |c| c.settings_acks += 1),
        Event::Ping(data) => {
            link.state.with_control(link.number, |c| c.pings += 1);
            if link.manners.answers_pings {
                link.send(frame::pong(data)).ok();
            }
        }
        Event::Pong(_) => link.state.with_control(link.number, |c| c.pongs += 1),
        Event::Window { stream, increment } => shared.send_windows.credit(stream, increment),
        Event::Push { .. } => return malformed("a client that pushes".into()),
        Event::Other(Frame { .. }) => {}
    }
    Ok(())
}
