"""From a Brevitas model to one QONNX file that has been shown to compute the same.

Reads a model and example images; writes ``model.onnx``. The steps: export by Brevitas (either
torch exporter), settle the thresholds, export the settled model, clean, compare (see
``parity``), and only then give the file its name.
"""

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from brevitas.export import export_qonnx as brevitas_export_qonnx
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

import divqat_brevitas.quant  # noqa: F401  (registers the export handlers of our quantizers)
from divqat_brevitas.copies import deep_copy
from divqat_brevitas.errors import DivQATError, InputError, unknown_name
from divqat_brevitas.files import replacing
from divqat_brevitas.input_range import UNIT, InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.export.boundary import (
    check_fit,
    example_inputs,
    explicit_batch_norms,
    logits_alone,
    refuse_batch_dependence,
)
from fpga_flow.export.observe import logits_of
from fpga_flow.export.parity import ParityError, ParityResult, compare, probes
from fpga_flow.export.settled import apply_to_model, rescale
from fpga_flow.lowering import (
    Network,
    Settled,
    clean,
    declare_input_range,
    lower,
    settle,
    undecided,
)
from fpga_flow.untrusted import UnsafeModelError, short

Exporter = Literal["torchscript", "dynamo"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportReport(ShortRepr):
    """What was exported, and what the gate saw.

    Attributes:
        path: the QONNX file.
        exporter: "torchscript" or "dynamo".
        parity: the comparison of torch, QONNX execution and the integer engine. Its mismatches are
            0, or float noise accounts for each (``parity.noise`` has the counts).
        settled: one record an activation quantizer (see ``lowering.settle``); empty where the
            model cannot be lowered to integers.
        rescaled: names of activation quantizers whose thresholds lay on integers with no bias to
            move them by: their scale is 0.16 % larger now (see ``export.rescaled``).
        flips: how many of the parity images the model as passed in labels differently from
            the settled one (thresholds move by up to half an accumulator step).
        model: the settled copy, in evaluation mode: what the file computes.
        network: the file in integers; None where it cannot be lowered.
        not_lowered: why it cannot, or None.
    """

    path: Path
    exporter: str
    parity: ParityResult
    settled: tuple[Settled, ...]
    rescaled: tuple[str, ...]
    flips: int
    model: nn.Module
    network: Network | None
    not_lowered: str | None


def export_qonnx(
    model: nn.Module,
    path: Path | str,
    example_images: FloatArray | torch.Tensor,
    *,
    exporter: Exporter = "torchscript",
    settle_thresholds: bool = True,
    input_range: tuple[float, float] | InputRange = UNIT,
) -> ExportReport:
    """Export a Brevitas model, prove the file computes the same, and write it.

    Float engines are noisy in the last bits; where a threshold lies within that noise of an
    integer accumulator no two engines need agree. Settling moves batch-norm biases by a
    fraction of an accumulator step so that none does. It works on a copy: the model passed in is
    not changed, and the copy that the file equals is ``report.model``.

    Args:
        model: Brevitas model for images, or other inputs; any mode, put back afterwards. Of an
            output that holds more than the logits (a dict with the key "logits") only these are
            exported.
        path: of the file to write; written only if the gate passes.
        example_images: float32 inputs in ``input_range``, for the parity gate: images (N, C, H,
            W), signals (N, C, L) or features (N, F). Inputs on rounding ties are added.
        exporter: which torch exporter.
        settle_thresholds: False exports weights and scales exactly as they are.
        input_range: smallest and largest value that an input has, such as (0, 255) for a model
            that divides pixels by 255 itself. It is stored in the file, and every engine takes
            inputs in it.

    Raises:
        ParityError: torch, QONNX execution and the integer engine do not compute the same, and
            float32 rounding does not account for it; the first layer that differs is named.
        InputError: bad images, a first quantizer that cannot hold what they make, a model that
            Brevitas cannot export or that cannot be copied, an output that holds no logits (see
            ``divqat_brevitas.inference.as_logits``), or a model whose answer to one image depends
            on the others in the batch.

    Example:
        >>> report = export_qonnx(model, "model.onnx", images)
        >>> report.parity.mismatches, report.parity.inputs >= len(images)
        (0, True)
    """
    declared = InputRange.of(input_range)
    images = example_inputs(example_images, declared)
    if exporter not in ("torchscript", "dynamo"):
        raise unknown_name("exporter", exporter, ("torchscript", "dynamo"))
    twin = deep_copy(model).cpu().eval()
    _check_divisors(twin)
    check_fit(twin, images, declared)
    explicit_batch_norms(twin, torch.from_numpy(images[:1].copy()))
    twin = logits_alone(twin, torch.from_numpy(images[:1].copy()))

    def exported(network: nn.Module) -> ModelWrapper:
        return _exported(network, images, exporter, declared)

    cleaned = exported(twin)
    records: list[Settled] = []
    rescaled: list[str] = []
    network, not_lowered = None, None
    try:
        network = lower(cleaned)
        if settle_thresholds:
            before = ModelWrapper(cleaned.model, make_deepcopy=True)
            records = settle(cleaned)
            rescaled = rescale(twin, network, list(undecided(cleaned)), images)
            if rescaled:
                cleaned = exported(twin)
                network = lower(cleaned)
                before = ModelWrapper(cleaned.model, make_deepcopy=True)
                records = settle(cleaned)
            if any(record.values is not None for record in records):
                apply_to_model(records, before, twin, exported)
                # Exported afresh, so that the file is what the settled torch model gives.
                cleaned = exported(twin)
                network = lower(cleaned)
    except InputError as e:  # exported all the same: other tools may take it
        not_lowered = str(e)
    inputs = probes(images, network, declared)
    with replacing(Path(path)) as temporary:
        cleaned.save(str(temporary))
        try:
            result = compare(twin, temporary, inputs, network)
        except UnsafeModelError as e:
            raise _unreadable(model, exporter, e) from e
        if result.faults:
            refuse_batch_dependence(twin, inputs)
            raise ParityError(result, Path(path), exporter)
    labels = (logits_of(one, inputs).argmax(axis=1) for one in (model, twin))
    return ExportReport(
        path=Path(path),
        exporter=exporter,
        parity=result,
        settled=tuple(records),
        rescaled=tuple(rescaled),
        flips=int(np.not_equal(*labels).sum()),
        model=twin,
        network=network,
        not_lowered=not_lowered,
    )


def _check_divisors(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.AvgPool2d) and module.divisor_override is not None:
            raise InputError(
                f"layer {name!r}: no exporter writes divisor_override={module.divisor_override} of "
                "an AvgPool2d; the file would divide by the pixels of a window. Leave it out, and "
                "multiply the pool's result by a constant instead."
            )


def _exported(
    model: nn.Module, images: FloatArray, exporter: Exporter, declared: InputRange
) -> ModelWrapper:
    """A cleaned QONNX model in memory, whatever files the exporter writes."""
    # The dynamo exporter specialises on batch 1; so do both here, and engines change the batch.
    example = torch.from_numpy(images[:1].copy())
    with tempfile.TemporaryDirectory(prefix="divqat-export-") as folder:
        file = Path(folder) / "model.onnx"
        try:
            with _quiet(), torch.no_grad():
                twin, dynamo = copy.deepcopy(model), exporter == "dynamo"
                brevitas_export_qonnx(twin, args=example, export_path=str(file), dynamo=dynamo)
        except DivQATError:  # our own handlers' refusals
            raise
        except Exception as e:  # exporters raise bare exceptions of many kinds
            raise InputError(
                f"{type(model).__name__} cannot be exported to QONNX by the {exporter} exporter "
                f"({type(e).__name__}: {e}). Check that its forward takes one image batch of shape "
                f"{tuple(images.shape[1:])}, or try the other exporter."
            ) from e
        exported = ModelWrapper(onnx.load(file))
        declare_input_range(exported, declared)
        try:
            return clean(exported)
        except InputError as e:
            if e.__cause__ is None:  # it says what is wrong with the model
                raise
            raise _unreadable(model, exporter, e) from e


def _unreadable(model: nn.Module, exporter: Exporter, error: InputError) -> InputError:
    """The error of an exporter's file that holds more than plain operators, such as branches."""
    other = "dynamo" if exporter == "torchscript" else "torchscript"
    return InputError(
        f"{type(model).__name__} has a part that the {exporter} exporter writes in a form which no "
        f"engine here reads ({short(error)}). Nothing was written. Try exporter={other!r}, or "
        "replace that part."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn about what the parity gate checks, and print their progress to stdout."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
