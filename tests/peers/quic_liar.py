"""A QUIC client that breaks the protocol below HTTP/3. Its last line is how its connection ended: the code of the CONNECTION_CLOSE, or null when the
server put up with it for a second.

crypto_gap      handshake data after the handshake, far behind what came before
retire          connection IDs that retire each other again and again, while nothing is acknowledged
ack_unsent      an acknowledgement of packets that were never sent
final_size      a stream that ends before what it has sent
past_window     a byte far beyond the window of its stream
past_limit      a stream beyond those that may be opened
huge_limit      leave to open more streams than there are numbers
blocked         thousands of frames that say that a window is full

late_end        no lie: a request of HTTP/3, and all of it again with the end of its stream; its last line is whether it was answered
"""

import argparse
import asyncio
import json
import ssl
import sys

from aioquic import tls
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionId
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived
from aioquic.quic.packet import QuicPacketType

from common import host_port

LONGEST = 1100


class Liar(QuicConnection):
    """Sends given frames, one to a packet, beside what it has to say."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lies = []
        self.acknowledges = True

    def _write_application(self, builder, network_path, now):
        epoch = tls.Epoch.ONE_RTT
        if not self.acknowledges:
            self._spaces[epoch].ack_at = None
        if self.lies and self._handshake_complete:
            kind, rest = self.lies[0]
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[epoch])
            # Raises when it is not the time to send.
            builder.start_frame(kind, capacity=LONGEST).push_bytes(rest)
            self.lies.pop(0)
            return
        super()._write_application(builder, network_path, now)


    def _handle_retire_connection_id_frame(self, context, frame_type, buf):
        # All of them stay good, so that the end of the connection is heard.
        buf.pull_uint_var()


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ended = asyncio.get_running_loop().create_future()
        self.answered = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event.error_code)
        if isinstance(event, StreamDataReceived) and event.stream_id == 0 and event.end_stream:
            self.answered.set()


def fields(*values):
    """Numbers as variable-length integers, bytes as they are."""
    made = Buffer(capacity=LONGEST)
    for value in values:
        if isinstance(value, bytes):
            made.push_bytes(value)
        else:
            made.push_uint_var(value)
    return made.data


def stream(number, offset, data, ends=False):
    return 0x0E | int(ends), fields(number, offset, len(data), data)


RETIRING = range(10, 2000)


def retiring(number):
    return 0x18, fields(number, number, b"\x08", number.to_bytes(8, "big"), number.to_bytes(16, "big"))


LIES = {
    "crypto_gap": [(0x06, fields(100_000, 4, b"\x04\x00\x00\x00"))],
    "retire": [retiring(number) for number in RETIRING],
    "ack_unsent": [(0x02, fields(1_000_000, 0, 0, 0))],
    "final_size": [stream(0, 0, b"\x21\x00"), (0x04, fields(0, 0x10C, 1))],
    "past_window": [stream(0, 1 << 40, b"x")],
    "past_limit": [stream(4 << 20, 0, b"x")],
    "huge_limit": [(0x12, fields((1 << 60) + 1))],
    "blocked": [stream(0, 0, b"")] + [(0x15, fields(0, number)) for number in range(3000)],
}


# HEADERS of a POST to / with its field section by QPACK's static table, and DATA.
REQUEST = b"\x01\x13\x00\x00\xd4\xd7\xc1\x50\x0ctest.example" + b"\x00\x04body"


async def say(client, frames):
    client._quic.lies = frames
    while client._quic.lies and not client.ended.done():
        client.transmit()
        await asyncio.sleep(0)


async def end_late(client):
    client._quic._get_or_create_stream_for_send(0)
    await say(client, [stream(0, 0, REQUEST)])
    # Until the bytes were read.
    await asyncio.sleep(0.5)
    await say(client, [stream(0, 0, REQUEST, ends=True)])
    try:
        await asyncio.wait_for(client.answered.wait(), 5)
    except asyncio.TimeoutError:
        return False
    return True


async def run(address, lie):
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], server_name="test.example", verify_mode=ssl.CERT_NONE
    )
    client = Client(Liar(configuration=configuration))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: client, local_addr=("127.0.0.1", 0))
    client.connect(host_port(address))
    await asyncio.wait_for(client.wait_connected(), 10)
    # Until the handshake is confirmed.
    await asyncio.sleep(0.2)
    if lie == "late_end":
        return {"answered": await end_late(client)}
    connection = client._quic
    if lie == "retire":
        connection.acknowledges = False
        connection._host_cids += [QuicConnectionId(number.to_bytes(8, "big"), number) for number in RETIRING]
    await say(client, list(LIES[lie]))
    try:
        return {"closed": await asyncio.wait_for(asyncio.shield(client.ended), 1)}
    except asyncio.TimeoutError:
        return {"closed": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("lie", choices=[*LIES, "late_end"])
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(run(arguments.address, arguments.lie))))
    sys.stdout.flush()


main()
