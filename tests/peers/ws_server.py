"""A WebSocket server. The path says what it does; how each connection ended is told on stdout.

/echo       sends each message back
/close/N    waits for a message, then closes with code N
/ping       pings, and says "ponged" when the pong has come
/headers    sends the fields of the request as JSON
/flood/N    sends N messages of 64 KiB
/silent     reads and says nothing
/deaf       reads nothing
/refuse     answers 403
"""

import asyncio
import http
import json

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from common import emit, host_port, server_arguments, server_context


async def handle(connection):
    path = connection.request.path.partition("?")[0]
    what, _, argument = path.strip("/").partition("/")
    emit(event="open", path=connection.request.path, protocol=connection.subprotocol)
    sent = 0
    try:
        if what == "close":
            await connection.recv()
            await connection.close(int(argument), "as you wish")
        elif what == "ping":
            await (await connection.ping(b"are you there"))
            await connection.send("ponged")
        elif what == "headers":
            await connection.send(json.dumps([[name, value] for name, value in connection.request.headers.raw_items()]))
        elif what == "flood":
            for _ in range(int(argument)):
                await connection.send(b"f" * 65536)
                sent += 1
                if sent % 64 == 0:
                    emit(event="sent", messages=sent)
        elif what == "deaf":
            await asyncio.sleep(120)
        async for message in connection:
            if what not in ("silent", "deaf"):
                await connection.send(message)
    except ConnectionClosed:
        pass
    finally:
        await connection.wait_closed()
        emit(event="closed", code=connection.close_code, reason=connection.close_reason, sent=sent)


def refuse(connection, request):
    if request.path.startswith("/refuse"):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")
    return None


def choose(connection, offered):
    return "superchat" if "superchat" in offered else None


async def main():
    parser = server_arguments(__doc__)
    parser.add_argument("--plain", action="store_true", help="without permessage-deflate")
    arguments = parser.parse_args()
    host, port = host_port(arguments.address)
    options = {
        "ssl": server_context(arguments, ["http/1.1"]),
        "select_subprotocol": choose,
        "process_request": refuse,
        "max_size": None,
        "ping_interval": None,
        "compression": None if arguments.plain else "deflate",
    }
    async with serve(handle, host, port, **options) as server:
        emit(event="ready")
        await server.serve_forever()


asyncio.run(main())
