//! A browser that a test drives: pages are opened, scripts run in them, and what the browser says of them is kept (Chrome DevTools Protocol).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::seconds;
use crate::tools::Tool;
use crate::websocket::{frame, parse};

/// A browser without a screen, with one page. Killed when dropped.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
    _profile: TempDir,
    socket: TcpStream,
    buffer: Vec<u8>,
    session: Option<String>,
    last_id: u64,
    /// Errors that the page's scripts or the browser told of.
    pub errors: Vec<String>,
    /// Every address that the page asked for.
    pub requests: Vec<String>,
}

impl Browser {
    /// Starts Chromium with an empty page. Only for tests that need [`Tool::Chromium`].
    #[track_caller]
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(Tool::Chromium.path().expect("the test needs it"));
        command.args(super::QUIET).args(["--remote-debugging-port=0", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let process = Process::spawn(command);
        let said = process.stderr.wait_from(0, seconds(60), |line| line.contains("DevTools listening on "));
        let line = said.unwrap_or_else(|| panic!("no DevTools: {}", process.tail(20)));
        let url = line.split("ws://").nth(1).unwrap().trim().to_owned();
        let (host, path) = url.split_once('/').unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        write!(
            socket,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let mut browser = Browser {
            _process: process,
            _profile: profile,
            socket,
            buffer: Vec::new(),
            session: None,
            last_id: 0,
            errors: Vec::new(),
            requests: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Loads a page and waits until it and what it loads are there.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.wait("document.readyState === 'complete'", seconds(20));
    }

    /// The value of a script's expression in the page; a promise is waited for.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true });
        let said = self.call("Runtime.evaluate", parameters);
        assert!(said.get("exceptionDetails").is_none(), "{expression}: {said:#}");
        said["result"]["value"].clone()
    }

    /// Waits until an expression is true, and says how long that took.
    #[track_caller]
    pub fn wait(&mut self, expression: &str, limit: Duration) -> Duration {
        let begun = Instant::now();
        while self.evaluate(expression) != Value::Bool(true) {
            let text =
                if begun.elapsed() > limit { self.evaluate("document.body.innerText") } else { Value::Null };
            assert!(
                begun.elapsed() <= limit,
                "{expression} is not true after {limit:?}; errors {:#?}; {text}",
                self.errors
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    }

    /// Types a text into the element that has the focus, as a keyboard does.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key, by its name in `KeyboardEvent.key`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => (u32::from(other.bytes().next().unwrap()), other),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let parameters =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", parameters);
        }
    }

    /// Has the page be so wide and high, on a phone or not.
    pub fn resize(&mut self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let parameters =
            json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", parameters);
    }

    /// Has the page prefer `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Writes a picture of the page as PNG; of all of it where `is_whole`.
    pub fn picture(&mut self, path: &Path, is_whole: bool) {
        let said = self
            .call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": is_whole }));
        let text = said["data"].as_str().unwrap();
        let mut bytes = vec![0; text.len()];
        let length = STANDARD.decode_slice(text, &mut bytes).unwrap();
        std::fs::write(path, &bytes[..length]).unwrap();
    }

    /// Calls a method, and takes note of what is told meanwhile.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        // A server takes nothing that is not masked, and zero is a mask.
        let bytes = frame(0x81, message.to_string().as_bytes(), Some([0; 4]));
        self.socket.write_all(&bytes).unwrap();
        loop {
            let message = self.message();
            if message["id"] == self.last_id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.take_note(&message);
        }
    }

    fn take_note(&mut self, message: &Value) {
        let told = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.errors.push(format!("{}", told["exceptionDetails"])),
            "Runtime.consoleAPICalled" if told["type"] == "error" || told["type"] == "warning" => {
                self.errors.push(format!("console: {}", told["args"]));
            }
            "Log.entryAdded" if told["entry"]["level"] == "error" => {
                self.errors.push(format!("log: {}", told["entry"]));
            }
            "Network.requestWillBeSent" => {
                self.requests.push(told["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            _ => {}
        }
    }

    fn message(&mut self) -> Value {
        let mut text = Vec::new();
        loop {
            let Some((first, payload, length)) = parse(&self.buffer) else {
                let mut part = [0; 65_536];
                self.socket.set_read_timeout(Some(seconds(60))).unwrap();
                let count = self.socket.read(&mut part).expect("the browser answers");
                assert!(count > 0, "the browser has closed the connection");
                self.buffer.extend(&part[..count]);
                continue;
            };
            self.buffer.drain(..length);
            text.extend(payload);
            if first & 0x80 != 0 {
                return serde_json::from_slice(&text).unwrap();
            }
        }
    }
}
