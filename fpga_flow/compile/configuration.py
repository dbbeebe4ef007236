"""FINN's build configuration as plain data: what its YAML holds, and what our worker gives it.

One function writes both, so that ``divqat compile --target pynq-z1`` and a FINN user's own
``finn build finn.yaml model.onnx`` run the same steps in the same order.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from divqat_brevitas.errors import InputError, unknown_name
from fpga_flow.targets import TARGETS, VivadoTarget

_STEPS = "fpga_flow.compile.steps."
_CHECKS = "fpga_flow.compile.checks."

# FINN's default build of finn-plus 1.6.1; its step_generate_hardware is written as the three
# steps it consists of, so that what the first of them made is kept where the second fails.
FINN_STEPS = (
    "step_qonnx_to_finn",
    "step_tidy_up",
    "step_streamline",
    "step_convert_to_hw",
    "step_minimize_bit_width_initial",
    "step_create_dataflow_partition",
    "step_specialize_layers",
    "step_target_fps_parallelization",
    "step_apply_folding_config",
    "step_minimize_bit_width",
    "step_transpose_decomposition",
    "step_generate_estimate_reports",
    "step_hw_codegen",
    "step_hw_ipgen",
    "step_set_fifo_depths",
    "step_create_stitched_ip",
    "step_measure_rtlsim_performance",
    "step_out_of_context_synthesis",
    "step_prepare_synthesis",
    "step_synthesize_bitfile",
    "step_make_driver",
    "step_deployment_package",
)
ESTIMATE_STEPS = FINN_STEPS[: FINN_STEPS.index("step_generate_estimate_reports") + 1]
# From here on vendor tools may be called.
TOOL_STEPS = FINN_STEPS[FINN_STEPS.index("step_hw_ipgen") :]
# The steps whose result is compared with the integer network.
CHECKED_STEPS = (
    "step_streamline",
    "step_create_dataflow_partition",
    "step_minimize_bit_width",
    "step_set_fifo_depths",
)
OUTPUTS = (
    "estimate_reports",
    "stitched_ip",
    "bitfile",
    "pynq_driver",
    "deployment_package",
)
Fifos = Literal["simulated", "minimal"]


@dataclass(frozen=True, kw_only=True)
class VivadoSettings:
    """A build by stock FINN, for a board that AMD's tools build for.

    Attributes:
        target: such as ``pynq-z1``; FINN's own spelling (``Pynq-Z1``) is taken too.
        clock_ns: clock period in nanoseconds, > 0.
        target_fps: images per second the folding aims at; may be None with ``folding_json``.
        folding_json: a FINN folding JSON, used instead of ``target_fps``.
        fifos: ``simulated``: FINN sizes them with Vivado's simulator; ``minimal``: two entries
            each, which can cost throughput. Without that simulator they are minimal.
        checks: compare FINN's model with the integer network after four of its steps.
        timeout_s: seconds after which the worker process is stopped.

    Raises:
        InputError: a value is out of range, or an unknown target.

    Example:
        >>> VivadoSettings(target="pynq-z1", clock_ns=5.0).board.part
        'xc7z020clg400-1'
    """

    target: str = "pynq-z1"
    clock_ns: float = 10.0
    target_fps: int | None = 1000
    folding_json: Path | None = None
    fifos: Fifos = "simulated"
    checks: bool = True
    timeout_s: float = 12 * 3600.0

    def __post_init__(self) -> None:
        for name in ("clock_ns", "timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, not {value!r}.")
        if self.target_fps is None and self.folding_json is None:
            raise InputError("FINN needs target_fps or a folding_json to fold the layers by.")
        if self.target_fps is not None and self.target_fps < 1:
            raise InputError(f"target_fps must be at least 1, not {self.target_fps!r}.")
        if self.fifos not in ("simulated", "minimal"):
            raise unknown_name("FIFO sizing", self.fifos, ("simulated", "minimal"))
        vivado_target(self.target)

    @property
    def board(self) -> VivadoTarget:
        """The board."""
        return vivado_target(self.target)


def vivado_target(name: str) -> VivadoTarget:
    """The board of that name: ours (``kv260``) or FINN's (``KV260_SOM``); case does not matter.

    Raises:
        InputError: unknown, or a device of the open flow, with the nearest board.
    """
    boards = [one for one in TARGETS.values() if isinstance(one, VivadoTarget)]
    for board in boards:
        if name.lower() in (board.name, board.board.lower()):
            return board
    raise unknown_name("board of the Vivado flow", name, [board.name for board in boards])


def configuration(
    settings: VivadoSettings,
    *,
    output_dir: str,
    folding: str | None,
    specialize: str | None = None,
    steps: tuple[str, ...] = FINN_STEPS,
    outputs: tuple[str, ...] = OUTPUTS,
) -> dict[str, Any]:
    """The fields of FINN's ``DataflowBuildConfig`` for a build, as JSON values.

    Args:
        settings: board, clock and folding.
        output_dir: where FINN writes.
        folding: path of a folding JSON, None: folded for ``target_fps``.
        specialize: path of a JSON with the implementation style of each layer, or None.
        steps: FINN's steps, in order.
        outputs: FINN's output products.

    Example:
        >>> configuration(VivadoSettings(), output_dir="out", folding=None)["board"]
        'Pynq-Z1'
    """
    board = settings.board
    chosen: dict[str, Any] = {
        "output_dir": output_dir,
        "board": board.board,
        "shell_flow_type": board.shell,
        "synth_clk_period_ns": settings.clock_ns,
        # FINN refuses a configuration without either.
        "target_fps": None if folding else settings.target_fps,
        "folding_config_file": folding,
        "specialize_layers_config_file": specialize,
        "standalone_thresholds": True,
        "auto_fifo_depths": True,
        "auto_fifo_strategy": {"simulated": "distributed_sim", "minimal": "force_minimal_fifos"}[
            settings.fifos
        ],
        "save_intermediate_models": True,
        "generate_outputs": list(outputs),
        "steps": list(steps),
        "inject_steps_before": _before(settings.checks),
        "inject_steps_after": _after(settings.checks, steps),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _before(checks: bool) -> dict[str, list[str]]:
    record = [_CHECKS + "step_record_reference"] if checks else []
    return {
        "step_qonnx_to_finn": [*record, _STEPS + "step_integer_network"],
        "step_specialize_layers": [_STEPS + "step_prefer_rtl"],
    }


def _after(checks: bool, steps: tuple[str, ...]) -> dict[str, list[str]]:
    injected = {"step_minimize_bit_width": [_STEPS + "step_two_bit_weights"]}
    if "step_make_driver" in steps:
        injected["step_make_driver"] = [_STEPS + "step_host_values"]
    if checks:
        for step in CHECKED_STEPS:
            if step in steps:
                injected.setdefault(step, []).append(_CHECKS + "step_check_exact")
    return injected
