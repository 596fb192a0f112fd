//! An HTTP/2 client that sends exactly the given frames, and files what comes back.
//!
//! It belongs to one thread: sending never reads unless a window is shut, and every wait reads for all streams. It acknowledges SETTINGS
//! and answers PING by itself, and gives credit back for what it has read unless told to withhold it.

use super::frame::{self, PREFACE, setting};
use super::hpack;
use super::reader::{Event, Reader, Role};
use super::response::{BODY_KEPT, GoAway, H2Response, status_of};
use super::window::Windows;
use crate::wire::{Fault, Headers, Wire};
use crate::{ms, seconds};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The largest DATA that any peer must take.
const DATA_SIZE: usize = 16_384;

/// A connection to a server.
#[derive(Debug)]
pub struct H2Client {
    /// The socket, and what was read from it.
    pub reader: Reader,
    /// What came on each stream.
    pub streams: BTreeMap<u32, H2Response>,
    /// The server's SETTINGS.
    pub settings: BTreeMap<u16, u32>,
    /// Every GOAWAY.
    pub goaways: Vec<GoAway>,
    /// Every answer to a PING.
    pub pongs: Vec<[u8; 8]>,
    /// How many of our SETTINGS were acknowledged.
    pub settings_acks: usize,
    /// How many PINGs came.
    pub pings: usize,
    /// Why nothing more can be read.
    pub gone: Option<String>,
    /// How many bytes were sent.
    pub sent: u64,
    /// The windows that the server gave.
    pub send_windows: Windows,
    receive_windows: Windows,
    shrink: Option<u32>,
    withheld: bool,
    answers_pings: bool,
    acknowledges: bool,
    next: u32,
    /// The `:authority` of requests.
    pub authority: String,
}

impl H2Client {
    /// Connects, sends the preface and empty SETTINGS, and waits for the server's.
    pub fn connect(to: SocketAddr) -> Result<H2Client, Fault> {
        H2Client::connect_with(to, &[])
    }

    /// Connects with these SETTINGS.
    pub fn connect_with(to: SocketAddr, settings: &[(u16, u32)]) -> Result<H2Client, Fault> {
        let mut client = H2Client::silent(TcpStream::connect_timeout(&to, seconds(10))?);
        client.greet(settings)?;
        Ok(client)
    }

