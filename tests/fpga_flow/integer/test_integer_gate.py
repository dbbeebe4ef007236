"""The integer engine's gate: a wrong kernel is named and replaced, whatever hid it before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_models import random_images, small_network

from divqat_brevitas.errors import CheckFailedError
from fpga_flow.cli import commands as cli
from fpga_flow.engines import load_engine
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.export.parity import compare
from fpga_flow.integer import engine as integer
from fpga_flow.integer import gate, plan
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import KernelWarning, cache_folder, gate_images, refuse
from fpga_flow.integer.kernel import Kernel
from fpga_flow.lowering import lower

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of libraries compute few images, too: ``test_native`` has compiled C++."""
    monkeypatch.setenv("DIVQAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(integer, "compile_native", lambda *_: None)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_network(tmp_path_factory.mktemp("gate") / "model.onnx")


def break_kernels(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[torch.Tensor, int], bool], layer: str
) -> None:
    """After its trial, the byte kernel of ``layer`` is off by one where ``wrong(x, call)``."""
    true_compile = plan.compile_int8

    def compile_int8(one: Any, *rest: Any) -> Kernel | None:
        kernel = true_compile(one, *rest)
        if kernel is None or one.name != layer:
            return kernel
        run, calls = kernel.run, iter(range(10**9))

        def broken(x: torch.Tensor) -> torch.Tensor:
            result = run(x)
            return result + 1 if wrong(x, next(calls)) else result

        return Kernel(kernel.kind, broken)

    monkeypatch.setattr(plan, "compile_int8", compile_int8)


