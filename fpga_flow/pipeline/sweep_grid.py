"""A sweep file: base settings, a grid, and single tasks; each is resolved to one run's settings.

preset = "smoke"          # or: config = "base.toml", beside this file
skip = ["compile"]        # stages that are left out, where no later one needs them

[base]                    # what all tasks have in common, over preset and config
attack.epochs = 5

[grid]                    # every combination: here 2 x 3 tasks
model.bits = ["w2a2", "w4a4"]
run.seeds = [0, 1, 2]     # for a setting that is a list, [[0, 1], [2]] gives it several

[[task]]                  # one task more
model.bits = "w8a8"
"""

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.files import read_toml, sha256_file, sha256_text
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.stages import order
from fpga_flow.pipeline.stages.context import Stage

_KEYS = ("preset", "config", "skip", "base", "grid", "task")
_MOST_TASKS = 100_000

Settings = dict[str, Any]


@dataclass(frozen=True)
class SweepTask:
    """One run of a sweep."""

    name: str  # readable, from the settings that make the task
    settings: Settings  # those settings by their dotted names, as the sweep file has them
    config: Config  # all settings, resolved
    skip: tuple[str, ...]  # stages that are left out
    # SHA-256 of what the results depend on: the settings (but for ``run.name``), the content of
    # files they name, and the stages left out
    key: str

    @property
    def folder(self) -> str:
        """Name of its run directory: equal for equal keys."""
        return self.config.run.name


def read_sweep(file: Path) -> list[SweepTask]:
    """The tasks of a sweep file, in the order written; the last grid setting changes fastest.

    Raises:
        InputError: no such file, no TOML, an unknown key, a setting that a run would refuse, or
            two equal tasks.

    Example:
        >>> for task in read_sweep(Path("sweep.toml")):
        ...     print(task.name)
        model.bits-w2a2
        model.bits-w4a4
    """
    document = read_toml(file, "sweep file")
    for key in document:
        if key not in _KEYS:
            raise InputError(f"{file}: {unknown_name('key', key, _KEYS)}")
    preset = _text(document, "preset", file)
    config = _text(document, "config", file)
    skip = _skipped(document.get("skip", []), file)
    base = _flat(document.get("base", {}), "[base]", file)
    choices = _tasks(document, file)
    tasks = []
    for chosen in choices:
        try:
            start = None if config is None else file.parent / config
            resolved = resolve(start, preset, base | chosen, file.parent)
        except InputError as e:
            where = ", ".join(f"{key} = {value!r}" for key, value in chosen.items())
            raise InputError(f"{file}, task ({where}): {e}") from e
        tasks.append(_task(chosen, resolved, skip))
    seen: dict[str, SweepTask] = {}
    for task in tasks:
        if task.key in seen:
            raise InputError(
                f"{file}: the tasks {seen[task.key].name} and {task.name} have equal settings. "
                "Take one of them out."
            )
        seen[task.key] = task
    return tasks


def check_tasks(tasks: Sequence[SweepTask]) -> None:
    """Look up every name in the tasks' settings before anything runs; an error names the task."""
    checked: set[tuple[str, str]] = set()
    for task in tasks:
        for stage in stages_of(task.skip):
            known = json.dumps([task.config.fingerprint(part) for part in stage.sections])
            if (stage.name, known) in checked:
                continue
            try:
                stage.check(task.config)
            except InputError as e:
                raise InputError(f"task {task.name}: {e}") from e
            checked.add((stage.name, known))


def stages_of(skip: Sequence[str]) -> list[Stage]:
    """The pipeline's stages without those left out."""
    return [stage for stage in order.STAGES if stage.name not in skip]


def _text(document: Mapping[str, Any], key: str, file: Path) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{file}: {key} must be a text, not {value!r}.")
    return value


def _skipped(names: Any, file: Path) -> tuple[str, ...]:
    """Stages to leave out, where every stage that stays has what it needs."""
    known = [stage.name for stage in order.STAGES]
    if not isinstance(names, list):
        raise InputError(f'{file}: skip must be a list of stages, such as ["compile"].')
    for name in names:
        if name not in known:
            raise InputError(f"{file}: skip: {unknown_name('stage', str(name), known)}")
    for stage in stages_of(names):
        for needed in stage.needs:
            if needed in names:
                raise InputError(
                    f"{file}: skip: {stage.name} needs {needed}. Leave both out, or neither."
                )
    return tuple(name for name in known if name in names)


def _flat(table: Any, where: str, file: Path) -> Settings:
    """``{"model": {"bits": x}}`` as ``{"model.bits": x}``."""
    if not isinstance(table, dict):
        raise InputError(f"{file}: {where} must be a table of settings.")
    flat: Settings = {}
    for section, keys in table.items():
        if section not in Config.model_fields:
            part = section.partition(".")[0]
            if part in Config.model_fields:
                raise InputError(f"{file}: {where}: write {section} without quotes.")
            unknown = unknown_name("section", section, Config.model_fields)
            raise InputError(f"{file}: {where}: {unknown}")
        if not isinstance(keys, dict):
            raise InputError(f"{file}: {where}: {section} is a section; write {section}.KEY.")
        flat |= {f"{section}.{key}": value for key, value in keys.items()}
    return flat


def _tasks(document: Mapping[str, Any], file: Path) -> list[Settings]:
    """The settings of each task beyond the base."""
    grid = _flat(document.get("grid", {}), "[grid]", file)
    for key, values in grid.items():
        if not (isinstance(values, list) and values):
            raise InputError(f"{file}: [grid]: {key} must be a list of values, not {values!r}.")
    single = document.get("task", [])
    if not isinstance(single, list):
        raise InputError(f"{file}: write [[task]], with two brackets, for every single task.")
    if not grid and not single:
        raise InputError(f"{file} has no task: write a [grid], or a [[task]] for every run.")
    count = math.prod(map(len, grid.values()))
    if count > _MOST_TASKS:
        raise InputError(f"{file}: the grid has {count:,} tasks; more than {_MOST_TASKS:,}.")
    product = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [*(product if grid else []), *(_flat(table, "[[task]]", file) for table in single)]


def _task(chosen: Settings, config: Config, skip: tuple[str, ...]) -> SweepTask:
    values = config.model_dump(mode="json")
    del values["run"]["name"]
    files = {
        file.name: sha256_file(file)
        for stage in stages_of(skip)
        for file in stage.files(config)
        if file.is_file()
    }
    key = sha256_text(json.dumps([values, files, skip], sort_keys=True))
    name = "_".join(f"{setting}-{_word(value)}" for setting, value in chosen.items())
    folder = f"{name[:80] or 'base'}-{key[:12]}"
    run = config.run.model_copy(update={"name": folder})
    return SweepTask(name or "base", chosen, config.model_copy(update={"run": run}), skip, key)


def _word(value: Any) -> str:
    """A value as a part of a file's name."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") or "none"
