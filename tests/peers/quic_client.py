"""A QUIC client that knows nothing of a gateway. Its last line is what it saw.

echo      connects --count times, one after the other, and asks once on each connection
many      connects --count times at once from as many addresses
rebind    asks, goes on from another port as after a change of a NAT, and asks again, --count times
migrate   asks, goes on from another port with another connection ID, and asks again
hold      connects --count times, and asks on all of them again and again, until it is ended
"""

import argparse
import asyncio
import json
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicProtocolVersion

from common import emit, host_port

VERSIONS = {"1": QuicProtocolVersion.VERSION_1, "2": QuicProtocolVersion.VERSION_2}


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.answers = {}

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            data, done = self.answers.setdefault(event.stream_id, (bytearray(), asyncio.get_running_loop().create_future()))
            data += event.data
            if event.end_stream and not done.done():
                done.set_result(bytes(data))

    async def ask(self, what, limit):
        stream = self._quic.get_next_available_stream_id()
        _, done = self.answers.setdefault(stream, (bytearray(), asyncio.get_running_loop().create_future()))
        self._quic.send_stream_data(stream, what, end_stream=True)
        self.transmit()
        return await asyncio.wait_for(done, limit)

    async def move(self):
        """Goes on from another port."""
        old = self._transport
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(LOCAL, 0))
        old.close()


LOCAL = "127.0.0.1"


def configuration(arguments):
    made = QuicConfiguration(
        is_client=True,
        alpn_protocols=["echo"] + ["x" * 200] * (arguments.pad // 200),
        connection_id_length=arguments.id_length,
        server_name=arguments.sni,
        verify_mode=ssl.CERT_NONE,
        original_version=VERSIONS[arguments.version],
        supported_versions=[VERSIONS[arguments.version]],
    )
    return made


async def connect(arguments):
    loop = asyncio.get_running_loop()
    client = Client(QuicConnection(configuration=configuration(arguments)))
    await loop.create_datagram_endpoint(lambda: client, local_addr=(LOCAL, 0))
    client.connect(host_port(arguments.address))
    await asyncio.wait_for(client.wait_connected(), arguments.limit)
    return client


async def run(arguments):
    ask = arguments.ask.encode()
    answers = []
    if arguments.scenario == "many":
        async def one():
            client = await connect(arguments)
            answer = await client.ask(ask, arguments.limit)
            client.close()
            return answer

        answers = await asyncio.gather(*(one() for _ in range(arguments.count)))
    elif arguments.scenario in ("rebind", "migrate"):
        client = await connect(arguments)
        answers.append(await client.ask(ask, arguments.limit))
        for _ in range(arguments.count):
            # Until the handshake is confirmed, the server does not take another address.
            await asyncio.sleep(0.2)
            if arguments.scenario == "migrate":
                client.change_connection_id()
            await client.move()
            answers.append(await client.ask(ask, arguments.limit))
        client.close()
    elif arguments.scenario == "hold":
        clients = [await connect(arguments) for _ in range(arguments.count)]
        emit(event="ready")
        for round in range(10_000):
            said = await asyncio.gather(*(client.ask(ask, arguments.limit) for client in clients), return_exceptions=True)
            answers = [answer for answer in said if isinstance(answer, bytes)]
            emit(event="answers", round=round, answers=[text(answer) for answer in answers], failed=len(said) - len(answers))
            await asyncio.sleep(0.1)
    else:
        for _ in range(arguments.count):
            client = await connect(arguments)
            answers.append(await client.ask(ask, arguments.limit))
            client.close()
    return answers


def text(answer):
    return answer.decode() if len(answer) < 200 else len(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("scenario")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--sni", default="localhost")
    parser.add_argument("--version", default="1")
    parser.add_argument("--id-length", type=int, default=8)
    parser.add_argument("--ask", default="hello")
    parser.add_argument("--pad", type=int, default=0, help="bytes that the ClientHello is made longer by")
    parser.add_argument("--limit", type=float, default=10)
    arguments = parser.parse_args()
    try:
        answers = asyncio.run(run(arguments))
        print(json.dumps({"answers": [text(answer) for answer in answers]}))
    except (asyncio.TimeoutError, ConnectionError) as error:
        print(json.dumps({"error": type(error).__name__}))
    sys.stdout.flush()


main()
