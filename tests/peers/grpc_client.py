"""A gRPC client that runs one scenario and prints what it saw as one line of JSON."""

import json
import queue
import time

import grpc
from grpc_health.v1 import health_pb2

from common import client_arguments, emit, text


def pairs(metadata):
    return {key: value.hex() if key.endswith("-bin") else text(value) for key, value in metadata or ()}


def outcome(call, messages, began):
    """What a finished call says about itself."""
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": pairs(call.initial_metadata()),
        "trailing": pairs(call.trailing_metadata()),
        "messages": messages,
        "seconds": time.monotonic() - began,
    }


def shown(message):
    """The library gives None for a call that ends well without its message."""
    if message is None:
        return None
    return text(message) if len(message) <= 4096 else f"{len(message)} bytes"


def collect(call, began, enough=None):
    messages = []
    try:
        for message in call:
            messages.append(shown(message))
            if enough and len(messages) == enough:
                call.cancel()
    except grpc.RpcError:
        pass
    return outcome(call, messages, began)


def timeout(arguments):
    return float(arguments.option) if arguments.option else None


def one(channel, method, request, arguments, **more):
    began = time.monotonic()
    call = channel.unary_unary(method).future(request, **more)
    try:
        messages = [shown(call.result())]
    except grpc.RpcError:
        messages = []
    except grpc.FutureCancelledError:
        messages = []
    return outcome(call, messages, began)


def unary(channel, arguments):
    metadata = (("x-echo-a", "one"), ("x-echo-b-bin", b"\x00\x01\xff"))
    return one(channel, "/test.Echo/Unary", b"m" * arguments.size, arguments, metadata=metadata, timeout=30)


def show(channel, arguments):
    return one(channel, "/test.Echo/Show", b"", arguments, timeout=timeout(arguments), metadata=(("x-plain", "value"),))


def fail(channel, arguments):
    return one(channel, "/test.Echo/Fail", arguments.option.encode(), arguments, timeout=30)


def unknown(channel, arguments):
    return one(channel, "/test.Echo/Nothing", b"", arguments, timeout=30)


def raw(channel, arguments):
    """Any path with any timeout."""
    return one(channel, arguments.path, b"x", arguments, timeout=timeout(arguments))


def client_stream(channel, arguments):
    began = time.monotonic()
    requests = (b"m" * arguments.size for _ in range(arguments.count))
    call = channel.stream_unary("/test.Echo/ClientStream").future(requests, timeout=60)
    return outcome(call, [shown(call.result())], began)


def server_stream(channel, arguments):
    began = time.monotonic()
    request = f"{arguments.count} {arguments.size}".encode()
    call = channel.unary_stream("/test.Echo/ServerStream")(request, timeout=60)
    return collect(call, began)


def fail_late(channel, arguments):
    began = time.monotonic()
    return collect(channel.unary_stream("/test.Echo/FailLate")(b"", timeout=30), began)


def bidi(channel, arguments, method="Bidi"):
    """Sends a message only once the one before has come back: works only when both directions flow at once."""
    began = time.monotonic()
    to_send = queue.Queue()
    call = channel.stream_stream(f"/test.Echo/{method}")(iter(to_send.get, None), timeout=30)
    messages = []
    if method == "HeadFirst":
        messages.append(shown(next(call)))
    for number in range(arguments.count):
        to_send.put(f"message {number}".encode() + b"." * arguments.size)
        messages.append(shown(next(call)).rstrip("."))
    to_send.put(None)
    rest = [shown(message) for message in call]
    return outcome(call, messages + rest, began)


def head_first(channel, arguments):
    return bidi(channel, arguments, "HeadFirst")


def deadline(channel, arguments):
    return one(channel, "/test.Echo/Hang", b"", arguments, timeout=timeout(arguments))


def deadline_streaming(channel, arguments):
    """The head and a message come in time, the end does not."""
    began = time.monotonic()
    held = queue.Queue()
    call = channel.stream_stream("/test.Echo/HangStreaming")(iter(held.get, None), timeout=timeout(arguments))
    seen = collect(call, began)
    held.put(None)
    return seen


def cancel(channel, arguments):
    began = time.monotonic()
    call = channel.unary_unary("/test.Echo/Hang").future(b"", timeout=60)
    time.sleep(arguments.seconds)
    call.cancel()
    return outcome(call, [], began)


def cancel_streaming(channel, arguments):
    began = time.monotonic()
    held = queue.Queue()
    call = channel.stream_stream("/test.Echo/HangStreaming")(iter(held.get, None), timeout=60)
    seen = collect(call, began, enough=1)
    held.put(None)
    return seen


def health(channel, arguments):
    began = time.monotonic()
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    ).future(health_pb2.HealthCheckRequest(service=arguments.option), timeout=10)
    try:
        messages = [health_pb2.HealthCheckResponse.ServingStatus.Name(call.result().status)]
    except grpc.RpcError:
        messages = []
    return outcome(call, messages, began)


def watch(channel, arguments):
    """All states until the count or the time is reached; each is also told as it comes."""
    began = time.monotonic()
    call = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(service=arguments.option), timeout=arguments.seconds)
    messages = []
    try:
        for response in call:
            messages.append(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
            emit(event="watched", state=messages[-1])
            if len(messages) == arguments.count:
                call.cancel()
    except grpc.RpcError:
        pass
    return outcome(call, messages, began)


def many(channel, arguments):
    """Calls at the same time on one connection."""
    method = channel.unary_unary("/test.Echo/Unary")
    calls = [method.future(f"call {number}".encode(), timeout=30) for number in range(arguments.count)]
    right = sum(call.result() == f"call {number}".encode() for number, call in enumerate(calls))
    return {"right": right}


SCENARIOS = {
    function.__name__: function
    for function in (unary, show, fail, unknown, raw, client_stream, server_stream, fail_late, bidi, head_first,
                     deadline, deadline_streaming, cancel, cancel_streaming, health, watch, many)
}  # fmt: skip


def main():
    arguments = client_arguments(__doc__, SCENARIOS).parse_args()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    if arguments.ca:
        with open(arguments.ca, "rb") as ca:
            credentials = grpc.ssl_channel_credentials(ca.read())
        options.append(("grpc.ssl_target_name_override", arguments.name))
        channel = grpc.secure_channel(arguments.address, credentials, options)
    else:
        channel = grpc.insecure_channel(arguments.address, options)
    print(json.dumps(SCENARIOS[arguments.scenario](channel, arguments)))


main()
