"""A WebSocket client over HTTP/2 (RFC 8441) that runs one scenario and prints what it saw as one line of JSON."""

import json
import select
import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto
import wsproto.connection
import wsproto.events
from wsproto.extensions import PerMessageDeflate

from common import client_arguments, client_context, host_port, text

# The library takes a GOAWAY for the end of everything; what runs goes on (RFC 9113 §6.8).
h2.connection.H2ConnectionStateMachine._transitions[
    (h2.connection.ConnectionState.CLIENT_OPEN, h2.connection.ConnectionInputs.RECV_GOAWAY)
] = (None, h2.connection.ConnectionState.CLIENT_OPEN)

CONNECT = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class Tunnel:
    """One HTTP/2 connection with one tunnel on it."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.sock = socket.create_connection(host_port(arguments.address), timeout=10)
        context = client_context(arguments, ["h2"])
        if context:
            self.sock = context.wrap_socket(self.sock, server_hostname=arguments.name)
            assert self.sock.selected_alpn_protocol() == "h2", "no h2 by ALPN"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.seen = {"status": None, "fields": {}, "close": None, "reset": None, "goaway": None, "ended": False}
        self.settled = False
        self.reading = True
        self.frames = None
        self.messages, self.pongs, self.parts, self.received = [], 0, [], 0
        self.stream = None
        self.flush()

    def flush(self):
        if data := self.h2.data_to_send():
            self.sock.sendall(data)

    def pump(self, seconds=10.0, until=lambda: False):
        """Handles what comes until the condition holds, the stream ends or the time is over. Says whether it holds."""
        end = time.monotonic() + seconds
        while not until() and not self.seen["ended"]:
            left = end - time.monotonic()
            pending = getattr(self.sock, "pending", lambda: 0)()
            if left <= 0 or (not pending and not select.select([self.sock], [], [], left)[0]):
                break
            try:
                data = self.sock.recv(65536)
            except OSError as error:
                data = b""
                self.seen["error"] = type(error).__name__
            if not data:
                self.seen["ended"] = True
                break
            for event in self.h2.receive_data(data):
                self.handle(event)
            self.flush()
        return until()

    def handle(self, event):
        match event:
            case h2.events.RemoteSettingsChanged():
                self.settled = True
            case h2.events.ResponseReceived():
                fields = {text(name): text(value) for name, value in event.headers}
                self.seen["status"] = int(fields.pop(":status"))
                self.seen["fields"] = fields
                if self.seen["status"] == 200:
                    extension = PerMessageDeflate()
                    agreed = fields.get("sec-websocket-extensions")
                    if agreed:
                        extension.finalize(agreed)
                    self.frames = wsproto.connection.Connection(
                        wsproto.ConnectionType.CLIENT, extensions=[extension] if agreed else []
                    )
            case h2.events.DataReceived():
                if self.reading:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.received += len(event.data)
                if self.frames and self.frames.state is not wsproto.connection.ConnectionState.CLOSED:
                    self.frames.receive_data(event.data)
                    for frame in self.frames.events():
                        self.frame(frame)
            case h2.events.StreamEnded():
                self.seen["ended"] = True
            case h2.events.StreamReset():
                self.seen |= {"ended": True, "reset": int(event.error_code)}
            case h2.events.ConnectionTerminated():
                self.seen["goaway"] = int(event.error_code)

    def frame(self, frame):
        match frame:
            case wsproto.events.Message():
                self.parts.append(frame.data)
                if frame.message_finished:
                    self.messages.append(self.parts[0][:0].join(self.parts))
                    self.parts = []
            case wsproto.events.Pong():
                self.pongs += 1
            case wsproto.events.Ping():
                self.send(frame.response())
            case wsproto.events.CloseConnection():
                self.seen["close"] = [frame.code, frame.reason or ""]

    def open(self):
        assert self.pump(until=lambda: self.settled), "no SETTINGS came"
        self.seen["enabled"] = self.h2.remote_settings.get(CONNECT, 0)
        self.stream = self.h2.get_next_available_stream_id()
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https" if self.arguments.ca else "http"),
            (":path", self.arguments.path),
            (":authority", self.arguments.name),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("origin", "http://app.example"),
            ("cookie", "session=1"),
            ("authorization", "Bearer t"),
        ]
        if not self.arguments.plain:
            fields.append(("sec-websocket-extensions", "permessage-deflate"))
        self.h2.send_headers(self.stream, fields)
        self.flush()
        return self.pump(until=lambda: self.seen["status"] is not None) and self.seen["status"] == 200

    def send(self, frame):
        self.send_bytes(self.frames.send(frame))

    def send_bytes(self, data):
        while data and not self.seen["ended"]:
            room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                before = room
                if not self.pump(self.arguments.seconds, lambda: self.h2.local_flow_control_window(self.stream) > 0):
                    self.seen["stalled"] = before == 0
                    return
                continue
            self.h2.send_data(self.stream, data[:room])
            self.flush()
            data = data[room:]

    def close(self, code=1000):
        if self.seen["close"] is None and not self.seen["ended"]:
            self.send(wsproto.events.CloseConnection(code=code, reason="my own reason"))
            self.pump(5, lambda: self.seen["close"] is not None)


def echo(tunnel, arguments):
    right = 0
    for number in range(arguments.count):
        message = f"{number}:".ljust(arguments.size, "x")
        tunnel.send(wsproto.events.TextMessage(message))
        tunnel.pump(until=lambda: len(tunnel.messages) > number)
        right += tunnel.messages[-1:] == [message]
    tunnel.close()
    return {"right": right}


def ping(tunnel, arguments):
    for number in range(arguments.count):
        tunnel.send(wsproto.events.Ping())
        tunnel.pump(until=lambda: tunnel.pongs > number)
    tunnel.close()
    return {"pongs": tunnel.pongs}


def flood(tunnel, arguments):
    for _ in range(arguments.count):
        tunnel.send(wsproto.events.Ping())
    return read(tunnel, arguments)


def read(tunnel, arguments):
    tunnel.pump(arguments.seconds, lambda: tunnel.seen["close"] is not None)
    return {"messages": [message if len(message) < 4096 else len(message) for message in map(text, tunnel.messages)]}


def send_and_read(tunnel, arguments):
    tunnel.send(wsproto.events.BytesMessage(b"m" * arguments.size))
    return read(tunnel, arguments)


def bad_length(tunnel, arguments):
    """A frame of 2^63 bytes."""
    tunnel.send_bytes(b"\x82\xff" + (1 << 63).to_bytes(8, "big"))
    return read(tunnel, arguments)


def half_frame(tunnel, arguments):
    tunnel.send_bytes(b"\x82\x85\x01\x02\x03\x04ab")
    return read(tunnel, arguments)


def close(tunnel, arguments):
    tunnel.close(int(arguments.option))
    return {}


def never_read(tunnel, arguments):
    """Gives no window back: what was received is counted, and then nothing happens for a while."""
    tunnel.reading = False
    tunnel.pump(arguments.seconds)
    return {"received": tunnel.received}


def write_only(tunnel, arguments):
    """Sends until the window is used up and stays so."""
    sent = 0
    message = b"m" * 65536
    while not tunnel.seen.get("stalled") and not tunnel.seen["ended"] and sent < arguments.size:
        tunnel.send(wsproto.events.BytesMessage(message))
        sent += len(message)
    return {"sent": sent}


def cancel(tunnel, arguments):
    tunnel.h2.reset_stream(tunnel.stream, 8)
    tunnel.flush()
    time.sleep(arguments.seconds)
    return {}


SCENARIOS = {
    function.__name__: function
    for function in (echo, ping, flood, read, send_and_read, bad_length, half_frame, close, never_read, write_only, cancel)
}


def main():
    parser = client_arguments(__doc__, SCENARIOS)
    parser.add_argument("--plain", action="store_true", help="without permessage-deflate")
    arguments = parser.parse_args()
    began = time.monotonic()
    tunnel = Tunnel(arguments)
    seen = {}
    if tunnel.open():
        seen = SCENARIOS[arguments.scenario](tunnel, arguments)
    print(json.dumps(tunnel.seen | seen | {"seconds": time.monotonic() - began}))


main()
