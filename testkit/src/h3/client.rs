//! An HTTP/3 client that sends exactly the given frames, and files what comes back.
//!
//! It belongs to one thread. A stream is read only while a call waits for something on it, so that a stream nobody asks for fills its window;
//! QUIC itself goes on in the background.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};

use super::frame::{self, code, kind, read_varint, stream};
use super::qpack;
use super::reader::Reader;
use super::response::H3Response;
use crate::quic::{self, QuicClient, QuicConnection, wait};
use crate::seconds;
use crate::wire::{Fault, Headers};

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// How long a call waits.
const LIMIT: Duration = seconds(20);

/// What came on the server's unidirectional streams.
#[derive(Debug, Default)]
pub struct Heard {
    /// Its SETTINGS.
    pub settings: Option<BTreeMap<u64, u64>>,
    /// The identifiers of its GOAWAYs.
    pub goaways: Vec<u64>,
    /// The types of its streams.
    pub streams: Vec<u64>,
    /// What breaks the protocol.
    pub faults: Vec<String>,
}

struct Halves {
    send: SendStream,
    receive: RecvStream,
    reader: Reader,
}

/// A connection to a server. Its drop ends the connection with H3_NO_ERROR.
pub struct H3Client {
    /// QUIC below.
    pub quic: QuicConnection,
    /// What came on each request stream.
    pub streams: BTreeMap<u64, H3Response>,
    /// The `:authority` of requests.
    pub authority: String,
    /// Unidirectional streams that this side has opened, the control stream first unless the client is silent.
    pub told: Vec<SendStream>,
    halves: BTreeMap<u64, Halves>,
    heard: Arc<Mutex<Heard>>,
}

impl H3Client {
    /// Connects, opens the control stream with empty SETTINGS, and waits for the server's.
    pub fn connect(to: SocketAddr) -> Result<H3Client, Fault> {
        let quic = QuicClient::default().connect(to).map_err(fault_of)?;
        H3Client::over(quic)
    }

    /// Speaks HTTP/3 on a connection.
    pub fn over(quic: QuicConnection) -> Result<H3Client, Fault> {
        let mut client = H3Client::silent(quic);
        client.tell(stream::CONTROL, frame::settings(&[]))?;
        let deadline = Instant::now() + LIMIT;
        while client.heard().settings.is_none() {
            if let Some(reason) = client.quic.quic.close_reason() {
                return Err(fault_of(reason));
            }
            if Instant::now() > deadline {
                return Err(Fault::TimedOut);
            }
            std::thread::sleep(crate::ms(1));
        }
        Ok(client)
    }

    /// A client that has opened no stream yet.
    pub fn silent(quic: QuicConnection) -> H3Client {
        let heard = Arc::new(Mutex::new(Heard::default()));
        quic::runtime().spawn(listen(quic.quic.clone(), Arc::clone(&heard)));
        H3Client {
            quic,
            streams: BTreeMap::new(),
            authority: quic::NAME.to_owned(),
            told: Vec::new(),
            halves: BTreeMap::new(),
            heard,
        }
    }

    /// What came on the server's unidirectional streams.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    /// Opens a unidirectional stream of this type, which says `bytes` and stays open.
    pub fn tell(&mut self, kind: u64, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        let bytes = [frame::varint(kind), bytes.as_ref().to_vec()].concat();
        let stream = wait(LIMIT, async {
            let mut stream = self.quic.quic.open_uni().await.map_err(fault_of)?;
            stream.write_all(&bytes).await.map_err(write_fault)?;
            Ok::<_, Fault>(stream)
        })??;
        self.told.push(stream);
        Ok(())
    }

    /// Says more on a unidirectional stream of this side, counted from 0.
    pub fn tell_more(&mut self, at: usize, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        wait(LIMIT, self.told[at].write_all(bytes.as_ref()))?.map_err(write_fault)
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
            (":scheme", "https"),
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
    ) -> Result<u64, Fault> {
        let head = frame::headers(qpack::section(&self.fields(method, path, headers)));
        let id = self.open_with(head, end)?;
        self.halves.get_mut(&id).expect("it was opened").reader = Reader::new(method == "HEAD");
        Ok(id)
    }

    /// Opens a request stream that says `bytes`. Where `end` is set and the window has room for them, the end comes with them.
    pub fn open_with(&mut self, bytes: impl AsRef<[u8]>, end: bool) -> Result<u64, Fault> {
        let (quic, bytes) = (self.quic.quic.clone(), bytes.as_ref().to_vec());
        // On the thread of the driver, so that it sends nothing between the two.
        let (send, receive) = wait(
            LIMIT,
            quic::runtime().spawn(async move {
                let (mut send, receive) = quic.open_bi().await.map_err(fault_of)?;
                let written = send.write_all(&bytes).await;
                if end && written.is_ok() {
                    send.finish().ok();
                }
                match written {
                    // The server may answer before it has read everything.
                    Ok(()) | Err(WriteError::Stopped(_)) => Ok((send, receive)),
                    Err(other) => Err(write_fault(other)),
                }
            }),
        )?
        .expect("it does not panic")?;
        Ok(self.enter(send, receive))
    }

