"""A matcher of routes by the written rules alone, compared with `expressgateway explain` on random tables.

Arguments: the program, a seed, a number of files, and requests for each. A file has many listeners with tables of their own, and one call of `explain`
judges all of them. The last line tells how many answers agreed; a difference ends the program with the file and the request.
"""

import os
import random
import re
import subprocess
import sys
import tempfile

LISTENERS = 24
HOSTS = ["a.org", "b.a.org", "c.b.a.org", "org", "x.net", "[::1]", "192.0.2.7"]
PATTERNS = ["a.org", "b.a.org", "*.a.org", "*.b.a.org", "*.org", "x.net", "::1", "192.0.2.7"]
SEGMENTS = ["a", "b", "ab", "A", "1"]
METHODS = ["GET", "POST", "PUT"]
SOURCES = ["192.0.2.0/24", "192.0.0.0/8", "192.0.2.1", "2001:db8::/32", "10.0.0.0/8"]
CLIENTS = ["192.0.2.1", "192.0.3.1", "10.1.2.3", "2001:db8::5"]
REGEXES = ["/a/[0-9]+", "/[a-b]+", "/.*", "/a|/b", "/A/b"]


def path_of(rng):
    return "/" + "/".join(rng.choice(SEGMENTS) for _ in range(rng.randrange(4))) + rng.choice(["", "", "/"])


def canonical(path):
    return re.sub("//+", "/", path)


def conditions(rng):
    found = {}
    kind = rng.randrange(6)
    if kind == 0:
        found["path"] = canonical(path_of(rng))
    elif kind in (1, 2):
        found["path_prefix"] = canonical(path_of(rng))
    elif kind == 3:
        found["path_regex"] = rng.choice(REGEXES)
    if kind < 4 and rng.random() < 0.2:
        found["ignore_case"] = True
    if rng.random() < 0.25:
        found["methods"] = rng.sample(METHODS, rng.randrange(1, 3))
    for key, names in (("headers", ["x-a", "x-b"]), ("query", ["q", "r"]), ("cookies", ["k", "l"])):
        if rng.random() < 0.25:
            chosen = rng.sample(names, rng.randrange(1, 3))
            found[key] = [rng.choice([f"{name}=1", f"{name}=2", name, f"!{name}", f"{name}~[12]+"]) for name in chosen]
    if rng.random() < 0.15:
        found["sources"] = rng.sample(SOURCES, rng.randrange(1, 3))
    if rng.random() < 0.15:
        found["scheme"] = rng.choice(["http", "https"])
    return found


