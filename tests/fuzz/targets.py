"""What is fuzzed: each target takes bytes, and must end normally or with an error for users.

Anything else (a traceback, a hang, memory without bound) is a finding.
"""

import contextlib
import gzip
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from divqat_brevitas.errors import DivQATError

MAX_MACS = 2_000_000  # larger networks are lowered but not executed: time belongs to inputs


@contextlib.contextmanager
def written(data: bytes, suffix: str) -> Iterator[Path]:
    """The bytes as a file, in memory where the system has such a folder."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="divqat-fuzz-", dir=shared) as folder:
        path = Path(folder) / f"input{suffix}"
        path.write_bytes(data)
        yield path


def onnx(data: bytes) -> None:
    """The safe reader alone."""
    from fpga_flow.untrusted.onnx_file import read_onnx

    with written(data, ".onnx") as path, contextlib.suppress(DivQATError):
        read_onnx(path)


def step(data: bytes) -> None:
    """A model of a FINN build, as its engine reads it."""
    from fpga_flow.compile.worker_execution import OPERATORS
    from fpga_flow.untrusted.onnx_file import read_step

    with written(data, ".onnx") as path, contextlib.suppress(DivQATError):
        read_step(path, OPERATORS)


def qonnx(data: bytes) -> None:
    """Reader, cleaning, lowering, and the reference and fast engines, which must agree."""
    from fpga_flow.integer.engine import IntegerEngine
    from fpga_flow.lowering import lower

    with written(data, ".onnx") as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(DivQATError), np.errstate(all="ignore"):
            network = lower(path)
            rows = network.describe()
            sizes = [int(np.prod(row.output_shape)) for row in rows]
            if sum(row.macs for row in rows) > MAX_MACS or sum(sizes) > MAX_MACS:
                return
            images = np.random.default_rng(0).random((2, *network.input_shape), np.float32)
            expected = network.predict(images)
            assert np.array_equal(
                IntegerEngine(network).predict(images), expected, equal_nan=True
            ), "the engines differ"


def toml(data: bytes) -> None:
    """Settings from a file and from ``--set``."""
    from fpga_flow.pipeline.resolve import resolve

    with written(data, ".toml") as path:
        with contextlib.suppress(DivQATError):
            resolve(path)
        with contextlib.suppress(DivQATError):
            resolve(overrides=[data.decode("utf-8", "replace")])


def folding(data: bytes) -> None:
    """A folding JSON."""
    from fpga_flow.compile.folding_file import read_folding

    with written(data, ".json") as path, contextlib.suppress(DivQATError):
        read_folding(path)


def results(data: bytes) -> None:
    """Somebody's results.json."""
    from divqat_brevitas.files import read_json
    from fpga_flow.report.schema import validate

    with written(data, ".json") as path, contextlib.suppress(DivQATError):
        validate(read_json(path))


def checkpoint(data: bytes) -> None:
    """Weights as safetensors."""
    from divqat_brevitas.training.checkpoint import load_tensors

    with written(data, ".safetensors") as path, contextlib.suppress(DivQATError):
        load_tensors(path)


def archive(data: bytes) -> None:
    """A fetched archive: a tar (compressed here, so that mutations reach its inside) or a .deb."""
    from divqat_brevitas.data.download import read_members

    for suffix, content in ((".tgz", gzip.compress(data, 1)), (".deb", data)):
        with written(content, suffix) as path, contextlib.suppress(DivQATError):
            read_members(path, "*")


def idx(data: bytes) -> None:
    """IDX and CIFAR's binary version."""
    from divqat_brevitas.data.formats import idx_pair, parse_cifar_binary, parse_idx

    with contextlib.suppress(DivQATError):
        parse_idx(data, "input")
    with contextlib.suppress(DivQATError):
        idx_pair(data, data, "input")
    with contextlib.suppress(DivQATError):
        parse_cifar_binary(data, "input")


