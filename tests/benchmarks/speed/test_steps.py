"""The suite `steps`: rungs that compute the same, and what is published of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.speed import ladders, steps
from benchmarks.speed.exported import exported
from benchmarks.speed.ladders import Rung
from benchmarks.speed.profile import operators
from benchmarks.speed.suite import Context, Record
from benchmarks.speed.timing import Spread
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.quant import fused
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import lower


@pytest.fixture(scope="module")
def training() -> list[Rung]:
    return ladders.training("cifar-cnn", 4)


def used(rung: Rung) -> set[str]:
    return {one["name"] for one in operators(rung.call, top=1000)}


def calls(rung: Rung, name: str) -> int:
    return sum(one["calls"] for one in operators(rung.call, top=1000) if one["name"] == name)


def test_steps_of_training_change_no_bit_where_they_say_so(training: Sequence[Rung]) -> None:
    found = steps.check("training", training)
    equal = [name for name, one in found.items() if one["equal"]]
    assert equal == [rung.name for rung in training[2:6]]
    assert found[training[1].name]["apart"] == 0.0  # logits: only gradients are others


def test_rungs_of_training_run_what_they_name(training: Sequence[Rung]) -> None:
    stock, modules, whole, blocks, inside, again, nhwc, bfloat16 = (used(one) for one in training)
    assert "aten::where" in stock & modules
    assert "_FusedIntQuant" in whole & blocks & inside & again & nhwc & bfloat16
    assert "_FusedIntQuant" not in stock | modules
    assert "aten::relu" in whole & blocks
    assert "aten::relu" not in inside | again | nhwc


def test_tensors_are_taken_whole_at_one_rung_alone() -> None:
    sizes: list[int] = []
    original = fused._blocks

    def spy(tensors: tuple[Tensor, ...], scale: Tensor) -> object:
        sizes.append(fused.BLOCK)
        return original(tensors, scale)

    whole, blocks = ladders.training("cifar-cnn", 4)[2:4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_blocks", spy)
        whole.results()
        during = set(sizes)
        sizes.clear()
        blocks.results()
    assert during == {2**62}
    assert set(sizes) == {fused.BLOCK}


def test_a_training_rung_moves_its_weights(training: Sequence[Rung]) -> None:
    before, *_ = training[3].results()
    for _ in range(3):
        training[3].call()
    assert not torch.equal(training[3].results()[0], before)


def test_rungs_of_the_integer_engine_give_the_engines_integers(tmp_path: Path) -> None:
    network = lower(exported("digits-cnn", tmp_path).qonnx)
    images = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)
    rungs = ladders.integers(network, images)
    assert all(one["equal"] for one in steps.check("engine", rungs).values())
    tensor = network.output.tensor
    expected = IntegerEngine(network).integers(images, [tensor])[tensor]
    assert np.array_equal(rungs[0].results()[0].numpy(), expected)
    searched, table, scaled, of_bytes, *others = (used(rung) for rung in rungs)
    assert "aten::searchsorted" in searched
    assert "aten::index_select" in table
    late = set.union(scaled, of_bytes, *others)
    assert not {"aten::searchsorted", "aten::index_select"} & late
    products = [calls(rung, "onednn::qlinear_pointwise") for rung in rungs]
    assert products == [0, 0, 0, 1, 1, 2, 2]  # the last layer, then the first convolution too


def test_a_clone_of_bytes_is_that_of_floats() -> None:
    loops = ladders.clones("mlp", (1, 8, 8), 32)
    found = steps.check("clone", loops["`train_surrogate`"])
    assert [one["equal"] for one in found.values()] == [True, False]


def planted(name: str, *values: float, unlike: str = "", apart: float = 0.0) -> Rung:
    return Rung(name, lambda: None, lambda: [torch.tensor(values)], unlike, apart)


@pytest.mark.parametrize(
    "after",
    [
        planted("b", 3.0, 4.1),
        planted("b", 3.0, 5.0, unlike="order", apart=0.1),
        planted("b", 3.0, float("nan"), unlike="order", apart=0.1),
    ],
)
def test_rungs_that_compute_something_else_are_not_timed(after: Rung) -> None:
    with pytest.raises(CheckFailedError, match="results with 'b' are not those without it"):
        steps.check("planted", [planted("a", 3.0, 4.0), after])


def test_a_quick_run_gives_a_record_that_can_be_published() -> None:
    threads = torch.get_num_threads()
    try:
        record = json.loads(json.dumps(steps.measure(Context(rounds=1, quick=True))))
    finally:
        torch.set_num_threads(threads)
    for ladder in record["ladders"]:
        assert len(ladder["steps"]) == len(ladder["rungs"]) - 1
        assert all(rung["operators"] for rung in ladder["rungs"])
    page = "\n".join(steps.section(record).lines)
    for part in ("Training step, cifar-cnn", "Integer engine, digits-cnn", "Clone's training, mlp"):
        assert f"### {part}" in page


def small() -> Record:
    def spread(value: float) -> Record:
        return Spread((value,)).record()

    def rung(name: str, seconds: float) -> Record:
        found = [{"name": f"aten::{name}", "seconds": seconds / 2, "share": 0.5}]
        return {"name": name, "seconds": spread(seconds), "operators": found}

    def step(name: str, ratio: float, **results: object) -> Record:
        both = {"before_to_after": spread(ratio), "cpu_before_to_after": spread(ratio + 0.1)}
        return {"name": name, **both, "results": results}

    ladder = {
        "title": "Work",
        "rungs": [rung("old", 8.0), rung("new", 4.0), rung("newer", 2.0)],
        "steps": [
            step("new", 2.0, equal=True, unlike="", apart=0.0),
            step("newer", 1.5, equal=False, unlike="last bits", apart=0.0123),
        ],
        "all": spread(4.0),
        "cpu_all": spread(4.5),
    }
    return {"bits": "w4a4", "ladders": [ladder]}


def test_what_is_published_is_in_the_record() -> None:
    section = steps.section(small())
    page = "\n".join(section.lines)
    ratios = "2.00x (2.00 to 2.00) | 2.10x (2.10 to 2.10)"
    assert f"| + new | 4.00 s (4.00 to 4.00) | {ratios} | every bit |" in page
    assert "| close (1.2%): last bits |" in page
    assert "| + newer | `aten::newer` 1e+03 ms |" in page
    (line,) = section.summary
    assert line.value == "4.00x (4.00 to 4.00)"
    assert line.beside.endswith("old")