WRONG: dict[str, Callable[[torch.Tensor, int], bool]] = {
    "always": lambda x, _: True,
    "one image at a time": lambda x, _: len(x) == 1,
    "in one batch size": lambda x, _: len(x) == 256,
    "now and then": lambda _, call: call % 9 == 8,
    "on the lowest inputs": lambda x, _: bool((x == 0).flatten(1).all(1).any()),
    "on the highest inputs": lambda x, _: bool((x == 255).flatten(1).all(1).any()),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_named_and_replaced(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_kernels(monkeypatch, WRONG[name], "Conv_0")
    with pytest.warns(KernelWarning, match="'Conv_0', kernel 'unrolled int8 with Quant_3'"):
        engine = load_engine(path)
    assert isinstance(engine, IntegerEngine)
    (difference,) = engine.differences
    assert difference.layers == ("Conv_0", "Quant_3")
    assert {engine.kernels["Conv_0"], engine.kernels["Quant_3"]} == {"int64"}
    assert engine.kernels["Gemm_0"] == "int8, through Flatten_0"
    images = np.concatenate([random_images(300), gate_images(engine.network)])
    expected = engine.network.predict(images)
    for _ in range(3):
        assert np.array_equal(engine.predict(images), expected)
    assert np.array_equal(engine.predict(images[:1]), expected[:1])
    with pytest.raises(CheckFailedError, match="Conv_0"):
        refuse(engine.differences)
    # What failed is no verdict to keep: the next load says so again.
    with pytest.warns(KernelWarning):
        IntegerEngine(path)


def test_wrong_codes_of_the_input_are_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        integer,
        "compile_input",
        lambda entry: Kernel(
            "input", lambda images: torch.from_numpy((entry.codes(images) + 1).clip(0, 255))
        ),
    )
    with pytest.warns(KernelWarning, match="layer 'Quant_0', kernel 'input'"):
        engine = IntegerEngine(path)
    images = random_images(20)
    assert np.array_equal(engine.predict(images), engine.network.predict(images))


def test_every_kernel_may_be_wrong(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in ("Conv_0", "Gemm_0"):
        break_kernels(monkeypatch, WRONG["always"], layer)
    true_execute = Kernel.__call__
    monkeypatch.setattr(
        Kernel,
        "__call__",
        lambda self, *x: true_execute(self, *x) + (0 if self.kind == "int64" else 1),
    )
    with pytest.warns(KernelWarning):
        engine = IntegerEngine(path)
    assert set(engine.kernels.values()) == {"int64"}
    images = random_images(20)
    assert np.array_equal(engine.predict(images), engine.network.predict(images))


def test_a_definition_that_changes_is_no_definition(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_execute = Kernel.__call__
    monkeypatch.setattr(Kernel, "__call__", lambda self, *x: true_execute(self, *x) + 1)
    with pytest.raises(CheckFailedError, match="memory or processor"):
        IntegerEngine(path)


def test_a_file_is_compared_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examined = []
    monkeypatch.setattr(gate, "examine", lambda engine: examined.append(engine) or ())
    for _ in range(2):
        load_engine(path)
    assert len(examined) == 1
    (record,) = cache_folder().glob("*.json")
    for damaged in ("", "{}", "null", "[1", '{"equal": false}'):
        record.write_text(damaged)
        load_engine(path)
        load_engine(path)
    assert len(examined) == 6
    # Another content, batch or number of threads is another verdict.
    IntegerEngine(path, batch=4)
    other = path.with_name("other.onnx")
    other.write_bytes(path.read_bytes() + b"\x6a\x00")  # an empty unknown field
    gate.gate(IntegerEngine(lower(path)), gate.sha256_file(other))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        IntegerEngine(path)
    finally:
        torch.set_num_threads(threads)
    assert len(examined) == 9


def test_a_cache_that_cannot_be_written_is_done_without(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIVQAT_CACHE", str(tmp_path / "file"))
    images = random_images(3)
    engine = load_engine(path)
    assert np.array_equal(engine.predict(images), lower(path).predict(images))


def test_old_records_are_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_KEPT", 4)
    engine = IntegerEngine(lower(path))
    for number in range(7):
        gate.gate(engine, str(number))
    assert 2 <= len(list(cache_folder().glob("*.json"))) <= 4


def test_the_gates_inputs_reach_the_ends(path: Path) -> None:
    network = lower(path)
    codes = network.input.codes(gate_images(network)).reshape(-1, 64)
    assert (codes == 0).all(1).any()
    assert (codes == network.input.high.max()).all(1).any()


def test_check_ends_with_exit_code_1(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def code() -> Any:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["check", str(path)])
        return stopped.value.code, capsys.readouterr().out

    assert code()[0] == 0
    monkeypatch.setenv("DIVQAT_CACHE", f"{cache_folder()}-other")
    break_kernels(monkeypatch, WRONG["always"], "Gemm_0")
    found, text = code()
    assert found == 1
    assert "Integer engine" in text
    assert "'Gemm_0'" in text


class _Torch(torch.nn.Module):
    """Answers as a network does, without layers to look into."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = lower(path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.network.predict(x.numpy()))


def test_parity_compares_three_engines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = _Torch(path), random_images(70)
    same = compare(model, path, images, model.network)
    assert (same.mismatches, same.engines, same.shapes, same.replaced) == (0, None, None, ())
    # The gate passes; later the kernel is wrong.
    monkeypatch.setattr(gate, "examine", lambda engine: ())
    monkeypatch.setenv("DIVQAT_CACHE", f"{cache_folder()}-other")
    break_kernels(monkeypatch, WRONG["always"], "Gemm_0")
    found = compare(model, path, images, model.network)
    assert (found.mismatches, found.engines) == (70, ("integer", "int64 definition"))


def test_parity_compares_shapes_before_values(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = _Torch(path), np.repeat(random_images(1), 22, axis=0)
    true_tensors = QonnxEngine.tensors
    monkeypatch.setattr(
        QonnxEngine,
        "tensors",
        lambda *args: {name: value[:1] for name, value in true_tensors(*args).items()},
    )
    found = compare(model, path, images, model.network)
    assert found.mismatches == 22
    assert found.engines == ("qonnx", "integer")
    assert found.shapes == ((1, 1, 8, 8), (22, 1, 8, 8))
