"""`divqat run`, `divqat attack` and each other stage on a run directory, as functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.api.overrides import Overrides, texts
from fpga_flow.console import Progress
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.run import Outcome, execute
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import order

if TYPE_CHECKING:
    from fpga_flow.report import Results
    from fpga_flow.report.schema import AttackRow


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
    config = resolve(None if settings is None else Path(settings), preset, texts(overrides))
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