def route(rng, number):
    made = {"number": number, "hosts": [], "priority": 0}
    if rng.random() < 0.6:
        made["hosts"] = rng.sample(PATTERNS, rng.randrange(1, 3))
    if rng.random() < 0.15:
        made["priority"] = rng.randrange(1, 3)
    made["matches"] = [conditions(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return made


# The rules.

def host_fits(pattern, host):
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern[1:])
    return host == ("[::1]" if pattern == "::1" else pattern)


def host_rank(pattern):
    if pattern is None:
        return (0, 0)
    if pattern.startswith("*."):
        return (1, len(pattern))
    return (2, len(pattern))


def value_holds(condition, values):
    if condition.startswith("!"):
        return values.get(condition[1:]) is None
    for sign in "=~":
        if sign in condition:
            name, wanted = condition.split(sign, 1)
            value = values.get(name)
            if value is None:
                return False
            return value == wanted if sign == "=" else re.fullmatch(wanted, value) is not None
    return values.get(condition) is not None


def network_bits(text):
    import ipaddress
    return ipaddress.ip_network(text)


def in_network(text, client):
    import ipaddress
    network, address = network_bits(text), ipaddress.ip_address(client)
    return address.version == network.version and address in network


def path_holds(found, path):
    def same(one, other):
        return one.lower() == other.lower() if found.get("ignore_case") else one == other
    if "path" in found:
        return same(found["path"], path)
    if "path_prefix" in found:
        wanted = found["path_prefix"].rstrip("/").split("/")
        parts = path.split("/")
        return len(parts) >= len(wanted) and all(same(a, b) for a, b in zip(wanted, parts))
    if "path_regex" in found:
        flags = re.IGNORECASE if found.get("ignore_case") else 0
        return re.fullmatch(found["path_regex"], path, flags) is not None
    return True


def holds(found, request):
    return (path_holds(found, request["path"])
            and ("methods" not in found or request["method"] in found["methods"])
            and all(value_holds(one, request["headers"]) for one in found.get("headers", []))
            and all(value_holds(one, request["query"]) for one in found.get("query", []))
            and all(value_holds(one, request["cookies"]) for one in found.get("cookies", []))
            and ("sources" not in found or any(in_network(one, request["client"]) for one in found["sources"]))
            and ("scheme" not in found or found["scheme"] == request["scheme"]))


def rank(host, made, found):
    if "path" in found:
        path = (3, 0)
    elif "path_regex" in found:
        path = (2, 0)
    else:
        path = (1, len(found.get("path_prefix", "").rstrip("/")))
    # Of several networks of a route the shortest counts.
    source = min((network_bits(one).prefixlen for one in found.get("sources", [])), default=0)
    return (host_rank(host), made["priority"], path, "methods" in found, len(found.get("headers", [])),
            len(found.get("query", [])), len(found.get("cookies", [])), source, "scheme" in found)


def match(routes, request):
    """The number of the route that takes the request; the routes stand in the order in which ties are broken."""
    best = None
    for place, made in enumerate(routes):
        for host in made["hosts"] or [None]:
            if host is not None and not host_fits(host, request["host"]):
                continue
            for found in made["matches"]:
                if holds(found, request):
                    ranked = (rank(host, made, found), -place)
                    if best is None or ranked > best[0]:
                        best = (ranked, made["number"])
    return None if best is None else best[1]


# The file.

def toml(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    return '"' + value + '"'


def route_toml(made):
    keys = {"name": f"n{made['number']}", "pool": f"p{made['number'] % 10}", "matches": made["matches"]}
    if made["hosts"]:
        keys["hosts"] = made["hosts"]
    if made["priority"]:
        keys["priority"] = made["priority"]
    return toml(keys)


def identity(made):
    """Two routes that are alike in this are an error in a file."""
    return [(host, made["priority"], repr(sorted(found.items()))) for host in made["hosts"] or [None] for found in made["matches"]]


def table(rng, numbers):
    """Routes of which none is like another."""
    routes, seen = [], set()
    for _ in range(rng.randrange(1, 12)):
        made = route(rng, next(numbers))
        keys = identity(made)
        if not seen.intersection(keys) and len(set(keys)) == len(keys):
            seen.update(keys)
            routes.append(made)
    return routes


def file_of(rng):
    numbers, text, listeners = iter(range(10**9)), [], []
    for at in range(LISTENERS):
        own, shared, inner = table(rng, numbers), table(rng, numbers), table(rng, numbers)
        taken = {key for made in own for key in identity(made)}
        shared = [made for made in shared if not taken.intersection(identity(made))]
        hosts = rng.sample(PATTERNS, 2) if rng.random() < 0.3 else []
        text.append(f"routes.t{at} = {toml([])[:-1]}{', '.join(route_toml(made) for made in shared)}]")
        text.append(f"routes.v{at} = [{', '.join(route_toml(made) for made in inner)}]")
        listeners.append((own, shared, hosts, inner))
    text.append("")
    for at, (own, shared, hosts, inner) in enumerate(listeners):
        text.append(f'[[listeners]]\naddress = "127.0.0.1:{1000 + at}"\nprotocol = "h1"\nroute_tables = ["t{at}"]')
        text.append(f"routes = [{', '.join(route_toml(made) for made in own)}]")
        if hosts:
            text.append(f'[[listeners.virtual_hosts]]\nhosts = {toml(hosts)}\nroute_tables = ["v{at}"]')
    for pool in range(10):
        text.append(f'[[pools.p{pool}.backends]]\naddress = "10.0.0.{pool + 1}:80"')
    return "\n".join(text) + "\n", listeners


def request_of(rng):
    def some(names):
        return {name: rng.choice(["1", "2", "3", "12"]) for name in names if rng.random() < 0.5}
    return {"method": rng.choice(METHODS), "host": rng.choice(HOSTS), "path": canonical(path_of(rng)),
            "headers": some(["x-a", "x-b"]), "query": some(["q", "r"]), "cookies": some(["k", "l"]),
            "client": rng.choice(CLIENTS), "scheme": rng.choice(["http", "https"])}


def explain(program, path, request):
    url = f"{request['scheme']}://{request['host']}{request['path']}"
    if request["query"]:
        url += "?" + "&".join(f"{name}={value}" for name, value in request["query"].items())
    command = [program, "explain", path, request["method"], url, "--from", request["client"]]
    for name, value in request["headers"].items():
        command += ["-H", f"{name}: {value}"]
    if request["cookies"]:
        command += ["-H", "Cookie: " + "; ".join(f"{name}={value}" for name, value in request["cookies"].items())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr}")
    answers = {}
    for part in done.stdout.split("listener 127.0.0.1:")[1:]:
        taken = re.search(r"^  route n(\d+)[^\n]*: takes it$", part, re.MULTILINE)
        refused = "(no_route)" in part
        if not refused and not taken:
            raise SystemExit(f"what is that? {part}")
        answers[int(part.split("\n", 1)[0]) - 1000] = None if refused else int(taken.group(1))
    return answers


def main():
    program, seed, files, requests = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rng, agreed, taken = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "lb.toml")
        for _ in range(files):
            text, listeners = file_of(rng)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            for _ in range(requests):
                request = request_of(rng)
                answers = explain(program, path, request)
                for at, (own, shared, hosts, inner) in enumerate(listeners):
                    is_inner = any(host_fits(host, request["host"]) for host in hosts)
                    expected = match(inner if is_inner else own + shared, request)
                    if answers[at] != expected:
                        raise SystemExit(f"{text}\n{request}\nlistener {at}: explain says {answers[at]}, the rules say {expected}")
                    agreed, taken = agreed + 1, taken + (expected is not None)
    print(f"{agreed} agreed, {taken} of them taken by a route")


main()