    /// Opens a request stream.
    pub fn begin(&mut self) -> Result<u64, Fault> {
        let (send, receive) = wait(LIMIT, self.quic.quic.open_bi())?.map_err(fault_of)?;
        Ok(self.enter(send, receive))
    }

    fn enter(&mut self, send: SendStream, receive: RecvStream) -> u64 {
        let id = u64::from(send.id());
        self.streams.insert(id, H3Response::default());
        self.halves.insert(id, Halves { send, receive, reader: Reader::new(false) });
        id
    }

    /// Sends bytes as they are, reading what comes on the stream while its window is shut.
    pub fn send(&mut self, id: u64, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let (halves, response) = self.both(id)?;
            let Halves { send, receive, reader } = halves;
            let is_over = response.is_over();
            let filed = wait(LIMIT, async {
                tokio::select! {
                    biased;
                    written = send.write(rest) => written.map_err(write_fault).map(|count| rest = &rest[count..]),
                    filed = step(receive, reader, response), if !is_over => filed,
                }
            })?;
            filed?;
        }
        Ok(())
    }

    /// Sends content in one frame.
    pub fn data(&mut self, id: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.send(id, frame::header(kind::DATA, bytes.len() as u64))?;
        self.send(id, bytes)
    }

    /// Sends a second field section.
    pub fn trailers(&mut self, id: u64, fields: &[(&str, &str)]) -> Result<(), Fault> {
        self.send(id, frame::headers(qpack::section(fields)))?;
        self.end(id)
    }

    /// Ends the request.
    pub fn end(&mut self, id: u64) -> Result<(), Fault> {
        // A stream that the server has stopped has no end.
        self.both(id)?.0.send.finish().ok();
        Ok(())
    }

    /// Gives up on a request: RESET_STREAM and STOP_SENDING.
    pub fn reset(&mut self, id: u64, code: u64) -> Result<(), Fault> {
        let halves = self.both(id)?.0;
        halves.send.reset(quic::code(code)).ok();
        halves.receive.stop(quic::code(code)).ok();
        Ok(())
    }

    /// Ends the request alone, by RESET_STREAM.
    pub fn reset_request(&mut self, id: u64, code: u64) -> Result<(), Fault> {
        self.both(id)?.0.send.reset(quic::code(code)).ok();
        Ok(())
    }

    /// The code of the server's STOP_SENDING, if one comes in time.
    pub fn stopped(&mut self, id: u64, limit: Duration) -> Option<u64> {
        let stopped = self.both(id).ok()?.0.send.stopped();
        wait(limit, stopped).ok()?.ok()?.map(|code| code.into_inner())
    }

    /// Sends a request and waits for the whole response.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<H3Response, Fault> {
        let id = self.open(method, path, headers, body.is_empty())?;
        if !body.is_empty() {
            match self.data(id, body) {
                // The server may answer early, and want no more (RFC 9114 section 4.1).
                Ok(()) => self.end(id)?,
                Err(Fault::Reset) => {}
                Err(other) => return Err(other),
            }
        }
        self.response(id)
    }

    /// Sends a GET and waits for the whole response.
    pub fn get(&mut self, path: &str) -> Result<H3Response, Fault> {
        self.request("GET", path, &[], b"")
    }

    /// Reads a stream until `condition` holds or it is over.
    pub fn until(
        &mut self,
        id: u64,
        limit: Duration,
        condition: impl Fn(&H3Response) -> bool,
    ) -> Result<(), Fault> {
        let (Halves { receive, reader, .. }, response) = self.both(id)?;
        wait(limit, async {
            while !condition(response) && !response.is_over() {
                step(receive, reader, response).await?;
            }
            Ok(())
        })?
    }

    /// Waits until a stream is over, in whatever manner.
    pub fn over_with(&mut self, id: u64) -> Result<H3Response, Fault> {
        self.until(id, LIMIT, H3Response::is_over)?;
        Ok(self.streams[&id].clone())
    }

    /// Waits for the whole response; a reset before its end is a fault.
    pub fn response(&mut self, id: u64) -> Result<H3Response, Fault> {
        let response = self.over_with(id)?;
        match response.reset {
            Some(code) => Err(Fault::Truncated(format!("stream {id}, reset with {code:#x}"))),
            None => Ok(response),
        }
    }

    /// Waits for the final head.
    pub fn head(&mut self, id: u64) -> Result<Headers, Fault> {
        self.until(id, LIMIT, |response| response.head.is_some())?;
        let found = self.streams[&id].head.clone();
        found.ok_or_else(|| Fault::Truncated(format!("stream {id}, before its head")))
    }

    /// The code with which the server ends the connection, and whether it is one of HTTP/3; panics when it does not end it within 10 s.
    #[track_caller]
    pub fn closed(&self) -> (bool, u64) {
        let why = self.quic.closed(seconds(10)).expect("the server ends the connection");
        quic::code_of(&why).unwrap_or_else(|| panic!("the connection ended by {why}"))
    }

    fn both(&mut self, id: u64) -> Result<(&mut Halves, &mut H3Response), Fault> {
        let found = self.halves.get_mut(&id).zip(self.streams.get_mut(&id));
        found.ok_or_else(|| Fault::Malformed(format!("stream {id} was not opened")))
    }
}

