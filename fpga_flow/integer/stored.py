"""Lowered networks, kept by content: lowering takes longer than everything else of a load.

A network is written as data: its arrays as safetensors, all else as JSON in their metadata.
"""

import contextlib
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors
from onnx.external_data_helper import uses_external_data
from safetensors.numpy import save_file

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import replacing, sha256_file, sha256_text
from divqat_brevitas.input_range import InputRange
from fpga_flow.integer.gate import cache_folder, forget_oldest, platform
from fpga_flow.lowering import Network, OutputAffine, ir, lower
from fpga_flow.lowering.inputs import FloatStep, InputQuant
from fpga_flow.lowering.quantizers import Quantizer

_KEPT = 64  # networks, of a few megabytes each
_CLASSES: dict[str, Any] = {
    one.__name__: one
    for one in (
        *(Network, OutputAffine, InputRange, InputQuant, FloatStep, Quantizer),
        *(ir.Conv, ir.MatMul, ir.Threshold, ir.MaxPool, ir.SumPool),
        *(ir.Add, ir.Concat, ir.Pad, ir.Reshape),
    )
}


def lowered(path: Path) -> Network:
    """``lower(path)``, found again where the same file was lowered before.

    Raises:
        InputError: no file, no ONNX, no QONNX.
        LoweringError: a node that cannot become integers.
    """
    if not path.is_file():
        return lower(path)  # which explains
    key = sha256_text("\n".join([sha256_file(path), *platform()]))
    stored = cache_folder() / f"{key}.safetensors"
    with contextlib.suppress(Exception):  # not there, or damaged in any way
        return _read(stored)
    network = lower(path)
    if not _has_external_data(path):  # which the key does not cover
        with contextlib.suppress(InputError, OSError):  # a read-only home: lowered next time, too
            _write(network, stored)
            forget_oldest(stored.parent, "*.safetensors", _KEPT)
    return network


def _write(network: Network, path: Path) -> None:
    arrays: dict[str, Any] = {}
    text = json.dumps(_encoded(network, arrays))
    with replacing(path) as growing:
        save_file(arrays, growing, metadata={"network": text})


def _read(path: Path) -> Network:
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = _decoded(json.loads(file.metadata()["network"]), arrays)
    if not isinstance(network, Network):
        raise TypeError(path)
    return network


def _encoded(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, np.ndarray | np.generic):
        name = str(len(arrays))
        arrays[name] = np.ascontiguousarray(value).reshape(np.shape(value))
        return {"array": name}
    if is_dataclass(value):
        of = {f.name: _encoded(getattr(value, f.name), arrays) for f in fields(value)}
        return {"class": type(value).__name__, "fields": of}
    if isinstance(value, tuple):
        return [_encoded(one, arrays) for one in value]
    return value


def _decoded(value: Any, arrays: dict[str, Any]) -> Any:
    match value:
        case {"array": str(name)}:
            arrays[name].setflags(write=False)
            return arrays[name]
        case {"class": str(name), "fields": dict(of)}:
            return _CLASSES[name](**{key: _decoded(one, arrays) for key, one in of.items()})
        case list():
            return tuple(_decoded(one, arrays) for one in value)
        case _:
            return value


def _has_external_data(path: Path) -> bool:
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    return any(map(uses_external_data, (*graph.initializer, *constants)))
