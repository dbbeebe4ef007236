"""Many clients, slow ones, and restarts: the count stays exact."""

import http.client
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest

from fpga_flow.serve import Limits
from fpga_flow.serve.wire import NPY, encode


def _storm(url, bodies, clients):
    """Send all bodies from many threads, each with a connection kept open; the statuses."""

    def work(part):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        statuses = []
        for body in part:
            connection.request("POST", "/query", body, {"Content-Type": NPY})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()
        return statuses

    parts = [bodies[i::clients] for i in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        return [status for part in pool.map(work, parts) for status in part]


def _check_storm(service, model, requests, clients, budget):
    sizes = np.random.default_rng(1).integers(1, 4, requests)
    bodies = [encode(np.full((size, 1, 8, 8), size / 255, np.float32)) for size in sizes]
    statuses = _storm(service.url, bodies, clients)
    assert len(statuses) == requests
    assert set(statuses) == {200, 403}
    # Every answered image is counted, none twice, and nothing fits any more.
    assert service.ledger.used() == model.images
    assert budget - 2 <= service.ledger.used() <= budget


def test_the_budget_holds_under_concurrency(serving, model, tmp_path):
    service = serving(budget=350, path=tmp_path / "ledger.sqlite")
    _check_storm(service, model, requests=300, clients=16, budget=350)


@pytest.mark.slow
def test_the_budget_holds_under_thousands_of_requests(serving, model, tmp_path):
    service = serving(budget=4_500, path=tmp_path / "ledger.sqlite")
    _check_storm(service, model, requests=3_000, clients=64, budget=4_500)


def test_one_key_at_the_same_time_is_counted_once(serving, send, model, images):
    service = serving()
    body, headers = encode(images(2)), {"Content-Type": NPY, "Idempotency-Key": "k"}
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: send(service.url, body=body, headers=headers), range(12)))
    assert {status for status, _ in found} == {200}
    assert sum(not document["replayed"] for _, document in found) == 1
    assert len({str(document["answers"]) for _, document in found}) == 1
    assert service.ledger.used() == model.images == 2


def _talk(url, data):
    """Send raw bytes, then whatever comes until the server closes; b"" where it just closes."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as s:
        s.sendall(data)
        parts = []
        try:
            while part := s.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def test_a_slow_body_is_told_so_and_costs_nothing(serving, send):
    service = serving(limits=Limits(body_seconds=0.2))
    got = _talk(
        service.url, b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nabc"
    )
    assert got.startswith(b"HTTP/1.1 408")
    assert b"too-slow" in got
    assert service.ledger.used() == 0
    assert send(service.url, "GET", "/info")[0] == 200


def test_slow_clients_leave_places_for_others(serving, send, images):
    service = serving(limits=Limits(body_seconds=0.5, concurrent=1))
    address = urlsplit(service.url)
    slow = [socket.create_connection((address.hostname, address.port), timeout=60) for _ in "ab"]
    for s in slow:
        s.sendall(b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nabc")
    status, _ = send(service.url, body=encode(images(1)), headers={"Content-Type": NPY})
    assert status == 200
    for s in slow:
        s.close()


def test_waiting_too_long_for_a_place_is_busy(serving, send, model, images):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        entered.set()
        leave.wait(60)

    model.before = hold
    service = serving(limits=Limits(queue_seconds=0.1, concurrent=1))
    body, headers = encode(images(1)), {"Content-Type": NPY}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, service.url, body=body, headers=headers)
        assert entered.wait(60)
        status, document = send(service.url, body=body, headers=headers)
        leave.set()
        assert first.result()[0] == 200
    assert (status, document["error"]["code"]) == (503, "busy")
    assert service.ledger.used() == 1


def test_a_client_that_leaves_before_the_answer_gets_it_on_asking_again(
    serving, send, model, images
):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        entered.set()
        leave.wait(60)

    model.before = hold
    service = serving()
    address, body = urlsplit(service.url), encode(images(3))
    head = (
        f"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NPY}\r\n"
        f"Idempotency-Key: lost\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=60) as s:
        s.sendall(head.encode() + body)
        assert entered.wait(60)
    leave.set()
    status, document = send(
        service.url, body=body, headers={"Content-Type": NPY, "Idempotency-Key": "lost"}
    )
    assert (status, document["replayed"]) == (200, True)
    assert service.ledger.used() == model.images == 3
