"""Attacks over the line: the same clone, the same count."""

import socket
import threading

import numpy as np
import pytest
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import BudgetExceededError, KnockoffNets, Victim
from fpga_flow.serve import Client, Limits, RestClient, RestError, RestPredictor, RestVictim

RED = Client("red", "correct-horse-battery", 7)


@pytest.mark.parametrize("oracle", ["soft", "top1", "rounded"])
def test_a_theft_over_the_line_is_the_one_in_process_bit_by_bit(serving, model, images, oracle):
    pool = np.round(images(1300) * 255).astype(np.uint8)
    attack = KnockoffNets(surrogate="mlp", seed=3, epochs=1)
    here = Victim(model, oracle, 1200)
    expected = attack.run(here, pool)
    there = RestVictim(serving(oracle=oracle, budget=1200).url)
    found = attack.run(there, pool)
    for name, value in expected.clone.state_dict().items():
        assert torch.equal(found.clone.state_dict()[name], value)
    assert found.settings == expected.settings
    assert found.history == expected.history
    np.testing.assert_array_equal(found.indices, expected.indices)
    # 1,000 and 200 images, as in process.
    assert there.ledger == here.ledger
    assert there.client.info().queries_used == there.queries_used == 1200


def test_batches_beyond_a_requests_limit_go_in_parts(serving, model, images):
    service = serving(limits=Limits(body_bytes=128 + 4 * 64 * 10))
    victim = RestVictim(service.url)
    np.testing.assert_array_equal(victim.query(images(25)), Victim(model).query(images(25)))
    assert [row.images for row in victim.ledger] == [10, 10, 5]
    assert service.ledger.used() == victim.queries_used == 25


def test_a_budget_of_ones_own_is_kept_to(serving, images):
    service = serving(budget=50)
    victim = RestVictim(service.url, budget=4)
    with pytest.raises(BudgetExceededError):
        victim.query(images(5))
    victim.query(images(4))
    assert victim.remaining == 0
    assert service.ledger.used() == 4


def test_a_server_that_others_emptied_says_so(serving, images):
    service = serving(budget=10)
    first, second = RestVictim(service.url), RestVictim(service.url)
    first.query(images(8))
    with pytest.raises(BudgetExceededError, match="2 of 10 are left"):
        second.query(images(3))
    assert second.queries_used == 0
    assert service.ledger.used() == 8


def test_a_predictor_needs_logits(serving, model, images):
    predictor = RestPredictor(serving(oracle="logits").url)
    np.testing.assert_array_equal(predictor.predict(images(5)), model.predict(images(5)))
    with pytest.raises(InputError, match="RestVictim"):
        RestPredictor(serving(oracle="soft").url)


class Cutting:
    """A line that forwards requests and loses the first answers, after the server gave them."""

    def __init__(self, target, lost):
        self.target = target
        self.lost = lost
        self.requests = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                self._forward(client)

    def _forward(self, client):
        host, port = self.target.removeprefix("http://").split(":")
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")]
        wanted = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < wanted:
            body += client.recv(65536)
        head += b"\r\nConnection: close"
        with socket.create_connection((host, int(port)), timeout=60) as server:
            server.sendall(head + b"\r\n\r\n" + body)
            answer = b""
            while part := server.recv(65536):
                answer += part
        if head.startswith(b"POST"):
            self.requests += 1
            if self.requests <= self.lost:
                client.sendall(answer[: len(answer) // 2])
                return
        client.sendall(answer)


@pytest.fixture
def cutting():
    lines = []

    def make(url, lost):
        lines.append(Cutting(url, lost))
        return lines[-1]

    yield make
    for line in lines:
        line.socket.close()


def test_a_lost_answer_is_asked_again_and_counted_once(serving, cutting, model, images):
    service = serving()
    line = cutting(service.url, lost=2)
    victim = RestVictim(line.url, pause=0.01)
    np.testing.assert_array_equal(victim.query(images(6)), Victim(model).query(images(6)))
    assert line.requests == 3
    assert service.ledger.used() == victim.queries_used == 6


def test_a_line_that_stays_down_is_named_and_nothing_is_counted_here(serving, cutting, images):
    service = serving()
    victim = RestVictim(cutting(service.url, lost=99).url, retries=1, pause=0.01)
    with pytest.raises(RestError, match="cannot be reached"):
        victim.query(images(6))
    assert victim.queries_used == 0
    assert service.ledger.used() == 6


def test_no_server(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with pytest.raises(RestError, match="divqat serve"):
        RestVictim(f"http://127.0.0.1:{port}", retries=1, pause=0.01)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://a", "http://", ""])
def test_no_url(url):
    with pytest.raises(InputError, match="is no URL"):
        RestClient(url)