def rest(data: bytes) -> None:
    """The body of a request to ``divqat serve``, as JSON and as npy."""
    from fpga_flow.serve.wire import JSON, NPY, RequestError, decode

    for kind in (JSON, NPY):
        with contextlib.suppress(DivQATError, RequestError):
            images = decode(data, kind, (1, 2, 2), 64)
            assert images.shape[1:] == (1, 2, 2)
            assert 0 <= images.min() <= images.max() <= 1


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (onnx, step, qonnx, toml, folding, results, checkpoint, archive, idx, rest)
}
INSTRUMENTED = [
    "fpga_flow.untrusted.onnx_file",
    "fpga_flow.untrusted.onnx_sizes",
    "fpga_flow.lowering",
    "fpga_flow.pipeline.config",
    "fpga_flow.pipeline.resolve",
    "fpga_flow.compile.folding_file",
    "fpga_flow.report.schema",
    "fpga_flow.serve.wire",
    "divqat_brevitas.files",
    "divqat_brevitas.training.checkpoint",
    "divqat_brevitas.data",
    "tomllib",
    "json",
    "tarfile",
]


# Found by fuzzing: arrays of no elements, of a shape that no machine can hold.
EMPTY = [
    bytes.fromhex(f"00000803{shape}")
    for shape in (
        "d1000000d100000000000000",
        "00000000ffffffffffffff0f",
        "00000000ffffffffffffff03",
    )
]


def seeds(name: str) -> list[bytes]:
    """Valid inputs of a target, made here: the corpus holds only what was found."""
    made = {
        "onnx": _models,
        "step": _steps,
        "qonnx": _models,
        "toml": _settings,
        "folding": lambda: [b'{"Defaults": {}, "MVAU_rtl_0": {"PE": 2, "SIMD": 3}}'],
        "results": lambda: [json.dumps({"schema": 1, "victims": []}).encode()],
        "checkpoint": _checkpoints,
        "archive": _archives,
        "idx": lambda: [bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), bytes(3073), *EMPTY],
        "rest": _bodies,
    }
    return made[name]()


def _models() -> list[bytes]:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    from qonnx_graphs import Graph

    plain = Graph((2, 6, 6))
    x = plain.quant(plain.batch_norm(plain.conv(plain.image(), 2, 4), 4, 40.0), 0.2, 4)
    small = Graph((4,), seed=1)
    branches = Graph((2, 4, 4), seed=2)
    y = branches.conv(branches.image(), 2, 2, pads=[1, 1, 1, 1])
    y = branches.quant(branches.node("Relu", y), 0.25, 4, signed=False)
    z = branches.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    made = [
        plain.classifier(x),
        small.model(small.linear(small.quant(small.image(), 0.5, 3), 4, 3)),
        branches.classifier(branches.node("AveragePool", z, kernel_shape=[2, 2])),
    ]
    return [model.model.SerializeToString() for model in made]


def _steps() -> list[bytes]:
    from onnx import TensorProto, helper

    node = helper.make_node(
        "MVAU_rtl",
        ["x", "w"],
        ["y"],
        domain="finn.custom_op.fpgadataflow.rtl",
        inputDataType="UINT4",
        MW=4,
        numInputVectors=[1],
        mem_mode="internal_decoupled",
    )
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], np.ones(8))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    model = helper.make_model(helper.make_graph([node], "step", [x], [y], [weights]))
    for key, value in (("finn_datatype", "UINT4"), ("tensor_layout", "['N', 'C']")):
        annotation = model.graph.quantization_annotation.add(tensor_name="x")
        annotation.quant_parameter_tensor_names.add(key=key, value=value)
    return [model.SerializeToString()]


def _settings() -> list[bytes]:
    from fpga_flow.pipeline.resolve import presets, resolve, to_toml

    return [to_toml(resolve(preset=name)).encode() for name in presets()]


def _checkpoints() -> list[bytes]:
    import torch

    from divqat_brevitas.training.checkpoint import save_tensors

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save_tensors(path, {"w": torch.arange(4.0), "n": torch.tensor(3)}, {"epoch": 1})
        return [path.read_bytes()]


def _archives() -> list[bytes]:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("package/data/a-ubyte", b"123"), ("package/ü" + "x" * 120, b"4")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed = gzip.compress(buffer.getvalue())
    header = b"data.tar.gz".ljust(48) + str(len(packed)).encode().ljust(10) + b"`\n"
    return [buffer.getvalue(), b"!<arch>\n" + header + packed]


def _bodies() -> list[bytes]:
    from fpga_flow.serve.wire import encode

    images = np.zeros((1, 1, 2, 2), np.float32)
    return [json.dumps({"images": images.tolist()}).encode(), encode(images)]