impl Drop for H3Client {
    fn drop(&mut self) {
        self.quic.quic.close(quic::code(code::NO_ERROR), b"");
    }
}

/// Reads once from a stream.
async fn step(receive: &mut RecvStream, reader: &mut Reader, response: &mut H3Response) -> Result<(), Fault> {
    match receive.read_chunk(PIECE, true).await {
        Ok(Some(chunk)) => reader.take(&chunk.bytes, response).map_err(Fault::Malformed),
        Ok(None) => reader.finish(response).map_err(Fault::Malformed),
        Err(ReadError::Reset(code)) => {
            response.reset = Some(code.into_inner());
            Ok(())
        }
        Err(ReadError::ConnectionLost(why)) => {
            let said = format!("a response: {why}");
            Err(match fault_of(why) {
                Fault::Closed => Fault::Truncated(said),
                other => other,
            })
        }
        Err(other) => Err(Fault::Malformed(other.to_string())),
    }
}

fn write_fault(error: WriteError) -> Fault {
    match error {
        WriteError::Stopped(_) => Fault::Reset,
        WriteError::ConnectionLost(why) => fault_of(why),
        other => Fault::Malformed(other.to_string()),
    }
}

fn fault_of(error: ConnectionError) -> Fault {
    match error {
        ConnectionError::TimedOut => Fault::TimedOut,
        ConnectionError::Reset => Fault::Reset,
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => Fault::Closed,
        other => Fault::Malformed(other.to_string()),
    }
}

/// Files what the server says on its unidirectional streams.
async fn listen(quic: quinn::Connection, heard: Arc<Mutex<Heard>>) {
    while let Ok(stream) = quic.accept_uni().await {
        quic::runtime().spawn(hear(stream, Arc::clone(&heard)));
    }
}

async fn hear(mut receive: RecvStream, heard: Arc<Mutex<Heard>>) {
    let (mut bytes, mut opened) = (Vec::new(), None);
    loop {
        let end = match receive.read_chunk(PIECE, true).await {
            Ok(Some(chunk)) => {
                bytes.extend_from_slice(&chunk.bytes);
                false
            }
            Ok(None) | Err(ReadError::Reset(_)) => true,
            Err(_) => return,
        };
        let mut heard = heard.lock().unwrap();
        if opened.is_none()
            && let Some((kind, length)) = read_varint(&bytes)
        {
            if kind <= stream::QPACK_DECODER && heard.streams.contains(&kind) {
                heard.faults.push(format!("a second stream of type {kind}"));
            }
            heard.streams.push(kind);
            bytes.drain(..length);
            opened = Some(kind);
        }
        if opened == Some(stream::CONTROL) {
            while let Some((kind, payload)) = whole(&mut bytes) {
                control(kind, &payload, &mut heard);
            }
        } else {
            bytes.clear();
        }
        if end {
            if opened.is_some_and(|kind| kind <= stream::QPACK_DECODER) {
                heard.faults.push("a critical stream has ended".into());
            }
            return;
        }
    }
}

/// Takes a whole frame from the start of `bytes`.
fn whole(bytes: &mut Vec<u8>) -> Option<(u64, Vec<u8>)> {
    let (kind, first) = read_varint(bytes)?;
    let (length, second) = read_varint(&bytes[first..])?;
    let begin = first + second;
    let payload = bytes.get(begin..begin + usize::try_from(length).ok()?)?.to_vec();
    bytes.drain(..begin + payload.len());
    Some((kind, payload))
}

fn control(frame: u64, mut payload: &[u8], heard: &mut Heard) {
    let mut next = || {
        let (value, length) = read_varint(payload)?;
        payload = &payload[length..];
        Some(value)
    };
    match frame {
        kind::SETTINGS if heard.settings.is_none() => {
            let mut settings = BTreeMap::new();
            while let Some(id) = next() {
                let twice = next().map(|value| settings.insert(id, value));
                if twice != Some(None) || matches!(id, 0x2..=0x5) {
                    heard.faults.push(format!("setting {id:#x}"));
                }
            }
            heard.settings = Some(settings);
        }
        _ if heard.settings.is_none() => heard.faults.push(format!("{frame:#x} before SETTINGS")),
        kind::GOAWAY => {
            let id = next().unwrap_or(u64::MAX);
            if heard.goaways.last().is_some_and(|last| id > *last) || id % 4 != 0 {
                heard.faults.push(format!("GOAWAY {id} after {:?}", heard.goaways));
            }
            heard.goaways.push(id);
        }
        kind::DATA
        | kind::HEADERS
        | kind::SETTINGS
        | kind::PUSH_PROMISE
        | kind::MAX_PUSH_ID
        | 0x2
        | 0x6
        | 0x8
        | 0x9 => heard.faults.push(format!("{frame:#x} on the control stream")),
        _ => {}
    }
}
