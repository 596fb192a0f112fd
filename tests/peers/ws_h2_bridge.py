"""Lets a WebSocket client of HTTP/1.1 speak through HTTP/2: each upgrade becomes an extended CONNECT (RFC 8441) to a server of h2c.

The bytes of a tunnel pass as they are, at the pace of the slower side.
"""

import asyncio
import base64
import hashlib

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from common import emit, host_port, server_arguments, text

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DROPPED = {"host", "connection", "upgrade", "sec-websocket-key"}


class Bridge:
    def __init__(self, target, reader, writer):
        self.target, self.reader, self.writer = target, reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.settled, self.opened, self.window = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.head = None

    async def run(self):
        start, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines if line]
        key = next(value for name, value in fields if name.lower() == "sec-websocket-key")
        self.from_server, self.to_server = await asyncio.open_connection(*host_port(self.target))
        self.h2.initiate_connection()
        await self.flush()
        receiving = asyncio.ensure_future(self.receive())
        await self.settled.wait()
        self.stream = self.h2.get_next_available_stream_id()
        passed = [(name.lower(), value) for name, value in fields if name.lower() not in DROPPED]
        pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", start.split()[1])]
        authority = next(value for name, value in fields if name.lower() == "host")
        self.h2.send_headers(self.stream, [*pseudo, (":authority", authority), *passed])
        await self.flush()
        await self.opened.wait()
        if self.head and self.head[0] == ":status 200":
            accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
            self.head[0] = "HTTP/1.1 101 Switching Protocols"
            self.head += ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Accept: {accept}"]
            self.writer.write("\r\n".join([*self.head, "", ""]).encode())
            sending = asyncio.ensure_future(self.send())
            await receiving
            sending.cancel()
        else:
            self.writer.write(b"HTTP/1.1 502 Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            receiving.cancel()

    async def flush(self):
        self.to_server.write(self.h2.data_to_send())
        await self.to_server.drain()

    async def send(self):
        while data := await self.reader.read(65536):
            while data:
                room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
                if room <= 0:
                    self.window.clear()
                    await self.window.wait()
                    continue
                self.h2.send_data(self.stream, data[:room])
                data = data[room:]
                await self.flush()
        self.h2.end_stream(self.stream)
        await self.flush()

    async def receive(self):
        while data := await self.from_server.read(65536):
            for event in self.h2.receive_data(data):
                match event:
                    case h2.events.RemoteSettingsChanged():
                        self.settled.set()
                        self.window.set()
                    case h2.events.WindowUpdated():
                        self.window.set()
                    case h2.events.ResponseReceived():
                        fields = [(text(name), text(value)) for name, value in event.headers]
                        self.head = [f":status {fields[0][1]}"] + [f"{name}: {value}" for name, value in fields[1:]]
                        self.opened.set()
                    case h2.events.DataReceived():
                        self.writer.write(event.data)
                        await self.writer.drain()
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded() | h2.events.StreamReset():
                        await self.flush()
                        return
            await self.flush()
        self.opened.set()


async def main():
    parser = server_arguments(__doc__)
    parser.add_argument("target", help="host:port of the server")
    arguments = parser.parse_args()

    async def bridge(reader, writer):
        tunnel = Bridge(arguments.target, reader, writer)
        try:
            await tunnel.run()
        except (OSError, asyncio.IncompleteReadError, h2.exceptions.ProtocolError) as error:
            emit(event="failed", why=repr(error))
        finally:
            writer.close()
            if hasattr(tunnel, "to_server"):
                tunnel.to_server.close()

    server = await asyncio.start_server(bridge, *host_port(arguments.address))
    emit(event="ready")
    await server.serve_forever()


asyncio.run(main())
