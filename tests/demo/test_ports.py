"""The agents' ports are fixed: who uses one is named before anything is started."""

from __future__ import annotations

import socket

import pytest

from countersign.demo.layout import neighbours, require_ports


@pytest.mark.parametrize("after", [0, 1])
def test_a_port_in_use_is_named_with_what_to_do(after: int) -> None:
    port = neighbours()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + after))
        other.listen()
        with pytest.raises(OSError, match=f"port {port + after} of 127.0.0.1 is in use: stop what listens there"):
            require_ports([port])


def test_free_ports_are_taken() -> None:
    require_ports([neighbours()])
