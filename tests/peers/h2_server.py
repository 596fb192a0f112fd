"""An HTTP/2 server that can misbehave. The path says what a stream gets; requests and resets are told on stdout.

/echo             the body as it comes, and trailers x-trailer: done
/headers          the fields of the request as JSON
/bytes/N          N bytes
/status/N         status N
/refuse-first     the first such stream is refused (REFUSED_STREAM), later ones are answered
/goaway-first     the first such stream is left unprocessed by a GOAWAY, later ones are answered
/goaway           answered, with a GOAWAY half way
/reset/N          head, then RST_STREAM with code N
/slow-read        takes 64 KiB of the body and gives no more window for 3 seconds
/grpc/status/N    gRPC, trailers only
/grpc/http/N      plain HTTP status N without grpc-status
/grpc/prefix      a message that claims 4 GiB and has 4 bytes
/grpc/reset/N     gRPC head, then RST_STREAM with code N
/grpc/ok-reset    a whole gRPC answer, then RST_STREAM(CANCEL)
/grpc/hang        no answer; /grpc/hang/head a head and a message, and then nothing
/grpc/cut         gRPC head and a message, then the end of the connection
CONNECT with :protocol = websocket: an echo of messages; path /deaf never reads, /flood/N sends N messages, /refuse is a 403
"""

import asyncio
import json

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import wsproto
import wsproto.connection
import wsproto.events
import wsproto.extensions

from common import emit, host_port, server_arguments, server_context, text

GRPC = [("content-type", "application/grpc")]
EMPTY_MESSAGE = b"\0\0\0\0\0"


