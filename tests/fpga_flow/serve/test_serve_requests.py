"""What the server answers, and what it refuses: nothing refused costs a query."""

import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divqat_brevitas.extraction import Victim
from fpga_flow.serve import Client, Limits
from fpga_flow.serve.wire import NPY, RequestError, decode, encode

RED = Client("red", "correct-horse-battery", 5)
BLUE = Client("blue", "staple-battery-horse")


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("oracle", ["logits", "soft", "top1"])
def test_answers_are_the_victims_bit_by_bit(serving, send, as_json, model, images, oracle):
    service = serving(oracle=oracle)
    expected = Victim(model, oracle).query(images(3))
    body, headers = as_json(images(3))
    for sent, kind in (
        (body, headers),
        (encode(images(3)), {"Content-Type": NPY}),
        (npy(np.asfortranarray(images(3))), {"Content-Type": "application/x-npy; v=1"}),
        (npy(np.round(images(3) * 255).astype(np.uint8)), {"Content-Type": NPY}),
    ):
        status, document = send(service.url, body=sent, headers=kind)
        assert status == 200
        np.testing.assert_array_equal(np.array(document["answers"], np.float32), expected)
    assert document["queries_used"] == 12
    assert document["remaining"] == 88


UNPICKLED = []


class Evil:
    """Shows whether it was unpickled."""

    def __reduce__(self):
        return (_ran, ())


def _ran():
    UNPICKLED.append(True)


def _pickled_npy():
    return npy(np.array([[[[Evil()]]]], dtype=object), allow_pickle=True)


def _lying_npy(shape):
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + b"\0" * 256


GOOD = npy(np.zeros((2, 1, 8, 8), np.float32))
NOT_FINITE = np.full((1, 1, 8, 8), np.nan, np.float32)

