"""What the command line does, as functions: the commands call these and print what they return."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.console import Progress, columns
from fpga_flow.pipeline.resolve import Overrides, resolve
from fpga_flow.pipeline.run import Outcome, execute
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import order
from fpga_flow.pipeline.sweep_grid import check_tasks, read_sweep
from fpga_flow.pipeline.sweep_run import finished, folder_of, rows, run_sweep, write_table
from fpga_flow.pipeline.tasks import Log, Summary

if TYPE_CHECKING:  # heavy: a wrong setting is refused without them
    from fpga_flow.compile.legality import Finding
    from fpga_flow.engines import Engine
    from fpga_flow.engines.bisect import Bisection
    from fpga_flow.engines.selftest import SelfTest
    from fpga_flow.integer.gate import Difference
    from fpga_flow.lowering import LayerRow, Network
    from fpga_flow.report import Results
    from fpga_flow.report.schema import AttackRow, HardwareRow


@dataclass(frozen=True)
class StagesRun(ShortRepr):
    """What became of a run's stages.

    Attributes:
        directory: the run directory.
        stages: one outcome a stage that was looked at, in order.
    """

    directory: Path
    stages: tuple[Outcome, ...]

    @property
    def missing(self) -> Outcome | None:
        """The first stage that needs a tool which is not installed, or None."""
        return next((one for one in self.stages if one.status == "missing-tool"), None)

    def results(self) -> "Results":
        """Everything measured so far, read from the run directory.

        Raises:
            InputError: the stage ``train`` has not run yet.
        """
        from fpga_flow.report import collect

        return collect(self.directory)


def run_stages(
    settings: Path | str | None = None,
    *,
    preset: str | None = None,
    overrides: Overrides = (),
    out: Path | str | None = None,
    until: str | None = None,
    only: str | None = None,
    progress: Progress | None = None,
) -> StagesRun:
    """Bring a run directory up to date, and return what became of its stages.

    ``run`` with the results is made of it; arguments and errors are those of ``run``.

    Example:
        >>> done = run_stages(preset="smoke", out="runs/smoke", until="train",
        ...                   overrides={"train.variants": ["float"], "train.float_epochs": 1})
        >>> [(stage.stage, stage.status) for stage in done.stages]
        [('train', 'done')]
    """
    names = [stage.name for stage in order.STAGES]
    for name in (until, only):
        if name is not None and name not in names:
            raise unknown_name("stage", name, names)
    if until is not None and only is not None:
        raise InputError("until= and only= exclude each other: name one stage in one of them.")
    directory = None if out is None else Path(out)
    if only is not None:
        if directory is None or settings is not None or preset is not None:
            raise InputError("only= runs a stage of a run that is there: name its directory, out=.")
        settings = RunDirectory.existing(directory).config_file
    elif settings is None and preset is None:
        if directory is not None and RunDirectory(directory).config_file.is_file():
            settings = RunDirectory(directory).config_file
        else:
            preset = "demo"
    config = resolve(None if settings is None else Path(settings), preset, overrides)
    directory = directory or Path("runs") / config.run.name
    stages = execute(
        RunDirectory(directory),
        config,
        order.STAGES,
        progress=progress or Progress(),
        only=only,
        until=until,
    )
    return StagesRun(directory, tuple(stages))


def run(
    settings: Path | str | None = None,
    *,
    preset: str | None = None,
    overrides: Overrides = (),
    out: Path | str | None = None,
    until: str | None = None,
    only: str | None = None,
    progress: Progress | None = None,
) -> "Results":
    """Train, export, compile, simulate, attack and report: `divqat run` as a function.

    What did not change since the last time is not run again. A stage whose tool is not installed
    is left out: ``results.run.stages`` has the status of each stage before the report, and why.

    Args:
        settings: a TOML file. With neither it nor a preset: the settings that the run directory
            has, or those of the preset "demo".
        preset: name of settings that come with divqat, such as "smoke" or "demo".
        overrides: changed settings, ``{"model.bits": "w8a8"}`` or ``["model.bits=w8a8"]``.
        out: the run directory; "runs/" and the run's name where it is None.
        until: stop after this stage: "train", "export", "compile", "simulate", "attack", "report".
        only: run only this stage, of the run in ``out``; the stages before it must be done.
        progress: where the lines about progress go; stderr where it is None.

    Returns:
        the content of ``report/results.json`` as objects: lists of rows such as ``victims``,
        ``attacks``, ``summary``, ``equivalence`` and ``hardware``, whose attributes have the names
        of the file's fields. Accuracies are fractions of 1. What has not run is empty.

    Raises:
        InputError: an unknown setting, stage or preset, no such file, or ``only`` a stage whose
            predecessors are not up to date.
        CheckFailedError: engines disagree, or another check of a stage failed.

    Example:
        >>> results = run(preset="smoke", out="runs/mine", until="train",
        ...               overrides={"train.variants": ["float"], "train.float_epochs": 1})
        >>> [(victim.variant, victim.accuracy > 0.5) for victim in results.victims]
        [('float', True)]
    """
    return run_stages(
        settings,
        preset=preset,
        overrides=overrides,
        out=out,
        until=until,
        only=only,
        progress=progress,
    ).results()


def attack(
    directory: Path | str, *, overrides: Overrides = (), progress: Progress | None = None
) -> "list[AttackRow]":
    """Extract the victims of a run through their engine: `divqat attack` as a function.

    To attack a model that is no run's, see ``divqat_brevitas.extraction.Victim`` and its attacks.

    Args:
        directory: a run directory whose victims are trained and exported.
        overrides: changed settings, such as ``{"attack.budgets": [1000], "attack.oracles":
            ["soft"]}``. They are saved in the run directory.
        progress: where the lines about progress go; stderr where it is None.

    Returns:
        one row a clone: victim, oracle, defence, attack, budget, and ``clone_accuracy`` and
        ``agreement`` as fractions of 1. Clones that are there already are not trained again.

    Raises:
        InputError: no run directory, a stage before that is not up to date, unknown settings.

    Example:
        >>> [row.clone_accuracy for row in attack("runs/demo")]  # doctest: +SKIP
        [0.913, 0.874]
    """
    return run(out=directory, only="attack", overrides=overrides, progress=progress).attacks


@dataclass(frozen=True)
class HardwareBuild(ShortRepr):
    """Hardware made of a QONNX file.

    Attributes:
        model: the file.
        folder: everything that was built.
        rows: what each tool says of size and speed, from the estimate to the furthest stage.
    """

    model: Path
    folder: Path
    rows: "tuple[HardwareRow, ...]"

    @property
    def bitstream(self) -> Path | None:
        """The bitstream's file; None where the build stopped before, or a board's tool made it."""
        folder = self.folder / "bitstream"
        if not (folder / "report.json").is_file():
            return None
        from fpga_flow.synthesis import BitstreamReport

        return BitstreamReport.load(folder).bitstream

    def engine(self, name: str = "rtl") -> "Engine":
        """The built hardware, or another description of the same network, as an engine.

        Args:
            name: "rtl" (the design in Verilator), "netlist" (after synthesis, in Verilator),
                "finn" (FINN's graph), "integer" or "qonnx" (the file itself).

        Raises:
            InputError: an unknown name, or the build stopped before that.
            ToolMissingError: the engine's packages are not installed.
        """
        from fpga_flow.engines import load_engine

        design = self.folder / "design"
        match name:
            case "rtl" | "netlist" if not (design / "design.json").is_file():
                raise InputError(
                    f"{self.folder} holds no hardware design: the build stopped at its estimate. "
                    "Build again, until the stage rtl or bitstream."
                )
            case "rtl":
                return load_engine(design, "rtl")
            case "netlist":
                from fpga_flow.engines.netlist import NetlistEngine
                from fpga_flow.rtl import Design

                return NetlistEngine(Design.load(design), self.folder / "bitstream")
            case "finn":
                return load_engine(self.folder, "finn")
            case "integer" | "qonnx":
                return load_engine(self.model, name)
        raise unknown_name("engine", name, ("rtl", "netlist", "finn", "integer", "qonnx"))


def build(
    model: Path | str,
    target: str | None = None,
    *,
    out: Path | str,
    until: str | None = None,
    overrides: Overrides = (),
    progress: Progress | None = None,
) -> HardwareBuild:
    """Make hardware of a QONNX file: `divqat compile model.onnx` as a function.

    Args:
        model: a QONNX file.
        target: device or board, such as "ecp5-85f"; None: what the settings have, and only RTL.
        out: folder for everything that is built.
        until: "estimate", "rtl" or "bitstream"; None: a bitstream where a target is named.
        overrides: changed settings of [compile], such as ``{"compile.target_fps": 100}``.
        progress: where the lines about progress go; stderr where it is None.

    Raises:
        InputError: no file, an unknown target or setting, a layer without hardware.
        CheckFailedError: the design does not fit the device or misses its clock.
        ToolMissingError: finn-plus, yosys, nextpnr or Vivado is needed and not installed.

    Example:
        >>> design = build("model.onnx", target="ecp5-85f", out="chip", until="estimate")
        >>> [(row.stage, row.device) for row in design.rows][-1]  # our cost model
        ('estimate', 'LFE5U-85F-6CABGA381')
        >>> design = build("model.onnx", target="ecp5-85f", out="chip")  # doctest: +SKIP
        >>> design.bitstream.name, design.engine("rtl").predict(images).shape  # doctest: +SKIP
        ('chip.bit', (64, 10))
    """
    from fpga_flow.pipeline.stages import hardware
    from fpga_flow.report.schema import HardwareRow, parse

    model, out = Path(model), Path(out)
    if not model.is_file():
        raise InputError(f"there is no file {model}. Export one with fpga_flow.export_qonnx.")
    more = {"compile.target": target, "compile.until": until or (target and "bitstream")}
    more = {name: value for name, value in more.items() if value is not None}
    if isinstance(overrides, Mapping):
        overrides = {**overrides, **more}
    else:
        given = [overrides] if isinstance(overrides, str) else overrides
        overrides = [*given, *(f"{name}={value}" for name, value in more.items())]
    settings = resolve(overrides=overrides)
    rows = hardware.build_all(model, out, settings.compile, progress or Progress())
    return HardwareBuild(model, out, tuple(parse(HardwareRow, row, str(out)) for row in rows))


@dataclass(frozen=True)
class CheckResult(ShortRepr):
    """What ``check`` found; ``str`` gives the lines that `divqat check` prints.

    Attributes:
        model: the file.
        layers: one row a layer: shapes, bit widths, parameters, multiply-accumulates.
        findings: layers for which FINN has no hardware.
        rtl_findings: layers for which FINN has hardware that only AMD's tools build.
        wrong_kernels: kernels of the integer engine that are wrong on this machine.
        bisection: the comparison of all descriptions of the network, where it was asked for.
    """

    model: Path
    layers: "tuple[LayerRow, ...]"
    findings: "tuple[Finding, ...]"
    rtl_findings: "tuple[Finding, ...]"
    wrong_kernels: "tuple[Difference, ...]"
    bisection: "Bisection | None"

    @property
    def passed(self) -> bool:
        """Whether FINN has hardware for every layer, and nothing differs."""
        differs = self.bisection is not None and self.bisection.fault is not None
        return not (self.findings or self.wrong_kernels or differs)

    def __str__(self) -> str:
        """Lines of text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        rows = [asdict(row) for row in self.layers]
        yield columns([list(rows[0]), *(list(row.values()) for row in rows)])
        if not self.findings:
            yield "FINN: every node has hardware"
            if not self.rtl_findings:
                yield "RTL: every node has a module, for open devices too"
        for finding in (*self.findings, *self.rtl_findings):
            yield f"{finding.level}: {finding}"
        for difference in self.wrong_kernels:
            yield f"Integer engine, not equal to int64 arithmetic here: {difference}"
        if self.bisection is not None:
            yield str(self.bisection)

    def document(self) -> dict[str, Any]:
        """What `divqat check --json` prints."""
        document: dict[str, Any] = {"model": str(self.model)}
        for name in ("layers", "findings", "rtl_findings", "wrong_kernels"):
            document[name] = [asdict(row) for row in getattr(self, name)]
        if self.bisection is not None:
            document["bisection"] = asdict(self.bisection)
        return document


def check(
    model: Path | str,
    *,
    bisect: bool = False,
    built: Path | str | None = None,
    inputs: int = 16,
) -> CheckResult:
    """Show a QONNX file's layers, and what has no hardware: `divqat check` as a function.

    Args:
        model: a QONNX file.
        bisect: also execute every description of the network on random images, layer by layer,
            and name the first that differs from the integer engine.
        built: the file's folder of the compile stage, or what ``build`` made of it: then FINN's
            graphs and the RTL are compared too.
        inputs: images for that, at least 1.

    Raises:
        InputError: no file, no QONNX, or a build of another file.
        LoweringError: a layer that cannot become integers, named, with the remedy.
        ToolMissingError: ``built`` needs finn-plus or Verilator, which is not installed.

    Example:
        >>> result = check("model.onnx", bisect=True, inputs=4)
        >>> result.passed, result.layers[0].output_shape, result.bisection.levels[0].mismatches
        (True, (1, 8, 8), 0)
    """
    from fpga_flow.compile import legality
    from fpga_flow.integer.engine import IntegerEngine
    from fpga_flow.rtl.refusals import rtl_findings

    model = Path(model)
    engine = IntegerEngine(model)
    return CheckResult(
        model=model,
        layers=tuple(engine.network.describe()),
        findings=tuple(legality(model)),
        rtl_findings=tuple(rtl_findings(model)),
        wrong_kernels=engine.differences,
        bisection=_bisection(model, built, engine.network, inputs) if bisect else None,
    )


def _bisection(
    model: Path, built: Path | str | None, network: "Network", inputs: int
) -> "Bisection":
    """Every description of ``model``, as far down as ``built`` goes."""
    import numpy as np

    from fpga_flow.compile import FinnBuild
    from fpga_flow.engines.bisect import bisect
    from fpga_flow.rtl import Design

    finn_build = design = None
    if built is not None:
        finn_build = FinnBuild.load(Path(built))
        if (Path(built) / "design" / "design.json").is_file():
            design = Design.load(Path(built) / "design")
    unit = np.random.default_rng(0).random((inputs, *network.input_shape), np.float32)
    images = network.input_range.spread(unit)
    return bisect(model, images, build=finn_build, design=design)


def board_selftest(
    built: Path | str,
    port: str,
    *,
    board: str | None = None,
    images: int | None = None,
    power: Path | str | None = None,
    out: Path | str | None = None,
    progress: Progress | None = None,
) -> "SelfTest":
    """Run a design's reference vectors on its chip: `divqat board selftest` as a function.

    Every response is compared with the integer engine's, by equality. The record is written
    whether they are equal or not. Not run on a board so far: only on simulated chips.

    Args:
        built: what ``build`` made with a target of the open flow, or ``compile/<variant>`` of a
            run.
        port: the board's serial port, such as "/dev/ttyUSB0" (for the interface ft245 a pyftdi
            URL, such as "ftdi:///1"), or "simulation": the chip in Verilator, no board.
        board: what the record calls the board: model, revision; needed with a board.
        images: sent for the rate, at least 1; None: 1,000, simulated every vector once.
        power: a filled-in template of ``fpga_flow.host.power.write_template``.
        out: the record's file; None: ``selftest.json`` (``selftest-simulated.json``) in ``built``.
        progress: where the lines about progress go; stderr where it is None.

    Returns:
        counts, mismatches, latency and rate: ``passed``, ``measured``, ``document()``.

    Raises:
        InputError: no chip or no vectors in ``built``, a port that cannot be opened, a board that
            holds another design, or a reading of another bitstream.
        CheckFailedError: no chip responds, or it stops.
        ToolMissingError: pyserial, pyftdi or Verilator is not installed.

    Example:
        >>> test = board_selftest("chip", "/dev/ttyUSB0", board="ULX3S 85F")  # doctest: +SKIP
        >>> test.passed, test.measured.wrong_integers  # doctest: +SKIP
        (True, 0)
    """
    from divqat_brevitas.files import sha256_file, write_json
    from fpga_flow.engines.selftest import SIMULATION, BuiltChip, SelfTest, measure
    from fpga_flow.host.power import read_power

    folder, is_simulated = Path(built), port == SIMULATION
    if is_simulated and (board is not None or power is not None):
        raise InputError("a simulation has no board and no power: leave out the name and reading.")
    if not is_simulated and not (board and board.strip() and board.isprintable()):
        raise InputError('name the board for the record: --board "MODEL REVISION".')
    if images is not None and images < 1:
        raise InputError(f"images = {images}: at least 1 is needed for a rate.")
    chip = BuiltChip.load(folder)
    reading = None if power is None else read_power(Path(power))
    if reading is not None and (
        chip.bitstream is None or sha256_file(chip.bitstream.bitstream) != reading.bitstream_sha256
    ):
        raise InputError(f"{power} was read with another bitstream than that of {folder}.")
    count = images or (len(chip.vectors.images) if is_simulated else 1000)
    shown = progress or Progress()
    with chip.connected(port) as (driver, now), shown.bar("images", count) as show:
        measured = measure(driver, chip.design, chip.vectors, count, now, show)
    name = "selftest-simulated.json" if is_simulated else "selftest.json"
    test = SelfTest(board, chip, measured, reading, folder / name if out is None else Path(out))
    write_json(test.file, test.document())
    return test


@dataclass(frozen=True)
class Sweep(ShortRepr):
    """What became of a sweep.

    Attributes:
        out: its folder; each task is a run directory in it.
        rows: one a task: its name, state, settings and key figures, as in ``summary.json``.
        summary: names of the tasks that ran, failed or are left, with the reasons.
    """

    out: Path
    rows: list[dict[str, Any]]
    summary: Summary


def sweep(
    grid: Path | str,
    *,
    out: Path | str,
    workers: int | None = None,
    cluster: str | None = None,
    listing: bool = False,
    log: Log = print,
) -> Sweep:
    """Run the pipeline once for every task of a grid: `divqat sweep` as a function.

    A finished task is not run again. ``summary.csv`` and ``summary.json`` in the folder hold the
    key figures.

    Args:
        grid: a TOML file with the tables [base], [grid] and [[task]], as
            `divqat sweep --help` shows them.
        out: folder of the runs; with ``cluster``, one that all workers share.
        workers: processes here; None: as many as the cores allow.
        cluster: address of a Dask scheduler, whose workers run the tasks.
        listing: only list the tasks and their states.
        log: takes a line a task.

    Raises:
        InputError: no such file, an unknown setting, ``workers`` together with ``cluster``, or
            another sweep works in the folder.
        ToolMissingError: ``cluster`` without the package ``distributed``.

    Example:
        >>> listed = sweep("sweep.toml", out="runs/sweep", listing=True)
        >>> [row["state"] for row in listed.rows]
        ['left', 'left']
    """
    if workers is not None and cluster is not None:
        raise InputError("--workers is for this machine; a cluster's workers are its own.")
    tasks, out = read_sweep(Path(grid)), Path(out)
    if listing:
        return Sweep(out, rows(tasks, out, {}), Summary())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of is for developers
        check_tasks([task for task in tasks if not finished(folder_of(out, task), task.key)])
    summary = run_sweep(tasks, out, workers=workers, cluster=cluster, log=log)
    table = rows(tasks, out, summary.states)
    write_table(table, out)
    return Sweep(out, table, summary)
