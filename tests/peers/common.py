"""What all peers share: arguments, TLS, and lines of JSON on stdout for the test that started them."""

import argparse
import json
import ssl
import sys
import threading

_lock = threading.Lock()


def emit(**values):
    """Writes one line that the test reads."""
    with _lock:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


def text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def server_arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("address", help="host:port to listen on")
    parser.add_argument("--cert", help="PEM chain; without it plain text is spoken")
    parser.add_argument("--key", help="PEM key")
    return parser


def client_arguments(description, scenarios):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("address", help="host:port to connect to")
    parser.add_argument("scenario", choices=sorted(scenarios))
    parser.add_argument("--ca", help="PEM file to trust; without it plain text is spoken")
    parser.add_argument("--name", default="localhost", help="name in the certificate, and the authority")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--path", default="/echo")
    parser.add_argument("--option", default="")
    return parser


def host_port(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def server_context(arguments, alpn):
    if not arguments.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.cert, arguments.key)
    context.set_alpn_protocols(alpn)
    return context


def client_context(arguments, alpn):
    if not arguments.ca:
        return None
    context = ssl.create_default_context(cafile=arguments.ca)
    context.set_alpn_protocols(alpn)
    return context