class Server(asyncio.Protocol):
    first = {"/refuse-first", "/goaway-first"}

    def __init__(self):
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=True)
        self.h2 = h2.connection.H2Connection(config)
        self.paths, self.bodies, self.windows, self.tunnels = {}, {}, {}, {}
        self.tasks = set()

    def connection_made(self, transport):
        self.transport = transport
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
            },
        )
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, error):
        for window in self.windows.values():
            window.set()
        for task in self.tasks:
            task.cancel()

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data):
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            emit(event="fault", what=str(error))
            self.flush()
            self.transport.close()
            return
        for event in events:
            self.handle(event)
        self.flush()

    def handle(self, event):
        stream = getattr(event, "stream_id", None)
        match event:
            case h2.events.RequestReceived():
                fields = [(text(name), text(value)) for name, value in event.headers]
                pseudo = {name: value for name, value in fields if name.startswith(":")}
                self.paths[stream] = pseudo.get(":path", "")
                emit(event="request", stream=stream, fields=fields)
                self.bodies[stream] = asyncio.Queue()
                if pseudo[":method"] == "CONNECT":
                    self.start(self.tunnel(stream, pseudo.get(":protocol")))
                else:
                    self.start(self.answer(stream, fields))
            case h2.events.DataReceived():
                self.bodies[stream].put_nowait((event.data, event.flow_controlled_length))
            case h2.events.TrailersReceived():
                emit(event="trailers", stream=stream, fields=[(text(n), text(v)) for n, v in event.headers])
            case h2.events.StreamEnded():
                self.bodies[stream].put_nowait(None)
            case h2.events.StreamReset():
                emit(event="reset", stream=stream, path=self.paths.get(stream), code=int(event.error_code))
                self.bodies[stream].put_nowait(None)
                self.window(stream).set()
            case h2.events.WindowUpdated():
                for waiting in [self.window(stream)] if stream else self.windows.values():
                    waiting.set()
            case h2.events.RemoteSettingsChanged():
                for waiting in self.windows.values():
                    waiting.set()
            case h2.events.ConnectionTerminated():
                emit(event="goaway", code=int(event.error_code), last=event.last_stream_id)

    def start(self, work):
        task = asyncio.ensure_future(self.guard(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def guard(self, work):
        try:
            await work
        except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError) as error:
            emit(event="ended", why=type(error).__name__)

    def window(self, stream):
        return self.windows.setdefault(stream, asyncio.Event())

    async def send(self, stream, data, end=False):
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.window(stream).clear()
                await self.window(stream).wait()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
            await asyncio.sleep(0)
        if end:
            self.h2.end_stream(stream)
            self.flush()

    async def pieces(self, stream):
        while (piece := await self.bodies[stream].get()) is not None:
            data, credit = piece
            yield data
            if credit:
                self.h2.acknowledge_received_data(credit, stream)
                self.flush()

    def head(self, stream, status, fields=(), end=False):
        self.h2.send_headers(stream, [(":status", str(status)), *fields], end_stream=end)
        self.flush()

    def reset(self, stream, code):
        self.h2.reset_stream(stream, code)
        self.flush()

    def goaway(self, last):
        """Written by hand: the library would end every stream with it."""
        self.transport.write(b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + bytes(4))

    async def drain(self, stream):
        total = 0
        async for data in self.pieces(stream):
            total += len(data)
        return total

    async def answer(self, stream, fields):
        path = self.paths[stream].partition("?")[0]
        what, _, argument = path.strip("/").partition("/")
        if path in Server.first:
            Server.first.discard(path)
            if what == "refuse-first":
                return self.reset(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            self.goaway(max(0, stream - 2))
            await asyncio.sleep(0.5)
            return self.transport.close()
        if what == "grpc":
            return await self.grpc(stream, argument)
        if what == "echo":
            self.head(stream, 200)
            async for data in self.pieces(stream):
                await self.send(stream, data)
            return self.head_trailers(stream, [("x-trailer", "done")])
        if what == "slow-read":
            await asyncio.sleep(3)
        if what == "reset":
            self.head(stream, 200)
            return self.reset(stream, int(argument))
        if what == "bytes":
            self.head(stream, 200, [("content-length", argument)])
            return await self.send(stream, b"b" * int(argument), end=True)
        size = await self.drain(stream)
        body = json.dumps(fields).encode() if what == "headers" else f"{size} bytes".encode()
        self.head(stream, int(argument) if what == "status" else 200, [("content-length", str(len(body)))])
        if what == "goaway":
            self.goaway(stream)
        await self.send(stream, body, end=True)
        if what == "goaway":
            await asyncio.sleep(0.2)
            self.transport.close()

    def head_trailers(self, stream, fields):
        self.h2.send_headers(stream, fields, end_stream=True)
        self.flush()

    async def grpc(self, stream, path):
        what, _, argument = path.partition("/")
        await self.drain(stream)
        if what == "status":
            return self.head(stream, 200, [*GRPC, ("grpc-status", argument), ("grpc-message", "said%20so")], end=True)
        if what == "http":
            return self.head(stream, int(argument), [("content-type", "text/plain")], end=True)
        if what == "hang" and not argument:
            return await asyncio.sleep(120)
        self.head(stream, 200, GRPC)
        if what == "reset":
            return self.reset(stream, int(argument))
        if what == "prefix":
            await self.send(stream, b"\0\xff\xff\xff\xff" + b"four")
            return self.head_trailers(stream, [("grpc-status", "0")])
        await self.send(stream, EMPTY_MESSAGE)
        if what == "hang":
            return await asyncio.sleep(120)
        if what == "cut":
            return self.transport.abort()
        self.head_trailers(stream, [("grpc-status", "0")])
        if what == "ok-reset":
            # The library knows that the stream has ended; the frame is written by hand.
            code = int(h2.errors.ErrorCodes.CANCEL).to_bytes(4, "big")
            self.transport.write(b"\0\0\x04\x03\0" + stream.to_bytes(4, "big") + code)

    async def tunnel(self, stream, protocol):
        path = self.paths[stream]
        if protocol != "websocket" or path.startswith("/refuse"):
            return self.head(stream, 403, end=True)
        self.head(stream, 200, [("sec-websocket-protocol", "superchat")] if not path.startswith("/none") else [])
        frames = wsproto.connection.Connection(wsproto.ConnectionType.SERVER)
        if path.startswith("/deaf"):
            return await asyncio.sleep(120)
        if path.startswith("/flood"):
            message = frames.send(wsproto.events.BytesMessage(b"f" * 65536))
            for number in range(int(path.rsplit("/", 1)[1])):
                await self.send(stream, message)
                if number % 64 == 63:
                    emit(event="sent", messages=number + 1)
        parts = []
        async for data in self.pieces(stream):
            frames.receive_data(data)
            for event in frames.events():
                match event:
                    case wsproto.events.Message():
                        parts.append(event.data)
                        if event.message_finished:
                            whole = parts[0][:0].join(parts)
                            parts = []
                            await self.send(stream, frames.send(wsproto.events.Message(data=whole)))
                    case wsproto.events.Ping():
                        await self.send(stream, frames.send(event.response()))
                    case wsproto.events.CloseConnection():
                        emit(event="closed", code=event.code, reason=event.reason)
                        if frames.state is not wsproto.connection.ConnectionState.CLOSED:
                            return await self.send(stream, frames.send(event.response()), end=True)
        self.h2.end_stream(stream)
        self.flush()


async def main():
    arguments = server_arguments(__doc__).parse_args()
    host, port = host_port(arguments.address)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, host, port, ssl=server_context(arguments, ["h2"]))
    emit(event="ready")
    await server.serve_forever()


asyncio.run(main())
