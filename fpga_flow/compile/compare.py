"""Compare every FINN step with the integers of the lowered network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import sha256_file
from fpga_flow.compile.finn_build import FinnBuild
from fpga_flow.compile.step_outputs import FinnOutputs, FinnSession
from fpga_flow.lowering import Network, lower

Integers = Mapping[str, npt.NDArray[np.int64]]
_IMAGES = 256


@dataclass(frozen=True)
class StepComparison:
    """One FINN step against the reference.

    Attributes:
        step: the step.
        inputs: images compared.
        mismatches: images with any differing integer.
        layers: integer tensors compared an image: activations, and the last accumulators.
        first_layer: the first layer that differs, by its name in the QONNX file; None: none.
    """

    step: str
    inputs: int
    mismatches: int
    layers: int
    first_layer: str | None


def compare_steps(
    build: FinnBuild,
    onnx_path: Path,
    images: npt.NDArray[np.float32],
    reference: Integers | None = None,
) -> list[StepComparison]:
    """Execute the model after every step and compare its integers with the reference's.

    A step whose model is the same file, byte for byte, as the one before is not executed again.
    Compared by equality: the last accumulators, and every activation's codes. Accumulators in
    between are not: FINN negates weights where a batch-norm factor is negative.

    Args:
        build: a finished build of ``onnx_path``.
        onnx_path: the QONNX file.
        images: float32 (N, *input_shape) in the input range.
        reference: integers (N, ...) by QONNX tensor name, as an engine gives them: the
            network's last tensor, and activation codes; None takes the lowered network's plain
            execution.

    Returns:
        one comparison a step, in the order of the build.

    Raises:
        InputError: the build is of another file, or the last tensor is missing in ``reference``.
        LoweringError: the network cannot become integers.
        BuildError: an execution failed.

    Example:
        >>> rows = compare_steps(build, Path("model.onnx"), images)  # doctest: +SKIP
        >>> sum(row.mismatches for row in rows)  # doctest: +SKIP
        0
    """
    if build.onnx_sha256 != sha256_file(onnx_path):
        raise InputError(
            f"the FINN build {build.folder} is of another file than {onnx_path}. "
            "Run `divqat compile` again."
        )
    network = lower(onnx_path)
    if reference is not None and network.output.tensor not in reference:
        raise InputError(
            f"the last accumulators are missing in the reference, tensor {network.output.tensor!r}."
        )
    differing = {step: np.zeros((0, 0), dtype=bool) for step in build.steps}
    names: dict[str, list[str]] = {}
    digests = {step: sha256_file(file) for step, file in build.steps.items()}
    with FinnSession(build) as session:
        for start in range(0, len(images), _IMAGES):
            part = slice(start, start + _IMAGES)
            if reference is None:
                expected: Integers = network.run(images[part])
            else:
                expected = {name: values[part] for name, values in reference.items()}
            executed, tensors = "", dict[str, npt.NDArray[np.bool_]]()
            for step in build.steps:
                if digests[step] != executed:
                    outputs = session.run(step, images[part])
                    executed, tensors = digests[step], _differences(network, outputs, expected)
                names[step] = list(tensors)
                rows = np.stack(list(tensors.values()))
                before = differing[step].reshape(len(rows), -1)
                differing[step] = np.concatenate([before, rows], axis=1)
    return [_summary(network, step, differing[step], names.get(step, [])) for step in build.steps]


def _differences(
    network: Network, outputs: FinnOutputs, expected: Integers
) -> dict[str, npt.NDArray[np.bool_]]:
    """Per tensor in network order: bool (N,), whether any integer of the image differs."""
    found = {
        name: _any_differs(codes, expected[name])
        for name, codes in outputs.codes.items()
        if name in expected
    }
    last = network.output.tensor
    found[last] = _any_differs(outputs.accumulators, expected[last])
    return found


def _any_differs(a: npt.NDArray[np.generic], b: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    different: npt.NDArray[np.bool_] = (a.reshape(len(b), -1) != b.reshape(len(b), -1)).any(axis=1)
    return different


def _summary(
    network: Network, step: str, differing: npt.NDArray[np.bool_], names: list[str]
) -> StepComparison:
    layers = [name for name, row in zip(names, differing, strict=True) if row.any()]
    return StepComparison(
        step=step,
        inputs=differing.shape[1],
        mismatches=int(differing.any(axis=0).sum()),
        layers=len(names),
        first_layer=network.layer(layers[0]).source if layers else None,
    )
