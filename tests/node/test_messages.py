"""The bytes of kubelet's messages. The hexadecimal was written by kubelet's own library (k8s.io/kubelet v0.34.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from countersign.node.messages import (
    Allocation,
    DeviceSpec,
    Mount,
    allocate_response,
    device_list,
    plugin_options,
    read_allocate_request,
    register_request,
)
from countersign.node.protobuf import MalformedError, flag, message, string, strings, submessages

ALLOCATE = bytes.fromhex("0a080a06736c6f742d300a060a01610a01620a00")


def test_what_we_send_is_what_kubelets_own_library_writes() -> None:
    assert register_request("countersign.sock", "countersign.dev/tpm").hex() == (
        "0a07763162657461311210636f756e7465727369676e2e736f636b1a13636f756e7465727369676e2e6465762f74706d2200"
    )
    assert plugin_options() == b""
    assert (flag(1, value=True) + flag(2, value=True)).hex() == "08011001"
    assert device_list({"slot-0": True, "slot-1": False}).hex() == (
        "0a110a06736c6f742d3012074865616c7468790a130a06736c6f742d311209556e6865616c746879"
    )
    assert device_list({}) == b""


def test_an_allocation_is_what_kubelets_own_library_writes() -> None:
    mount = Mount("/run/countersign/tpm", "/var/lib/countersign/tpm/slot-0")
    simulator = Allocation(envs={"TCTI": "swtpm:path=/run/countersign/tpm/tpm.sock"}, mounts=(mount,))
    # The library was asked for a read-only mount: field 3, which ours never has, and two bytes of length with it.
    read_only = (
        "0a6d0a300a04544354491228737774706d3a706174683d2f72756e2f636f756e7465727369676e2f74706d2f74706d2e736f636b"
        "12390a142f72756e2f636f756e7465727369676e2f74706d121f2f7661722f6c69622f636f756e7465727369676e2f74706d2f"
        "736c6f742d301801"
    )
    assert allocate_response([simulator]).hex() == read_only.replace("0a6d", "0a6b").replace("1239", "1237")[:-4]
    chip = Allocation(envs={"TCTI": "device:/dev/tpmrm0"}, devices=(DeviceSpec("/dev/tpmrm0", "rw"),))
    assert allocate_response([chip]).hex() == (
        "0a3c0a1a0a045443544912126465766963653a2f6465762f74706d726d301a1e0a0b2f6465762f74706d726d30120b2f6465762f"
        "74706d726d301a027277"
    )


def test_what_kubelet_asks_is_read() -> None:
    assert read_allocate_request(ALLOCATE) == [["slot-0"], ["a", "b"], []]
    assert read_allocate_request(b"") == []


def test_what_a_newer_kubelet_adds_is_passed_over() -> None:
    more = string(9, "later") + flag(10, value=True) + b"\x59" + b"\0" * 8 + b"\x5d" + b"\0" * 4
    assert read_allocate_request(more + ALLOCATE + more) == [["slot-0"], ["a", "b"], []]


@pytest.mark.parametrize("cut", range(1, len(ALLOCATE)))
def test_a_message_that_is_cut_off_is_refused_or_ends_between_two_fields(cut: int) -> None:
    try:
        found = read_allocate_request(ALLOCATE[:cut])
    except MalformedError:
        return
    assert found == [["slot-0"], ["a", "b"]][: len(found)]
    assert cut in (10, 18)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x02\x00",
        b"\x0b",
        b"\x0e\x00",
        b"\x08\x01",
        b"\x80" * 11,
        b"\x08" + b"\xff" * 9 + b"\x7f",
        b"\x0d\x00\x00",
        b"\x0a\x03\x0a\x01\xff",
    ],
    ids=lambda data: data.hex(),
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_allocate_request(data)


@given(some.lists(some.text(min_size=1, max_size=300), max_size=4))
def test_strings_come_back(values: list[str]) -> None:
    data = b"".join(string(7, value) for value in values)
    assert strings(data, 7) == values
    assert submessages(message(1, data), 1) == [data]


@given(some.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_allocate_request(data)
    except MalformedError:
        return
