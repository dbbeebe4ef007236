"""Steps for FINN users: compare FINN's model with the integer network after any step.

Two importable steps ``(model, cfg) -> model`` for a FINN YAML; the model is returned as it came::

    inject_steps_before:
      step_qonnx_to_finn: [fpga_flow.compile.checks.step_record_reference]
    inject_steps_after:
      step_streamline: [fpga_flow.compile.checks.step_check_exact]
      step_minimize_bit_width: [fpga_flow.compile.checks.step_check_exact]

They need no Vivado: FINN's hardware layers are executed by their Python definitions. What they
keep: ``divqat_reference.onnx`` in FINN's output folder (the QONNX file, cleaned), and in the
model's metadata ``divqat.reference``, its SHA-256. The other metadata that our steps write:
``divqat.input_step`` (what the host makes of an image) and ``divqat.output_affine`` (``logits =
accumulators * scale + bias``), both JSON.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.files import replacing, sha256_file
from fpga_flow.compile.obstacles import entry
from fpga_flow.compile.steps import INPUT_STEP, OUTPUT_AFFINE, user_error
from fpga_flow.compile.worker_build import PARENT, activation_names
from fpga_flow.compile.worker_execution import activation_codes, execute
from fpga_flow.lowering import LoweringError, Network, clean, lower
from fpga_flow.lowering.input_step import InputStep

REFERENCE = "divqat.reference"
REFERENCE_FILE = "divqat_reference.onnx"
IMAGES = 16
_HARDWARE = "finn.custom_op.fpgadataflow"
Array = npt.NDArray[Any]


def step_record_reference(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Keep the QONNX network that later steps are checked against; to be run first.

    Raises:
        FINNUserError: the network cannot become integers; the node and a remedy are named.
    """
    cleaned = clean(model)
    try:
        lower(cleaned)
    except LoweringError as e:
        raise user_error(f"step_check_exact has nothing to compare with: {e}") from e
    path = Path(cfg.output_dir) / REFERENCE_FILE
    with replacing(path) as temporary:
        cleaned.save(str(temporary))
    model.set_metadata_prop(REFERENCE, sha256_file(path))
    return model


def step_check_exact(model: ModelWrapper, cfg: Any) -> ModelWrapper:
    """Fail the build where FINN's model no longer computes the network's integers.

    Runs the model over 16 images and compares the codes of every activation and the last
    accumulators by equality. May be run any number of times, behind any step from
    step_qonnx_to_finn on. Behind step_create_dataflow_partition it needs FINN's
    ``save_intermediate_models`` (FINN's default), for the nodes that stay on the host.

    Raises:
        FINNUserError: a layer differs (the first one is named, as in the QONNX file), or no
            reference was recorded.
    """
    reference = Path(cfg.output_dir) / REFERENCE_FILE
    recorded = model.get_metadata_prop(REFERENCE)
    if recorded is None or not reference.exists() or sha256_file(reference) != recorded:
        raise user_error(
            f"step_check_exact found no reference of this network ({reference}): run "
            "fpga_flow.compile.checks.step_record_reference as the first step"
        )
    from finn.util.verification import despecialize_model

    cleaned = clean(reference)
    network = lower(cleaned)
    images = check_inputs(network)
    executable = despecialize_model(model)
    parent = _parent(model, cfg, recorded)
    entry = executable if parent is None else parent
    taken = _taken(entry, network, images)
    context = execute(entry, taken, executable if parent is not None else None)
    output = context[entry.graph.output[0].name]
    compared = activation_codes(executable, context)
    if model.get_metadata_prop(INPUT_STEP) is None:
        compared = _by_order(compared, network)
    expected = network.run(images)
    for name, values in compared.items():
        if name in expected:
            _compare(network, name, values, expected[name])
    _compare_output(model, network, output.reshape(len(images), -1), expected)
    print(f"step_check_exact: {len(images)} images, {len(compared)} activations: equal")
    return model


def _by_order(codes: dict[str, Array], network: Network) -> dict[str, Array]:
    """Codes of FINN's own conversion, whose first thresholds quantize the image.

    A network with branches has no order in which they could be told apart.
    """
    names = activation_names(network)
    values = list(codes.values())[1:]
    if len(values) != len(names) or any(len(layer.inputs) > 1 for layer in network.layers):
        return {}
    return dict(zip(names, values, strict=True))


