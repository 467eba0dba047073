"""The second opinion of tests/cantools.rs: answers encode and decode requests with the cantools package.

One JSON object per line on standard input, one per line on standard output. Owns nothing, decides nothing. Doubles
travel as 16 hex digits of their bits, so that nothing is lost in print and NaN can be told.
"""
import json
import struct
import sys

try:
    import cantools
except ImportError as error:
    print(json.dumps({"error": f"cantools cannot be imported by {sys.executable}: {error}"}), flush=True)
    sys.exit(1)


def bits(value):
    return struct.pack(">d", float(value)).hex()


def load(database, request):
    text = request["load"]
    database = cantools.database.load_string(text, "dbc", strict=True)
    messages = {
        m.name: {"id": m.frame_id, "extended": m.is_extended_frame, "length": m.length, "cycle": m.cycle_time,
                 "signals": [s.name for s in m.signals]}
        for m in database.messages
    }
    return database, {"messages": messages}


def encode(database, request):
    message = database.get_message_by_name(request["encode"])
    switches = {s.name for s in message.signals if s.is_multiplexer}
    values = {name: int(value) if name in switches else value for name, value in request["values"].items()}
    return database, {"data": message.encode(values, scaling=True, strict=False).hex()}


def decode(database, request):
    message = database.get_message_by_name(request["decode"])
    data = bytes.fromhex(request["data"])
    numbers = message.decode(data, decode_choices=False)
    words = message.decode(data, decode_choices=True)
    named = {name: str(word) for name, word in words.items() if not isinstance(word, (int, float))}
    return database, {"values": {name: bits(value) for name, value in numbers.items()}, "names": named}


def main():
    print(json.dumps({"ready": cantools.__version__}), flush=True)
    database = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            verb = next(v for v in (load, encode, decode) if v.__name__ in request)
            database, answer = verb(database, request)
        except Exception as error:  # the test prints it together with what it asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
