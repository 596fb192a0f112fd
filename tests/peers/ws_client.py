"""A WebSocket client over HTTP/1.1 that runs one scenario and prints what it saw as one line of JSON."""

import asyncio
import json
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from common import client_arguments, client_context, host_port


async def echo(connection, arguments):
    """Messages one by one, text and binary in turn."""
    right = 0
    for number in range(arguments.count):
        body = f"{number}:".ljust(arguments.size, "x")
        message = body if number % 2 else body.encode()
        await connection.send(message)
        right += await connection.recv() == message
    return {"right": right}


async def fragments(connection, arguments):
    parts = [f"part {number} " for number in range(arguments.count)]
    await connection.send(iter(parts))
    return {"right": int(await connection.recv() == "".join(parts))}


async def ping(connection, arguments):
    for _ in range(arguments.count):
        pong = await connection.ping()
        await asyncio.wait_for(pong, 5)
    return {"pongs": arguments.count}


async def flood(connection, arguments):
    """Pings without waiting for pongs."""
    for _ in range(arguments.count):
        await connection.ping()
    return await read(connection, arguments)


async def close(connection, arguments):
    await connection.close(int(arguments.option), "my own reason")
    return {}


async def read(connection, arguments):
    """Whatever comes until the end."""
    messages = []
    try:
        async with asyncio.timeout(arguments.seconds):
            while True:
                message = await connection.recv()
                messages.append(message if len(message) < 4096 else len(message))
    except (ConnectionClosed, TimeoutError):
        pass
    return {"messages": messages}


async def send_and_read(connection, arguments):
    await connection.send(b"m" * arguments.size)
    return await read(connection, arguments)


async def bad_length(connection, arguments):
    """A frame of 2^63 bytes."""
    connection.transport.write(b"\x82\xff" + (1 << 63).to_bytes(8, "big"))
    return await read(connection, arguments)


async def half_frame(connection, arguments):
    connection.transport.write(b"\x82\x85\x01\x02\x03\x04ab")
    return await read(connection, arguments)


async def write_only(connection, arguments):
    """Sends until nothing has been taken for a while, however long that takes to come about."""
    sent = 0
    try:
        while sent < arguments.size:
            sending = asyncio.ensure_future(connection.send(b"m" * 65536))
            waiting, since = None, time.monotonic()
            while not (await asyncio.wait({sending}, timeout=0.1))[0]:
                if waiting != (waiting := connection.transport.get_write_buffer_size()):
                    since = time.monotonic()
                elif time.monotonic() > since + arguments.seconds:
                    sending.cancel()
                    connection.transport.abort()
                    return {"sent": sent, "stalled": True}
            await sending
            sent += 65536
    except AttributeError as error:
        # The library aborts a transport that has just been closed, and trips over it.
        return {"sent": sent, "error": str(error)}
    return {"sent": sent}


async def never_read(connection, arguments):
    connection.transport.pause_reading()
    await asyncio.sleep(arguments.seconds)
    connection.transport.abort()
    return {}


async def cancel(connection, arguments):
    connection.transport.abort()
    await asyncio.sleep(arguments.seconds)
    return {}


SCENARIOS = {
    function.__name__: function
    for function in (echo, fragments, ping, flood, close, read, send_and_read, bad_length, half_frame, write_only,
                     never_read, cancel)
}  # fmt: skip


async def main():
    parser = client_arguments(__doc__, SCENARIOS)
    parser.add_argument("--plain", action="store_true", help="without permessage-deflate")
    arguments = parser.parse_args()
    host, port = host_port(arguments.address)
    context = client_context(arguments, ["http/1.1"])
    options = {
        "ssl": context,
        "subprotocols": ["chat", "superchat"],
        "additional_headers": {"Cookie": "session=1", "Authorization": "Bearer t"},
        "origin": "http://app.example",
        "max_size": None,
        "ping_interval": None,
        "compression": None if arguments.plain else "deflate",
    }
    scheme = "wss" if context else "ws"
    began = time.monotonic()
    try:
        async with connect(f"{scheme}://{arguments.name}:{port}{arguments.path}", host=host, port=port, proxy=None, **options) as connection:
            extensions = [extension.name for extension in connection.protocol.extensions]
            seen = {"protocol": connection.subprotocol, "extensions": extensions}
            try:
                seen |= await SCENARIOS[arguments.scenario](connection, arguments)
            except (ConnectionClosed, TimeoutError) as error:
                seen["error"] = type(error).__name__
        received = connection.protocol.close_rcvd
        seen["close"] = [received.code, received.reason] if received else None
    except InvalidStatus as error:
        seen = {"status": error.response.status_code, "body": error.response.body.decode()}
    seen["seconds"] = time.monotonic() - began
    print(json.dumps(seen))


asyncio.run(main())