def check_inputs(network: Network) -> npt.NDArray[np.float32]:
    """The images a check runs: black, white, noise and smooth ones; the same every time.

    Returns:
        float32 (16, *network.input_shape): whole pixels / 255, stretched over the input range.
    """
    shape = network.input_shape
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (IMAGES, *shape)).astype(np.float64)
    if len(shape) == 3:  # half of them smooth, as photographs are: noise averages out
        _, height, width = shape
        coarse = generator.integers(0, 256, (IMAGES // 2, shape[0], 4, 4))
        rows, columns = (np.arange(size) * 4 // size for size in (height, width))
        pixels[: IMAGES // 2] = coarse[:, :, rows[:, None], columns]
    pixels[0], pixels[1] = 0, 255
    return network.input_range.spread((pixels / 255).astype(np.float32))


def _parent(model: ModelWrapper, cfg: Any, recorded: str) -> ModelWrapper | None:
    """The host's side of an accelerator's model; None: the model is a whole network."""
    if any(not node.domain.startswith(_HARDWARE) for node in model.graph.node):
        return None
    path = Path(cfg.get_intermediate_models_directory(create=False)) / f"{PARENT}.onnx"
    if not path.exists():
        return None
    parent = ModelWrapper(str(path))
    return parent if parent.get_metadata_prop(REFERENCE) == recorded else None


def _taken(model: ModelWrapper, network: Network, images: Array) -> Array:
    """What the graph takes for ``images``: integer codes or the floats."""
    if model.get_metadata_prop(INPUT_STEP) is not None:
        step = InputStep.of(network, entry(network).shape)
        images = step.codes(images).astype(np.float32)
    shape = tuple(model.get_tensor_shape(model.graph.input[0].name))
    if shape[1:] != images.shape[1:]:
        raise user_error(
            f"step_check_exact: the graph takes {shape[1:]}, the network {images.shape[1:]}; set "
            "save_intermediate_models: true, so that the host's nodes are known"
        )
    return images


def _compare(network: Network, name: str, values: Array, expected: Array) -> None:
    flat, wanted = values.reshape(len(values), -1), expected.reshape(len(expected), -1)
    if flat.shape != wanted.shape:
        raise _differs(network, name, f"has shape {flat.shape[1:]}, not {wanted.shape[1:]}")
    wrong = flat != wanted
    if wrong.any():
        image, place = np.argwhere(wrong)[0]
        raise _differs(
            network,
            name,
            f"{int(wrong.sum())} of {wrong.size} integers differ; the first one, of image {image}, "
            f"is {flat[image, place]:g} instead of {wanted[image, place]}",
        )


def _compare_output(
    model: ModelWrapper, network: Network, output: Array, expected: dict[str, Any]
) -> None:
    wanted = expected[network.output.tensor].reshape(len(output), -1)
    if output.shape[1] == 1 < network.classes:  # a label: TopK or LabelSelect
        logits = wanted * network.output.scale + network.output.bias
        chosen = np.take_along_axis(logits, output.astype(np.int64), axis=1)
        _compare(network, network.output.tensor, chosen, logits.max(axis=1, keepdims=True))
        return
    affine = json.loads(model.get_metadata_prop(OUTPUT_AFFINE) or '{"scale": 1, "bias": 0}')
    logits = output * np.array(affine["scale"]) + np.array(affine["bias"])
    exact = (logits - network.output.bias) / network.output.scale
    # Float32 leaves about 1e-7 of a logit; a quarter of a step off is another number.
    close = np.where(np.abs(exact - np.rint(exact)) < 0.25, np.rint(exact), exact)
    _compare(network, network.output.tensor, close, wanted)


def _differs(network: Network, name: str, how: str) -> Exception:
    layer = network.layer(name)
    return user_error(
        f"step_check_exact: FINN's model is not the network any more, from layer "
        f"{layer.source!r} (tensor {name!r}) on: {how}. The step before this check, or a step "
        "injected into it, changed the network"
    )
