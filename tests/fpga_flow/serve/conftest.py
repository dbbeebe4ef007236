"""A tiny victim, a server around it, and plain HTTP without our own client."""

import http.client
import json
from urllib.parse import urlsplit

import numpy as np
import pytest

from divqat_brevitas.extraction import Victim
from fpga_flow.serve import QueryLedger, Service, running

SHAPE, CLASSES = (1, 8, 8), 5


class Linear:
    """Deterministic, whatever images come together; counts what it was asked."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.weight = rng.integers(-8, 8, (64, CLASSES))
        self.images = 0
        self.before = lambda: None

    def predict(self, images):
        self.before()
        self.images += len(images)
        # Pixels of 1/255 times small integers: sums are exact in float64.
        pixels = np.round(images.reshape(len(images), 64).astype(np.float64) * 255)
        return (pixels @ self.weight / 512).astype(np.float32)


def some_images(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE))
    return (pixels / np.float32(255)).astype(np.float32)


@pytest.fixture
def model():
    return Linear()


@pytest.fixture
def images():
    return some_images


@pytest.fixture
def serving(model):
    """Starts servers around the model; stops them at the end of the test."""
    import contextlib

    with contextlib.ExitStack() as stack:

        def start(*, budget=100, oracle="soft", path=None, clients=(), defence="none", **options):
            budgets = {client.name: client.budget for client in clients}
            ledger = QueryLedger(path, {"model": "linear", "oracle": oracle}, budget, budgets)
            stack.callback(ledger.close)
            victim = Victim(model, oracle, budget, defence)
            service = Service(victim, SHAPE, CLASSES, ledger, clients=clients, **options)
            service.url = stack.enter_context(running(service))
            return service

        yield start


@pytest.fixture
def send():
    """One plain request: (status, JSON document)."""

    def request(url, method="POST", path="/query", body=None, headers=None):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    return request


@pytest.fixture
def as_json():
    def document(images):
        return json.dumps({"images": np.asarray(images).tolist()}), {
            "Content-Type": "application/json"
        }

    return document
