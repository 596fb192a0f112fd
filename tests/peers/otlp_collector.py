"""A collector of traces: OTLP over HTTP or gRPC, each span a line of JSON on stdout.

With `--refuse`, every batch is refused, with `--stall`, none is ever answered.
"""

import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from common import emit, host_port, server_arguments

KINDS = {1: "internal", 2: "server", 3: "client"}


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def tell(request):
    for resource in request.resource_spans:
        shared = attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                emit(
                    event="span",
                    resource=shared,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    kind=KINDS.get(span.kind, span.kind),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    error=span.status.code == 2,
                    attributes=attributes(span.attributes),
                )


def serve_http(arguments):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            fields = {name.lower(): text for name, text in self.headers.items()}
            emit(event="batch", path=self.path, fields=fields, size=len(body))
            if arguments.stall:
                threading.Event().wait()
            if not arguments.refuse:
                tell(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(403 if arguments.refuse else 200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(host_port(arguments.address), Handler)
    server.daemon_threads = True
    emit(event="ready")
    server.serve_forever()


def serve_grpc(arguments):
    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            fields = dict(context.invocation_metadata())
            emit(event="batch", path="grpc", fields=fields, size=request.ByteSize())
            tell(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    server.add_insecure_port(arguments.address)
    server.start()
    emit(event="ready")
    server.wait_for_termination()


if __name__ == "__main__":
    parser = server_arguments(__doc__)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--refuse", action="store_true")
    parser.add_argument("--stall", action="store_true")
    chosen = parser.parse_args()
    (serve_grpc if chosen.grpc else serve_http)(chosen)
