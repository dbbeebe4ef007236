"""Folding files: parallelism per layer, checked before FINN applies them.

FINN ignores names it does not know and takes a PE that does not divide the channels until code
generation fails; a stale file would silently build an unfolded network.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json

# What folding.json of a build holds: parallelism, and where weights and thresholds live.
FOLDING_ATTRIBUTES = (
    "PE",
    "SIMD",
    "parallel_window",
    "ram_style",
    "ram_style_thresholds",
    "resType",
    "mem_mode",
    "depth_trigger_uram",
    "depth_trigger_bram",
)
# What names files and programs: FINN takes code that lies there already.
_NAMES_FILES = (
    "code_gen_dir_cppsim",
    "code_gen_dir_ipgen",
    "debug_log_path",
    "exec_mode",
    "executable_path",
    "gen_top_module",
    "ip_path",
    "ip_vlnv",
    "ipgen_path",
    "output_hook",
    "rtlsim_so",
    "rtlsim_trace",
)
# Folding attribute -> attributes whose product it has to divide, per operator (without _rtl/_hls).
_DIVIDES = {
    ("MVAU", "PE"): ("MH",),
    ("MVAU", "SIMD"): ("MW",),
    ("VVAU", "PE"): ("Channels",),
    ("VVAU", "SIMD"): ("Kernel",),
    ("Thresholding", "PE"): ("NumChannels",),
    ("FMPadding", "SIMD"): ("NumChannels",),
    ("ConvolutionInputGenerator", "SIMD"): ("IFMChannels",),
    ("Pool", "PE"): ("Channels",),
    ("LabelSelect", "PE"): ("Labels",),
    ("StreamingConcat", "SIMD"): ("ChannelsPerStream",),
}


def read_folding(path: Path) -> dict[str, dict[str, Any]]:
    """Read a FINN folding JSON: ``{layer name: {attribute: value}}``.

    Raises:
        InputError: missing, no JSON, another shape, or an attribute that names a file or program.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise InputError(
            f'{path} is no folding file: it must look like {{"MVAU_rtl_0": {{"PE": 2}}}}.'
        )
    for layer, attributes in value.items():
        for attribute in attributes:
            if attribute in _NAMES_FILES:
                raise InputError(
                    f"{path} sets {attribute!r} of the layer {layer!r}, which is no folding: it "
                    "tells FINN what to read or run. Remove it."
                )
    return value


def check_folding(model: ModelWrapper, folding: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Refuse a folding that does not fit the specialised ``model``.

    Args:
        model: the model after step_specialize_layers.
        folding: content of the file; ``Defaults`` is FINN's own key.
        name: the file, for messages.

    Raises:
        InputError: a layer or attribute that does not exist, with the nearest one that does; or
            a PE or SIMD that does not divide what it folds.
    """
    nodes = {node.name: node for node in model.graph.node}
    for layer, attributes in folding.items():
        if layer == "Defaults":
            continue
        if layer not in nodes:
            raise InputError(
                f"{name} folds the layer {layer!r}, which the network does not have"
                f"{_nearest(layer, nodes)}. Layers: {', '.join(nodes)}."
            )
        operator = getCustomOp(nodes[layer])
        known = operator.get_nodeattr_types()
        for attribute, value in attributes.items():
            if attribute not in known:
                raise InputError(
                    f"{name} sets {attribute!r} of the layer {layer!r}, which has no such "
                    f"attribute{_nearest(attribute, known)}."
                )
            _check_value(known[attribute], layer, attribute, value, name)
            _check_divides(operator, nodes[layer].op_type, layer, attribute, value, name)


def _check_value(known: Any, layer: str, attribute: str, value: Any, name: str) -> None:
    """``known`` is QONNX's (type, required, default[, allowed values])."""
    allowed = known[3] if len(known) > 3 else None
    if allowed is not None and value not in allowed:
        raise InputError(
            f"{name} sets {attribute}={value!r} of the layer {layer!r}, which must be one of "
            f"{', '.join(repr(one) for one in sorted(allowed))}."
        )
    kind = {"i": int, "s": str}.get(known[0])
    if kind is not None and not isinstance(value, kind):
        raise InputError(
            f"{name} sets {attribute}={value!r} of the layer {layer!r}, which must be "
            f"{'a whole number' if kind is int else 'text'}."
        )


def _check_divides(
    operator: Any, op_type: str, layer: str, attribute: str, value: Any, name: str
) -> None:
    folded = _DIVIDES.get((op_type.rsplit("_", 1)[0], attribute))
    if folded is None:
        return
    size = 1
    for part in folded:
        parts = operator.get_nodeattr(part)
        if part == "ChannelsPerStream":  # each of them
            size *= math.gcd(*parts)
        else:
            size *= math.prod(parts if isinstance(parts, list) else [parts])
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or size % value:
        divisors = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
        raise InputError(
            f"{name} sets {attribute}={value!r} of the layer {layer!r}, which must divide "
            f"{size} ({' x '.join(folded)}): one of {divisors}."
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest one is {near[0]!r}" if near else ""
