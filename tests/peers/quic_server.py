"""A QUIC server that knows nothing of a gateway. Each stream is answered with its name and what the stream said; "bytes N" is answered with N bytes.

What happens is told on stdout: ready, handshake (with the version, the server name and whether the session was resumed), lost.
"""

import asyncio

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from aioquic.quic.packet import QuicProtocolVersion

from common import emit, host_port, server_arguments

VERSIONS = {"1": [QuicProtocolVersion.VERSION_1], "2": [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]}


def protocol(name):
    class Echo(QuicConnectionProtocol):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.asked = {}

        def quic_event_received(self, event):
            if isinstance(event, HandshakeCompleted):
                version = "2" if self._quic._version == QuicProtocolVersion.VERSION_2 else "1"
                emit(event="handshake", server=name, version=version, resumed=event.session_resumed)
            elif isinstance(event, StreamDataReceived):
                asked = self.asked.setdefault(event.stream_id, bytearray())
                asked += event.data
                if event.end_stream:
                    del self.asked[event.stream_id]
                    what, _, count = bytes(asked).partition(b" ")
                    answer = b"x" * int(count) if what == b"bytes" else name.encode() + b":" + asked
                    self._quic.send_stream_data(event.stream_id, answer, end_stream=True)
                    self.transmit()
            elif isinstance(event, ConnectionTerminated):
                emit(event="lost", server=name, code=event.error_code, reason=event.reason_phrase)

    return Echo


async def main():
    parser = server_arguments(__doc__)
    parser.add_argument("--name", default="server")
    parser.add_argument("--id-length", type=int, default=8)
    parser.add_argument("--version", default="1")
    parser.add_argument("--retry", action="store_true", help="answer first packets with Retry")
    arguments = parser.parse_args()
    host, port = host_port(arguments.address)
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=["echo"],
        connection_id_length=arguments.id_length,
        supported_versions=VERSIONS[arguments.version],
    )
    configuration.load_cert_chain(arguments.cert, arguments.key)
    await serve(host, port, configuration=configuration, create_protocol=protocol(arguments.name), retry=arguments.retry)
    emit(event="ready")
    await asyncio.Event().wait()


asyncio.run(main())
