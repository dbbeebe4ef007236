"""Whatever bytes come, they are images or a refusal in words."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpga_flow.serve.wire import NPY, RequestError, decode, encode

SHAPE = (1, 2, 2)
GOOD = encode(np.full((3, *SHAPE), 0.5, np.float32))


def images_or_refusal(body, kind):
    refused = None
    try:
        images = decode(body, kind, SHAPE, 10)
    except RequestError as e:
        refused = e
    if refused is not None:
        assert 400 <= refused.status < 500
        assert refused.message
        return
    assert images.dtype == np.float32
    assert images.shape[1:] == SHAPE
    assert 1 <= len(images) <= 10
    assert images.flags.c_contiguous
    assert ((images >= 0) & (images <= 1)).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, at names of types
@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=12), st.integers(0, 12))
def test_npy_with_bytes_replaced(start, new, removed):
    images_or_refusal(GOOD[:start] + new + GOOD[start + removed :], NPY)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["descr", "fortran_order", "shape"]),
        st.sampled_from(["<f4", "|u1", "O", "|V4", [("a", "O")], True, 7, None, (-1,), ("a",)])
        | st.tuples(*[st.sampled_from([0, 1, 2, 3, -1, 2**63, True, 1.0])] * 4),
    )
)
def test_npy_with_any_header(header):
    fields = {"descr": "<f4", "fortran_order": False, "shape": (3, *SHAPE)} | header
    text = (repr(fields).ljust(117) + "\n").encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + GOOD[-48:]
    images_or_refusal(body, NPY)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=50) | st.builds(lambda t: json.dumps({"images": t}).encode(), TREES))
def test_json_of_any_kind(body):
    images_or_refusal(body, "application/json")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_what_is_sent_arrives_bit_by_bit(pixels):
    images = np.array(pixels, np.float32).reshape(1, *SHAPE)
    text = json.dumps({"images": images.tolist()}).encode()
    for body, kind in ((encode(images), NPY), (text, "application/json; charset=utf-8")):
        np.testing.assert_array_equal(decode(body, kind, SHAPE, 1), images)


def test_a_long_integer_is_refused():
    for digits in (30, 5000):  # no 64 bits hold it; more than Python converts
        with pytest.raises(RequestError):
            decode(b'{"images": [[[[' + b"9" * digits + b"]]]]}", "application/json", SHAPE, 1)