BAD_BODIES = {
    "empty": (b"", NPY, 400, "bad-npy"),
    "no npy": (b"hello", NPY, 400, "bad-npy"),
    "truncated": (GOOD[:-1], NPY, 400, "bad-npy"),
    "truncated header": (GOOD[:40], NPY, 400, "bad-npy"),
    "too long": (GOOD + b"\0", NPY, 400, "bad-npy"),
    "pickle": (pickle.dumps(np.zeros((1, 1, 8, 8), np.float32)), NPY, 400, "bad-npy"),
    "pickle inside": (_pickled_npy(), NPY, 400, "bad-dtype"),
    "float64": (npy(np.zeros((1, 1, 8, 8))), NPY, 400, "bad-dtype"),
    "big endian": (npy(np.zeros((1, 1, 8, 8), ">f4")), NPY, 400, "bad-dtype"),
    "records": (npy(np.zeros((1, 1, 8, 8), [("a", "<f4")])), NPY, 400, "bad-dtype"),
    "promises a terabyte": (_lying_npy((2**28, 1, 8, 8)), NPY, 400, "bad-npy"),
    "overflowing shape": (_lying_npy((2**62, 2**62, 8, 8)), NPY, 400, "bad-npy"),
    "negative shape": (_lying_npy((-1, -1, 8, 8)), NPY, 400, "bad-shape"),
    "no axes": (npy(np.float32(1)), NPY, 400, "bad-shape"),
    "wrong shape": (npy(np.zeros((1, 1, 8, 9), np.float32)), NPY, 400, "bad-shape"),
    "no images": (npy(np.zeros((0, 1, 8, 8), np.float32)), NPY, 400, "bad-shape"),
    "NaN": (npy(NOT_FINITE), NPY, 400, "bad-values"),
    "range": (npy(np.full((1, 1, 8, 8), 2, np.float32)), NPY, 400, "bad-values"),
    "too many": (npy(np.zeros((51, 1, 8, 8), np.uint8)), NPY, 413, "too-many-images"),
    "another type": (GOOD, "application/octet-stream", 415, "unsupported-type"),
    "no type": (GOOD, "", 415, "unsupported-type"),
    "not JSON": (b"{", "application/json", 400, "bad-json"),
    "not UTF-8": (b"\xff\xfe\xfa", "application/json", 400, "bad-json"),
    "a list": (b"[]", "application/json", 400, "bad-json"),
    "another key": (b'{"images": [], "x": 1}', "application/json", 400, "bad-json"),
    "nested deeply": (b'{"images":' + b"[" * 50_000, "application/json", 400, "bad-json"),
    "even nest too deep": (
        b'{"images":' + b"[" * 90 + b"]" * 90 + b"}",
        "application/json",
        400,
        "bad-json",
    ),
    "uneven rows": (b'{"images": [[1, 2], [3]]}', "application/json", 400, "bad-json"),
    "texts": (b'{"images": [[[["1"]]]]}', "application/json", 400, "bad-json"),
    "booleans": (b'{"images": [[[[true]]]]}', "application/json", 400, "bad-json"),
    "null": (b'{"images": null}', "application/json", 400, "bad-json"),
    "NaN in JSON": (
        json.dumps({"images": NOT_FINITE.tolist()}).encode(),
        "application/json",
        400,
        "bad-json",
    ),
    "huge number": (
        json.dumps({"images": np.zeros((1, 1, 8, 8)).tolist()}).replace("0.0", "1e300").encode(),
        "application/json",
        400,
        "bad-values",
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_malformed_bodies_are_refused_in_words(serving, send, model, name):
    service = serving(limits=Limits(images_per_request=50))
    body, kind, status, code = BAD_BODIES[name]
    found, document = send(service.url, body=body, headers={"Content-Type": kind})
    assert (found, document["error"]["code"]) == (status, code)
    assert len(document["error"]["message"]) > 20
    assert service.ledger.used() == model.images == 0
    assert UNPICKLED == []


@pytest.mark.parametrize("size", [1001, 1999, 10_000_000])
def test_an_oversized_body_is_refused(serving, send, size):
    service = serving(limits=Limits(body_bytes=1000))
    status, document = send(
        service.url, body=b"x" * size if size < 5000 else b"x", headers={"Content-Length": size}
    )
    assert (status, document["error"]["code"]) == (413, "body-too-large")
    assert send(service.url, "GET", "/info")[0] == 200


def test_an_oversized_body_of_undeclared_length_is_refused(serving, send):
    service = serving(limits=Limits(body_bytes=1000))
    status, document = send(service.url, body=iter([b"x" * 600] * 3))
    assert (status, document["error"]["code"]) == (413, "body-too-large")


def test_a_batch_beyond_the_budget_is_refused_whole(serving, send, images):
    service = serving(budget=5)
    headers = {"Content-Type": NPY}
    assert send(service.url, body=encode(images(3)), headers=headers)[0] == 200
    status, document = send(service.url, body=encode(images(3)), headers=headers)
    assert (status, document["error"]["code"]) == (403, "budget-exceeded")
    assert "2 of 5 are left" in document["error"]["message"]
    assert send(service.url, body=encode(images(2)), headers=headers)[1]["remaining"] == 0


def test_a_victim_that_fails_costs_nothing(serving, send, model, images):
    def fail():
        raise RuntimeError("secret path /home/owner")

    service = serving()
    model.before = fail
    headers = {"Content-Type": NPY, "Idempotency-Key": "a"}
    status, document = send(service.url, body=encode(images(3)), headers=headers)
    assert (status, document["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(document)
    model.before = lambda: None
    status, document = send(service.url, body=encode(images(3)), headers=headers)
    assert (status, document["queries_used"], document["replayed"]) == (200, 3, False)


def test_a_key_is_counted_once(serving, send, model, images):
    service = serving()
    headers = {"Content-Type": NPY, "Idempotency-Key": "one"}
    first = send(service.url, body=encode(images(4)), headers=headers)[1]
    again = send(service.url, body=encode(images(4)), headers=headers)[1]
    assert again == first | {"replayed": True}
    assert service.ledger.used() == model.images == 4
    status, document = send(service.url, body=encode(images(4, seed=1)), headers=headers)
    assert (status, document["error"]["code"]) == (422, "key-reused")


@pytest.mark.parametrize("key", ["", "x" * 129, "a\tb"])
def test_bad_keys_are_refused(serving, send, images, key):
    headers = {"Content-Type": NPY, "Idempotency-Key": key}
    status, document = send(serving().url, body=encode(images(1)), headers=headers)
    assert (status, document["error"]["code"]) == (400, "bad-key")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/query", 405), ("PUT", "/info", 405)]
)
def test_other_paths_and_methods_are_json_errors(serving, send, method, path, status):
    found, document = send(serving().url, method, path)
    assert found == status
    assert "GET /info and POST /query" in document["error"]["message"]


def test_tokens_have_budgets_of_their_own_within_the_servers(serving, send, images):
    service = serving(budget=8, clients=[RED, BLUE])

    def ask(token, count):
        headers = {"Content-Type": NPY, "Authorization": f"Bearer {token}"}
        return send(service.url, body=encode(images(count)), headers=headers)

    assert ask(RED.token, 4)[1]["remaining"] == 1
    assert ask(RED.token, 2)[0] == 403
    assert ask(BLUE.token, 4)[1]["remaining"] == 0
    assert ask(RED.token, 1)[0] == 403
    assert service.ledger.used() == 8


@pytest.mark.parametrize("header", ["", "Bearer nobody", "Basic correct-horse-battery", "Bearer "])
def test_without_a_token_nothing_is_told(serving, send, images, header):
    service = serving(clients=[RED])
    headers = {"Content-Type": NPY, "Authorization": header}
    for method, path in (("GET", "/info"), ("POST", "/query")):
        status, document = send(service.url, method, path, encode(images(1)), headers)
        assert (status, document["error"]["code"]) == (401, "unauthorized")


def test_keys_of_one_client_are_not_anothers(serving, send, images):
    service = serving(clients=[RED, BLUE])
    for client in (RED, BLUE):
        headers = {
            "Content-Type": NPY,
            "Authorization": f"bearer {client.token}",
            "Idempotency-Key": "same",
        }
        body = encode(images(1, seed=len(client.name)))
        assert send(service.url, body=body, headers=headers)[1]["replayed"] is False


def test_a_rebound_domain_is_refused(serving, send):
    service = serving()
    status, document = send(service.url, "GET", "/info", headers={"Host": "thief.example"})
    assert (status, document["error"]["code"]) == (421, "wrong-host")
    assert send(service.url, "GET", "/info", headers={"Host": "localhost:1"})[0] == 200


SHAPE = (1, 2, 2)
THREE = encode(np.full((3, *SHAPE), 0.5, np.float32))


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
@given(st.integers(0, len(THREE) - 1), st.binary(min_size=1, max_size=12), st.integers(0, 12))
def test_npy_with_bytes_replaced(start, new, removed):
    images_or_refusal(THREE[:start] + new + THREE[start + removed :], NPY)


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
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + THREE[-48:]
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
