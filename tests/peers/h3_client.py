"""HTTP/3 clients that are particular about what comes when. Their last line is what they saw.

priorities  asks with priorities while the connection has no room for answers, then makes room; in which order bytes of the answers came
follow      asks over TCP, and goes on over HTTP/3 if the answer announces it (RFC 7838)
"""

import argparse
import asyncio
import http.client
import json
import re
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3Connection, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived

from common import host_port

NAME = "test.example"

# What all streams may bring before there is room.
ROOM = 65536

# PRIORITY_UPDATE of a request (RFC 9218 section 7.2).
PRIORITY_UPDATE = 0xF0700


class Holding(QuicConnection):
    """Grants no more than its first window until it is told to."""

    holds = True

    def _write_connection_limits(self, builder, space):
        if not self.holds:
            super()._write_connection_limits(builder, space)


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.came = []
        self.heads = {}
        self.bodies = {}
        self.ended = set()
        self.closed = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = event.error_code
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 0:
            last = self.came[-1] if self.came else None
            if last and last[0] == event.stream_id:
                last[1] += len(event.data)
            elif event.data:
                self.came.append([event.stream_id, len(event.data)])
            if event.end_stream:
                self.ended.add(event.stream_id)
        for said in self.http.handle_event(event):
            if isinstance(said, HeadersReceived):
                self.heads.setdefault(said.stream_id, dict(said.headers))
            elif isinstance(said, DataReceived):
                self.bodies[said.stream_id] = self.bodies.get(said.stream_id, b"") + said.data

    def ask(self, path, priority=None):
        stream = self._quic.get_next_available_stream_id()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.encode()), (b":path", path.encode())]
        if priority is not None:
            fields.append((b"priority", priority.encode()))
        self.http.send_headers(stream, fields, end_stream=True)
        self.transmit()
        return stream

    def update(self, stream, priority):
        payload = encode_uint_var(stream) + priority.encode()
        self._quic.send_stream_data(self.http._local_control_stream_id, encode_frame(PRIORITY_UPDATE, payload))
        self.transmit()

    async def until(self, condition):
        for _ in range(1000):
            if condition() or self.closed is not None:
                return
            await asyncio.sleep(0.01)
        raise TimeoutError(f"{self.came}")


async def connect(address, **settings):
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], server_name=NAME, verify_mode=ssl.CERT_NONE, **settings
    )
    client = Client(Holding(configuration=configuration))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: client, local_addr=("127.0.0.1", 0))
    client.connect(address)
    await asyncio.wait_for(client.wait_connected(), 10)
    await asyncio.sleep(0.1)
    return client


async def priorities(address, steps):
    """Each step is ["ask", path, priority or null] or ["update", number of the request, priority]."""
    client = await connect(address, max_data=ROOM, max_stream_data=1 << 24)
    for step in steps:
        if step[0] == "ask":
            first = client._quic.get_next_available_stream_id() == 0
            client.ask(step[1], step[2])
            if first:
                # The first answer takes all the room there is.
                await client.until(lambda: client._quic._local_max_data.used >= ROOM)
        else:
            client.update(4 * step[1], step[2])
        await client.until(lambda: not any(space.ack_eliciting_in_flight for space in client._quic._loss.spaces))
    # Until the backend has answered all of them.
    await asyncio.sleep(1)
    asked = [4 * number for number in range(sum(step[0] == "ask" for step in steps))]
    before = len(client.came)
    client.came.append([None, 0])
    limit = client._quic._local_max_data
    limit.value = 1 << 24
    client._quic.holds = False
    client.transmit()
    await client.until(lambda: client.ended.issuperset(asked))
    after = [[stream // 4, length] for stream, length in client.came[before + 1 :]]
    return {"order": after, "closed": client.closed, "whole": {stream // 4: len(client.bodies.get(stream, b"")) for stream in asked}}


async def follow(address):
    host, port = address
    over = http.client.HTTPConnection(host, port, timeout=10)
    over.request("GET", "/", headers={"Host": NAME})
    answer = over.getresponse()
    answer.read()
    announced = answer.getheader("alt-svc") or ""
    found = re.fullmatch(r'h3=":(\d+)"; ma=(\d+)', announced)
    if not found:
        return {"announced": announced}
    client = await connect((host, int(found[1])))
    client._quic.holds = False
    client.ask("/")
    await client.until(lambda: 0 in client.ended)
    return {"announced": announced, "status": client.heads[0][b":status"].decode(), "body": client.bodies[0].decode()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("scenario", choices=["priorities", "follow"])
    parser.add_argument("--steps", type=json.loads)
    arguments = parser.parse_args()
    address = host_port(arguments.address)
    work = priorities(address, arguments.steps) if arguments.scenario == "priorities" else follow(address)
    print(json.dumps(asyncio.run(work)))
    sys.stdout.flush()


main()
