"""Fuzz what reads bytes from the network: requests and responses, heads and bodies.

    python tests/fuzz/heads.py -max_total_time=20       # libFuzzer's options
    python tests/fuzz/heads.py crash-...                # one input again

The first byte says which side reads and for which method, the next two where the stream is cut; the rest is the stream.
It fails on any exception but the documented errors, and when pieces are read otherwise than the whole.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import target


def prepare() -> target.Target:
    """Return the target and the streams to begin with."""
    import pieces

    def test_one(data: bytes) -> None:
        choice, cuts, stream = data[:1], list(data[1:3]), data[3:]
        if choice <= b"\x7f":
            pieces.check_client_side(stream, cuts)
        else:
            pieces.check_endpoint_side(stream, b"HEAD" if choice > b"\xbf" else b"GET", cuts)

    seeds = [b"\x00\x08\x10" + stream for stream in pieces.REQUESTS]
    seeds += [choice + b"\x08\x10" + stream for stream in pieces.RESPONSES for choice in (b"\x80", b"\xc0")]
    return test_one, seeds


if __name__ == "__main__":
    sys.exit(target.run("heads", prepare))
