"""A gRPC server without generated code: service test.Echo, and the health service.

Each call is told on stdout when it begins, with its metadata and the time it has left, and when it ends.
"""

import json
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common import emit, server_arguments, text


def metadata(context):
    return {key: text(value) for key, value in context.invocation_metadata()}


def begin(method, context):
    seen = metadata(context)
    emit(event="call", method=method, remaining=context.time_remaining(), metadata=seen)
    echoed = tuple((key, value) for key, value in context.invocation_metadata() if key.startswith("x-echo-"))
    context.send_initial_metadata(echoed)
    context.set_trailing_metadata((("x-trailer", "done"), ("x-binary-bin", b"\x00\xff")))
    return seen


def unary(request, context):
    begin("Unary", context)
    return request


def client_stream(requests, context):
    begin("ClientStream", context)
    count = total = 0
    for request in requests:
        count += 1
        total += len(request)
    return f"{count} messages, {total} bytes".encode()


def server_stream(request, context):
    """The request is "COUNT SIZE"."""
    begin("ServerStream", context)
    count, size = (int(word) for word in request.split())
    for number in range(count):
        yield bytes([number % 256]) * size


def bidi(requests, context):
    begin("Bidi", context)
    for request in requests:
        yield request


def head_first(requests, context):
    """Sends its head and a message before it reads anything."""
    begin("HeadFirst", context)
    yield b"first"
    for request in requests:
        yield request


def fail(request, context):
    """The request is {"code": NUMBER, "message": TEXT}; the answer is trailers only."""
    wanted = json.loads(request)
    emit(event="call", method="Fail", remaining=context.time_remaining(), metadata=metadata(context))
    code = next(code for code in grpc.StatusCode if code.value[0] == wanted["code"])
    context.set_trailing_metadata((("x-trailer", "failed"),))
    context.abort(code, wanted["message"])


def fail_late(request, context):
    """A message, then an error."""
    begin("FailLate", context)
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "half way, 100%\nand on")


def show(request, context):
    """What arrived besides the message."""
    return json.dumps({"remaining": context.time_remaining(), "metadata": begin("Show", context)}).encode()


def watched(method, context):
    """Has the end of a call told. A handler that is cancelled between two messages is not run on, so it cannot tell by itself."""
    ended = threading.Event()
    began = time.monotonic()

    def tell():
        emit(event="cancelled", method=method, after=time.monotonic() - began)
        ended.set()

    context.add_callback(tell)
    return ended


def hang(request, context):
    """Never answers; tells when the call was given up."""
    emit(event="call", method="Hang", remaining=context.time_remaining(), metadata=metadata(context))
    watched("Hang", context).wait(60)
    return b""


def hang_streaming(requests, context):
    """Sends its head and one message, then nothing; tells when the call was given up."""
    ended = watched("HangStreaming", context)
    begin("HangStreaming", context)
    yield b"first"
    ended.wait(60)


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "HeadFirst": grpc.stream_stream_rpc_method_handler(head_first),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Show": grpc.unary_unary_rpc_method_handler(show),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "HangStreaming": grpc.stream_stream_rpc_method_handler(hang_streaming),
}


def main():
    parser = server_arguments(__doc__)
    arguments = parser.parse_args()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
    servicer = health.HealthServicer()
    # Tells an answer of this server from one that was made on its way.
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    servicer.set("test.Echo", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if arguments.cert:
        with open(arguments.key, "rb") as key, open(arguments.cert, "rb") as cert:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        server.add_secure_port(arguments.address, credentials)
    else:
        server.add_insecure_port(arguments.address)
    server.start()
    emit(event="ready")
    server.wait_for_termination()


main()