    /// Connects with a receive buffer so small that the peer notices at once when this side does not read.
    pub fn connect_narrow(to: SocketAddr, settings: &[(u16, u32)]) -> Result<H2Client, Fault> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(16 * 1024)?;
        socket.connect_timeout(&to.into(), seconds(10))?;
        let mut client = H2Client::silent(socket.into());
        client.greet(settings)?;
        Ok(client)
    }

    /// As [`Self::connect`], on a connection that exists.
    pub fn on(stream: TcpStream) -> Result<H2Client, Fault> {
        let mut client = H2Client::silent(stream);
        client.greet(&[])?;
        Ok(client)
    }

    /// A client that has not sent anything yet.
    pub fn silent(stream: TcpStream) -> H2Client {
        H2Client {
            reader: Reader::new(Wire::new(stream), Role::Client),
            streams: BTreeMap::new(),
            settings: BTreeMap::new(),
            goaways: Vec::new(),
            pongs: Vec::new(),
            settings_acks: 0,
            pings: 0,
            gone: None,
            sent: 0,
            send_windows: Windows::default(),
            receive_windows: Windows::default(),
            shrink: None,
            withheld: false,
            answers_pings: true,
            acknowledges: true,
            next: 1,
            authority: "test.example".to_owned(),
        }
    }

    fn greet(&mut self, settings: &[(u16, u32)]) -> Result<(), Fault> {
        self.send(PREFACE)?;
        self.send_settings(settings)?;
        self.until("the server's SETTINGS", seconds(20), |client| client.settings_acks > 0)
    }

    /// Gives no credit back by itself from now on.
    pub fn withhold(mut self) -> H2Client {
        self.withheld = true;
        self
    }

    /// Lets PINGs go unanswered from now on.
    pub fn ignore_pings(mut self) -> H2Client {
        self.answers_pings = false;
        self
    }

    /// Acknowledges no SETTINGS from now on.
    pub fn ignore_settings(mut self) -> H2Client {
        self.acknowledges = false;
        self
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.reader.wire.send(bytes.as_ref())?;
        self.sent += bytes.as_ref().len() as u64;
        Ok(())
    }

    /// Sends what it can, reading meanwhile; `false` once the peer is gone. For floods that get cut short.
    pub fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.wire.stream().set_write_timeout(Some(ms(2000))).ok();
        for piece in bytes.as_ref().chunks(64 * 1024) {
            if self.gone.is_some() || self.send(piece).is_err() {
                self.pump(ms(200));
                return false;
            }
            self.pump(ms(1));
        }
        self.gone.is_none()
    }

    /// Sends SETTINGS, and keeps to them.
    pub fn send_settings(&mut self, settings: &[(u16, u32)]) -> Result<(), Fault> {
        for &(id, value) in settings {
            match id {
                setting::INITIAL_WINDOW_SIZE if i64::from(value) >= self.receive_windows.initial() => {
                    self.receive_windows.set_initial(value);
                }
                // Smaller windows bind the server only once it has read of them.
                setting::INITIAL_WINDOW_SIZE => self.shrink = Some(value),
                setting::HEADER_TABLE_SIZE => self.reader.decoder.allow(value as usize),
                _ => {}
            }
        }
        self.send(frame::settings(settings))
    }

    /// Opens a window of the server's further.
    pub fn credit(&mut self, stream: u32, increment: u32) -> Result<(), Fault> {
        self.receive_windows.credit(stream, increment);
        self.send(frame::window_update(stream, increment))
    }

    /// The next stream's number.
    pub fn next_stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.streams.insert(stream, H2Response::default());
        stream
    }

    /// The fields of a request, the pseudo fields first.
    pub fn fields<'a>(
        &'a self,
        method: &'a str,
        path: &'a str,
        headers: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let pseudo = [
            (":method", method),
            (":scheme", "http"),
            (":authority", self.authority.as_str()),
            (":path", path),
        ];
        [&pseudo, headers].concat()
    }

    /// Opens a stream with a well-formed head.
    pub fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        end: bool,
    ) -> Result<u32, Fault> {
        let block = hpack::block(&self.fields(method, path, headers));
        self.open_block(&block, end)
    }

    /// Opens a stream with this field block.
    pub fn open_block(&mut self, block: &[u8], end: bool) -> Result<u32, Fault> {
        let stream = self.next_stream();
        self.send(frame::headers_in_pieces(stream, block, end, DATA_SIZE))?;
        Ok(stream)
    }

    /// Sends content as the windows allow, reading while they do not.
    pub fn data(&mut self, stream: u32, bytes: &[u8], end: bool) -> Result<(), Fault> {
        let mut rest = bytes;
        // Since the last progress.
        let mut start = Instant::now();
        while !rest.is_empty() {
            let room = self.send_windows.room(stream).min(DATA_SIZE).min(rest.len());
            if room == 0 {
                if self.streams.get(&stream).is_some_and(|s| s.reset.is_some()) {
                    return Err(Fault::Reset);
                }
                if start.elapsed() > seconds(20) {
                    return Err(Fault::TimedOut);
                }
                match self.step(seconds(1)) {
                    Ok(()) | Err(Fault::TimedOut) => continue,
                    Err(other) => return Err(other),
                }
            }
            let (piece, after) = rest.split_at(room);
            rest = after;
            start = Instant::now();
            self.send_windows.take(stream, room).ok();
            self.send(frame::data(stream, piece, end && rest.is_empty()))?;
        }
        if bytes.is_empty() && end {
            self.send(frame::data(stream, [], true))?;
        }
        Ok(())
    }

    /// Ends a stream with trailers.
    pub fn trailers(&mut self, stream: u32, fields: &[(&str, &str)]) -> Result<(), Fault> {
        self.send(frame::headers(stream, hpack::block(fields), true))
    }

    /// Resets a stream.
    pub fn reset(&mut self, stream: u32, code: u32) -> Result<(), Fault> {
        self.send(frame::rst_stream(stream, code))
    }

    /// Sends a request and waits for the whole response.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<H2Response, Fault> {
        let stream = self.open(method, path, headers, body.is_empty())?;
        if !body.is_empty() {
            match self.data(stream, body, true) {
                // An early answer may end with RST_STREAM NO_ERROR (RFC 9113 section 8.1).
                Err(Fault::Reset) if self.streams[&stream].is_over() => {}
                other => other?,
            }
        }
        self.response(stream)
    }

    /// Sends a GET and waits for the whole response.
    pub fn get(&mut self, path: &str) -> Result<H2Response, Fault> {
        self.request("GET", path, &[], b"")
    }

    /// Waits until a stream is over, in whatever manner.
    pub fn over(&mut self, stream: u32) -> Result<H2Response, Fault> {
        self.until("the end of a stream", seconds(20), |c| {
            c.streams.get(&stream).is_none_or(H2Response::is_over)
        })?;
        Ok(self.streams.get(&stream).cloned().unwrap_or_default())
    }

    /// Waits for the whole response; a reset before its end is a fault.
    pub fn response(&mut self, stream: u32) -> Result<H2Response, Fault> {
        let response = self.over(stream)?;
        match response.reset {
            Some(code) if !response.ended => {
                Err(Fault::Truncated(format!("stream {stream}, reset with {code}")))
            }
            _ => Ok(response),
        }
    }

    /// Waits for the final head.
    pub fn head(&mut self, stream: u32) -> Result<Headers, Fault> {
        self.until("a head", seconds(20), |c| {
            c.streams.get(&stream).is_none_or(|s| s.head.is_some() || s.is_over())
        })?;
        let found = self.streams.get(&stream).and_then(|s| s.head.clone());
        found.ok_or_else(|| Fault::Truncated(format!("stream {stream}, before its head")))
    }

    /// Reads until `condition` holds.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&H2Client) -> bool,
    ) -> Result<(), Fault> {
        let start = Instant::now();
        while !condition(self) {
            let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero());
            let Some(left) = left else {
                return Err(Fault::Malformed(format!("not within {limit:?}: {what}")));
            };
            match self.step(left) {
                Err(Fault::TimedOut) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Reads whatever comes until nothing has come for `span`, or the peer is gone.
    pub fn pump(&mut self, span: Duration) {
        while self.step(span).is_ok() {}
    }

    /// Reads whatever comes during `span`.
    pub fn read_for(&mut self, span: Duration) {
        let start = Instant::now();
        while let Some(left) = span.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            if let Err(fault) = self.step(left)
                && !matches!(fault, Fault::TimedOut)
            {
                return;
            }
        }
    }

    /// Waits until the peer has ended the connection.
    pub fn closed(&mut self, limit: Duration) -> Result<(), String> {
        let outcome = self.until("the end of the connection", limit, |client| client.gone.is_some());
        if self.gone.is_some() { Ok(()) } else { outcome.map_err(|fault| fault.to_string()) }
    }

    /// Makes the coming drop of this client reset the connection.
    pub fn abandon(self) {
        SockRef::from(self.reader.wire.stream()).set_linger(Some(Duration::ZERO)).ok();
    }

    /// Reads one event and files it.
    pub fn step(&mut self, limit: Duration) -> Result<(), Fault> {
        if let Some(why) = &self.gone {
            return Err(Fault::Truncated(format!("a connection that is gone: {why}")));
        }
        self.reader.wire.set_timeout(limit.max(ms(1)));
        let filed = self.reader.event().and_then(|event| self.file(event));
        match &filed {
            Err(Fault::TimedOut) | Ok(()) => {}
            Err(other) => self.gone = Some(other.to_string()),
        }
        filed
    }

    fn file(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Headers { stream, headers, end, frames } => {
                let state = self.stream(stream)?;
                match (status_of(Some(&headers)), &state.head) {
                    (0, Some(_)) if end => state.trailers = headers,
                    (100..=199, None) if !end => state.interim.push(headers),
                    (200..=999, None) => (state.head, state.head_frames) = (Some(headers), frames),
                    _ => return Err(Fault::Malformed(format!("stream {stream}: {headers:?}"))),
                }
                state.ended |= end;
            }
            Event::Data { stream, bytes, flow, end } => {
                self.receive_windows.take(stream, flow).map_err(Fault::Malformed)?;
                let state = self.stream(stream)?;
                if state.head.is_none() {
                    return Err(Fault::Malformed(format!("stream {stream}: DATA before a head")));
                }
                let room = BODY_KEPT.saturating_sub(state.body.len()).min(bytes.len());
                state.body.extend_from_slice(&bytes[..room]);
                state.pattern.feed(&bytes);
                state.data_frames += 1;
                state.ended |= end;
                if flow > 0 && !self.withheld {
                    // Where the peer is gone already, what it sent before is still worth reading.
                    self.credit(0, flow as u32).ok();
                    if !end {
                        self.credit(stream, flow as u32).ok();
                    }
                }
            }
            Event::Reset { stream, code } => {
                // An idle stream cannot be reset.
                let state = self.streams.get_mut(&stream);
                let state =
                    state.ok_or_else(|| Fault::Malformed(format!("a reset of idle stream {stream}")))?;
                state.reset = Some(code);
            }
            Event::GoAway { last, code, .. } => self.goaways.push(GoAway { last, code }),
            Event::Settings(pairs) => {
                for (id, value) in pairs {
                    if id == setting::INITIAL_WINDOW_SIZE {
                        self.send_windows.set_initial(value);
                    }
                    self.settings.insert(id, value);
                }
                if self.acknowledges {
                    self.send(frame::settings_ack()).ok();
                }
            }
            Event::SettingsAck => {
                self.settings_acks += 1;
                if let Some(size) = self.shrink.take() {
                    self.receive_windows.set_initial(size);
                }
            }
            Event::Ping(data) => {
                self.pings += 1;
                if self.answers_pings {
                    self.send(frame::pong(data)).ok();
                }
            }
            Event::Pong(data) => self.pongs.push(data),
            Event::Window { stream, increment } => self.send_windows.credit(stream, increment),
            Event::Push { .. } => return Err(Fault::Malformed("a push that nobody asked for".into())),
            Event::Other(_) => {}
        }
        Ok(())
    }

    fn stream(&mut self, stream: u32) -> Result<&mut H2Response, Fault> {
        match self.streams.get_mut(&stream) {
            Some(state) if !state.ended => Ok(state),
            Some(_) => Err(Fault::Malformed(format!("stream {stream}: more after its end"))),
            None => Err(Fault::Malformed(format!("stream {stream} is idle"))),
        }
    }
}
