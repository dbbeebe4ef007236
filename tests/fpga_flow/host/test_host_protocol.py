import contextlib
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpga_flow.host import protocol
from fpga_flow.host.protocol import Damage, Identity, Reader, Reply, Status

ANSWER = 6
KINDS = {
    protocol.REPLY | protocol.RUN: ANSWER,
    protocol.REPLY | protocol.IDENTIFY: Identity.LENGTH,
    protocol.REPLY | protocol.STATUS: Status.LENGTH,
    protocol.REPLY | protocol.RESET: 0,
    protocol.DAMAGED: 0,
    protocol.UNKNOWN: 0,
}


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    kind = draw(st.sampled_from(list(KINDS)))
    payload = draw(st.binary(min_size=KINDS[kind], max_size=KINDS[kind]))
    return Reply(kind, draw(st.integers(0, 255)), payload)


def packed(frames: list[Reply]) -> bytes:
    return b"".join(protocol.reply(f.kind, f.sequence, f.payload) for f in frames)


def test_a_frame_is_start_kind_sequence_payload_and_the_crc_of_zlib() -> None:
    frame = protocol.command(protocol.RUN, 258, b"abc")
    assert frame[:6] == b"\xa5\x01\x02abc"
    assert struct.unpack("<I", frame[6:]) == (zlib.crc32(b"\x01\x02abc"),)


@settings(max_examples=50, deadline=None)
@given(st.lists(replies(), max_size=6), st.integers(1, 9))
def test_frames_come_out_however_the_bytes_are_cut(frames: list[Reply], cut: int) -> None:
    reader, stream, seen = Reader(ANSWER), packed(frames), []
    for start in range(0, len(stream), cut):
        reader.feed(stream[start : start + cut])
        while (taken := reader.take()) is not None:
            seen.append(taken)
    assert seen == frames


@settings(max_examples=50, deadline=None)
@given(st.lists(replies(), min_size=1, max_size=4))
def test_reading_what_is_missing_never_asks_for_too_much(frames: list[Reply]) -> None:
    reader, stream, seen = Reader(ANSWER), packed(frames), []
    while stream:
        while (taken := reader.take()) is None:
            count = reader.missing()
            assert 0 < count <= len(stream)
            reader.feed(stream[:count])
            stream = stream[count:]
        seen.append(taken)
    assert seen == frames


@settings(max_examples=200, deadline=None)
@given(replies(), st.data())
def test_a_frame_with_any_bits_changed_is_not_taken(frame: Reply, data: st.DataObject) -> None:
    right = packed([frame])
    mask = data.draw(st.binary(min_size=len(right), max_size=len(right)).filter(any))
    reader = Reader(ANSWER)
    reader.feed(bytes(a ^ b for a, b in zip(right, mask, strict=True)))
    with contextlib.suppress(Damage):
        assert reader.take() is None


def test_what_lies_before_an_expected_frame_is_skipped() -> None:
    reader, expected = Reader(ANSWER), protocol.reply(protocol.REPLY | protocol.RESET, 9)
    reader.feed(b"\x5a\x81rubbish" + expected[:4])
    assert not reader.skip_past(expected)
    reader.feed(expected[4:] + packed([Reply(protocol.DAMAGED, 3, b"")]))
    assert reader.skip_past(expected)
    assert reader.take() == Reply(protocol.DAMAGED, 3, b"")


def test_identity_and_status_survive_packing() -> None:
    identity = Identity(1, "ft245", b"12345678", 784, 1, 10, 3, 10, 46, 72.5)
    status = Status(2**24 - 1, 2**20, 2**32 - 1, 77, 255, overflow=True, broken=False)
    assert Identity.unpack(identity.pack()) == identity
    assert Status.unpack(status.pack()) == status
    assert len(identity.pack()) == Identity.LENGTH
    assert len(status.pack()) == Status.LENGTH
    with pytest.raises(KeyError):
        Identity(1, "usb", b"12345678", 1, 1, 1, 1, 1, 1, 1.0).pack()
