"""What every engine promises, and how engines are loaded."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from brevitas.export import export_qonnx
from brevitas.nn import QuantIdentity, QuantLinear, QuantReLU
from brevitas.quant import Uint8ActPerTensorFloat
from engine_models import SHAPE, random_images, small_network
from finn_networks import finn_worker
from numpy.typing import NDArray
from qonnx.core.onnx_exec import execute_onnx
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Victim
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.engines import Engine, load_engine
from fpga_flow.engines.answering import answer_unit
from fpga_flow.engines.finn import FinnEngine
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.lowering import clean, lower
from fpga_flow.lowering.answer import MASKED, make_answer

EXACT = ["integer", "qonnx"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_network(tmp_path_factory.mktemp("engine") / "model.onnx")


@pytest.fixture(scope="module", params=EXACT)
def engine(request: pytest.FixtureRequest, path: Path) -> Engine:
    return load_engine(path, request.param)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 300])
def test_any_number_of_images(engine: Engine, count: int) -> None:
    images = random_images(count)
    logits = engine.predict(images)
    assert (logits.dtype, logits.shape) == (np.float32, (count, 5))
    integers = engine.accumulators(images)
    assert {name: a.shape for name, a in integers.items()} == {
        "Conv_0": (count, 6, 8, 8),
        "Gemm_0": (count, 5),
    }
    assert {a.dtype for a in integers.values()} == {np.dtype(np.int64)}


def test_an_image_gets_the_same_answer_in_any_batch(path: Path) -> None:
    images = random_images(40)
    engine = load_engine(path)
    alone = np.concatenate([engine.predict(images[i : i + 1]) for i in range(40)])
    assert np.array_equal(alone, engine.predict(images))


def test_engines_agree_on_every_integer(path: Path) -> None:
    images = random_images(200, seed=1)
    ours, theirs = (load_engine(path, name) for name in EXACT)
    a, b = ours.accumulators(images), theirs.accumulators(images)
    assert list(a) == list(b)
    for name in a:
        assert np.array_equal(a[name], b[name]), name
    labels = [engine.predict(images).argmax(axis=1) for engine in (ours, theirs)]
    assert np.array_equal(*labels)
    assert len(set(labels[0])) > 1


BAD: dict[str, tuple[object, str]] = {
    "uint8": (np.zeros((2, *SHAPE), np.uint8), "images are uint8.*255"),
    "float64": (np.zeros((2, *SHAPE)), "images are float64"),
    "list": ([[0.0]], "images are list"),
    "no batch axis": (np.zeros(SHAPE, np.float32), r"shape \(1, 8, 8\).*\(N, 1, 8, 8\)"),
    "other size": (np.zeros((2, 1, 9, 8), np.float32), r"shape \(2, 1, 9, 8\)"),
    "channels last": (np.zeros((2, 8, 8, 1), np.float32), r"shape \(2, 8, 8, 1\)"),
    "NaN": (np.full((2, *SHAPE), np.nan, np.float32), "remove NaN"),
    "one NaN": (np.where(np.arange(64) == 5, np.nan, 0).astype(np.float32).reshape(1, *SHAPE), "N"),
    "pixels": (np.full((2, *SHAPE), 255, np.float32), "from 255 to 255.*Divide"),
    "negative": (np.full((2, *SHAPE), -0.1, np.float32), "from -0.1"),
}


@pytest.mark.parametrize(("images", "message"), BAD.values(), ids=BAD.keys())
def test_bad_images(engine: Engine, images: NDArray[np.float32], message: str) -> None:
    for method in (engine.predict, engine.accumulators):
        with pytest.raises(InputError, match=message):
            method(images)


@pytest.mark.parametrize("name", EXACT)
def test_bad_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_engine(tmp_path / "nowhere.onnx", name)


def test_unknown_engine(path: Path) -> None:
    with pytest.raises(InputError, match="unknown engine 'intger': did you mean 'integer'"):
        load_engine(path, "intger")


# QONNX execution in batches is QONNX execution image by image.


def test_batches_equal_single_images(path: Path) -> None:
    images = random_images(7)
    model = clean(path)
    name, output = model.graph.input[0].name, model.graph.output[0].name
    single = [execute_onnx(model, {name: image[None]})[output] for image in images]
    logits = QonnxEngine(path, batch=4).predict(images)
    # another batch size sums in another order: float32 noise
    assert np.abs(logits - np.concatenate(single)).max() < 1e-6


def test_tensors_by_name(path: Path) -> None:
    engine = QonnxEngine(path, batch=4)
    images = random_images(6)
    values = engine.tensors(images, ["global_in", "Conv_0_out0", "Conv_0_out0"])
    assert np.array_equal(values["global_in"], images)
    assert values["Conv_0_out0"].shape == (6, 6, 8, 8)
    integers = engine.network.to_integers("Conv_0_out0", values["Conv_0_out0"])
    assert np.array_equal(integers, engine.accumulators(images)["Conv_0"])
    with pytest.raises(InputError, match="unknown tensor 'Conv_0_out': did you mean 'Conv_0_out0'"):
        engine.tensors(images, ["Conv_0_out"])


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    torch.manual_seed(0)
    pixels = {"bit_width": 8, "scaling_impl_type": "const", "scaling_init": 1.0}
    network = nn.Sequential(
        QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True, **pixels),
        nn.Flatten(),
        QuantLinear(36, 16, bias=False, weight_bit_width=4),
        nn.BatchNorm1d(16),
        QuantReLU(bit_width=4, return_quant_tensor=True),
        QuantLinear(16, 5, bias=True, weight_bit_width=4),
    )
    batch = torch.rand(32, 1, 6, 6)
    network(batch)
    network.eval()
    path = tmp_path_factory.mktemp("engine") / "mlp.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_qonnx(network, args=batch[:1], export_path=str(path), dynamo=False)
    return path


@pytest.fixture(scope="module")
def images():
    codes = np.random.default_rng(0).integers(0, 256, (70, 1, 6, 6))
    return codes.astype(np.float32) / 255


@pytest.mark.finn
@pytest.mark.slow  # simulates generated hardware
def test_same_integers_and_labels_as_the_network(onnx, images, tmp_path):
    engine = FinnEngine(
        compile_finn(onnx, tmp_path / "build", CompileSettings(), finn_worker()).folder
    )
    network = lower(onnx)
    integers = network.run(images)[network.output.tensor]
    (layer, accumulators), *more = engine.accumulators(images).items()
    assert more == []
    assert network.layer(layer).accumulates
    assert accumulators.dtype == np.int64
    assert np.array_equal(accumulators, integers)
    logits = engine.predict(images)
    assert (logits.dtype, logits.shape) == (np.float32, (70, 5))
    assert np.array_equal(logits.argmax(axis=1), network.predict(images).argmax(axis=1))
    # FINN multiplies the scales in float32, the lowering in float64.
    assert np.allclose(logits, network.predict(images), rtol=1e-5, atol=1e-6)
    assert engine.predict(images[:0]).shape == (0, 5)
    engine.close()
    assert np.array_equal(engine.predict(images[:2]), logits[:2])  # starts again
    engine.close()


@pytest.mark.finn
@pytest.mark.slow  # simulates generated hardware
def test_straight_from_a_qonnx_file(onnx, images):
    engine = load_engine(onnx, "finn")
    assert engine.name == "finn"
    assert np.array_equal(
        engine.predict(images).argmax(axis=1), lower(onnx).predict(images).argmax(axis=1)
    )
    with pytest.raises(InputError, match=r"shape \(70, 36\)"):
        engine.predict(images.reshape(70, 36))
    with pytest.raises(InputError, match="uint8"):
        engine.predict(np.zeros((1, 1, 6, 6), dtype=np.uint8))
    engine.close()


@pytest.mark.finn
def test_a_folder_without_a_build(tmp_path):
    with pytest.raises(InputError, match="no finished FINN build"):
        FinnEngine(tmp_path)


# Engines behind an answer unit: codes out, and what a host makes of them.
ALL = ["top1", "topk:2", "rounded:3", "posterior:2", "gated:1:3", "reject:keyed"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_network(tmp_path_factory.mktemp("answering") / "model.onnx")


@pytest.mark.slow  # simulates generated hardware
@pytest.mark.parametrize("name", ALL)
def test_every_engine_gives_the_codes_of_the_definition(file: Path, name: str) -> None:
    images, calibration = random_images(60, seed=1), random_images(80, seed=2)
    network = lower(file)
    output = network.output
    sums, seen = (network.run(x)[output.tensor].reshape(-1, 5) for x in (images, calibration))
    unit = make_answer(name, output.scale.tolist(), output.bias.tolist(), seen)
    expected = unit.codes(sums)
    assert len(np.unique(expected)) > 1
    for kind in ("integer", "qonnx"):
        engine = load_engine(file, kind, answer=name, calibration=calibration)
        assert engine.name == kind
        answers = engine.answers(images)
        assert answers.dtype == np.int64
        assert np.array_equal(answers, expected)
        assert np.array_equal(engine.rejected(images), unit.rejected(sums))
        logits = engine.predict(images)
        assert (logits.dtype, logits.shape) == (np.float32, (60, unit.classes))
        assert np.array_equal(logits, unit.logits(expected))
        assert engine.answers(images[:0]).shape == (0, expected.shape[1])
    assert np.array_equal(load_engine(file, answer=unit).answers(images), expected)


def test_labels_are_those_of_the_logits_and_victims_work_unchanged(file: Path) -> None:
    images = random_images(200, seed=3)
    engine = load_engine(file, answer="top1")
    labels = load_engine(file).predict(images).argmax(axis=1)
    assert np.array_equal(engine.answers(images)[:, 0], labels)
    soft = Victim(engine, oracle="soft", budget=200).query(images)
    assert np.array_equal(soft, np.eye(5, dtype=np.float32)[labels])
    kept = load_engine(file, answer="topk:2", calibration=random_images(50)).predict(images)
    assert np.array_equal((kept > MASKED).sum(axis=1), np.full(200, 2))


def test_without_an_answer_nothing_changes(file: Path) -> None:
    assert type(load_engine(file)).__name__ == "IntegerEngine"
    assert type(load_engine(file, "qonnx")).__name__ == "QonnxEngine"


def test_refusals(file: Path) -> None:
    with pytest.raises(InputError, match="unknown answer 'round': did you mean 'rounded'"):
        load_engine(file, answer="round:3")
    with pytest.raises(InputError, match="needs calibration images"):
        load_engine(file, answer="rounded:3")
    with pytest.raises(InputError, match="is a folder"):
        load_engine(file.parent, "rtl", answer="top1")
    with pytest.raises(InputError, match=r"AnswerUnit|more classes than the 5"):
        answer_unit(file, "topk:6", random_images(4))


@pytest.mark.slow
@pytest.mark.finn
def test_generated_hardware_gives_the_same_codes(file: Path) -> None:
    name = "posterior:3"
    images, calibration = random_images(40, seed=4), random_images(80, seed=2)
    software = load_engine(file, answer=name, calibration=calibration)
    engine = load_engine(file, "rtl", answer=name, calibration=calibration)
    assert isinstance(engine, RtlEngine)
    with engine as hardware:
        assert np.array_equal(hardware.answers(images), software.answers(images))
        assert np.array_equal(hardware.predict(images), software.predict(images))
        with pytest.raises(InputError, match=r"gives (labels|codes).*no accumulators"):
            hardware.accumulators(images)
        folder = hardware.design.folder
        assert load_engine(folder, "rtl", answer=hardware.design.unit).name == "rtl"
        other = answer_unit(file, "rounded:1", calibration)
        with pytest.raises(InputError, match=r"not the rounded:1 that was asked for"):
            load_engine(folder, "rtl", answer=other)
