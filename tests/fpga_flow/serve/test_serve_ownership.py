"""`divqat ownership commit|test`, and a served model with a fingerprint."""

import json

import numpy as np
import pytest

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction import Victim
from divqat_brevitas.files import sha256_file
from fpga_flow import check_ownership, commit_ownership, load_engine
from fpga_flow.cli import commands as cli
from fpga_flow.report.schema import OwnershipRow
from fpga_flow.serve import QueryLedger, RestVictim, Service, running
from fpga_flow.serve.ownership import fingerprinted

SHAPE = (1, 8, 8)


@pytest.fixture
def divqat(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return caught.value.code or 0, *capsys.readouterr()

    return call


class Attacker:
    """A perfect memory of a served victim's responses."""

    def __init__(self, images, responses):
        self.known = {image.tobytes(): row for image, row in zip(images, responses, strict=True)}

    def predict(self, images):
        other = np.zeros_like(next(iter(self.known.values())))  # the server's own check of a model
        return np.stack([self.known.get(image.tobytes(), other) for image in images])


@pytest.fixture
def served(tmp_path, mlp_onnx):
    """What was committed, and what a client got from the server afterwards."""
    files = commit_ownership(mlp_onnx, tmp_path / "owner", share=0.1)
    engine = load_engine(mlp_onnx)
    marking = fingerprinted(files.opening, sha256_file(mlp_onnx))
    images = np.random.default_rng(0).integers(0, 256, (300, *SHAPE), np.uint8) / np.float32(255)
    classes = engine.predict(images[:1]).shape[1]
    victim = Victim(engine, "top1", 1000, marking)
    ledger = QueryLedger(tmp_path / "ledger.sqlite", {"model": "mlp"}, 1000)
    with running(Service(victim, SHAPE, classes, ledger)) as url:
        responses = RestVictim(url).query(images)
    ledger.close()
    return files, images, responses, engine


def test_a_thief_is_recognised_and_the_victim_itself_is_not(served):
    files, images, responses, engine = served
    assert check_ownership(files.commitment, Attacker(images, responses)).p_value < 1e-6
    assert check_ownership(files.commitment, engine).p_value == 1


def test_a_server_that_resells_the_responses_is_recognised_by_its_url(served, tmp_path, divqat):
    files, images, responses, _ = served
    ledger = QueryLedger(tmp_path / "attacker.sqlite", {"model": "attacker"}, 1000)
    victim = Victim(Attacker(images, responses), "top1", 1000)
    with running(Service(victim, SHAPE, responses.shape[1], ledger)) as url:
        code, out, _ = divqat("ownership", "test", files.commitment, url, "--json")
    ledger.close()
    document = json.loads(out)
    assert (code, document["recognised"]) == (0, True)
    assert document["p_value"] < 1e-6
    assert document["triggers"] <= 200


def test_commands_and_their_exit_codes(divqat, tmp_path, mlp_onnx, served):
    files, *_ = served
    code, out, _ = divqat("ownership", "commit", mlp_onnx, "--out", tmp_path / "two", "--json")
    assert code == 0
    published = json.loads((tmp_path / "two" / "commitment.json").read_text(encoding="utf-8"))
    assert json.loads(out)["sha256"] == published["sha256"]
    opening = tmp_path / "two" / "opening.json"
    assert opening.stat().st_mode & 0o077 == 0
    secret = json.loads(opening.read_text(encoding="utf-8"))["fingerprint"]["secret"]
    assert secret not in str(published)
    kept = tmp_path / "row.json"
    code, out, _ = divqat("ownership", "test", files.commitment, mlp_onnx, "--out", kept)
    assert (code, "p = 1" in out) == (1, True)
    (row,) = json.loads(kept.read_text(encoding="utf-8"))
    assert OwnershipRow.model_validate(row).p_value == 1
    # The other commitment's opening is refused, before anything is asked.
    code, _, err = divqat("ownership", "test", files.commitment, mlp_onnx, "--opening", opening)
    assert (code, "does not belong" in err) == (1, True)
    code, _, err = divqat("ownership", "test", tmp_path / "two" / "commitment.json", mlp_onnx)
    assert (code, "no log of triggers" in err) == (2, True)
    code, _, err = divqat("ownership", "test", files.commitment, tmp_path / "none.onnx")
    assert (code, "there is no suspect" in err) == (2, True)
    code, _, err = divqat("ownership", "commit", mlp_onnx, "--out", tmp_path / "two")
    assert (code, "is there already" in err) == (2, True)


def test_another_model_is_not_served_with_the_fingerprint(served):
    files, *_ = served
    with pytest.raises(CheckFailedError, match="another model"):
        fingerprinted(files.opening, "0" * 64)
    with pytest.raises(InputError, match="no fingerprint"):
        fingerprinted(files.commitment, "0" * 64)
