"""The six stages in order, and the rule by which one runs or is skipped.

    train -> export -> compile -> simulate -> attack -> report

A stage runs when an input (settings, earlier stages' outputs, version) or one of
its own files changed since its record in the manifest, or when it did not finish.
Where cores are free, tasks that do not depend on the stages before theirs run beside these.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from importlib import metadata

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.files import sha256_file, sha256_text
from fpga_flow.console import Progress
from fpga_flow.errors import explain
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.rundir import RunDirectory, StageRecord, Status, versions
from fpga_flow.pipeline.stages.context import Stage, StageContext
from fpga_flow.pipeline.task_process import processes, processes_beside
from fpga_flow.pipeline.tasks import Outcome as TaskOutcome
from fpga_flow.pipeline.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: its status, whether it ran now, why not, and its seconds."""

    stage: str
    status: Status
    ran: bool
    reason: str
    seconds: float


def execute(
    run: RunDirectory,
    config: Config,
    stages: Sequence[Stage],
    *,
    progress: Progress,
    only: str | None = None,
    until: str | None = None,
) -> list[Outcome]:
    """Bring a run directory up to date with ``config``.

    Args:
        run: the directory; created where it does not exist, locked meanwhile.
        config: saved in it first.
        stages: in order; each depends only on earlier ones.
        progress: where the lines go.
        only: run only this stage; the stages before it must be up to date.
        until: stop after this stage.

    Returns:
        One outcome a stage that was looked at.

    Raises:
        DivQATError: a stage failed, another process owns the directory, or (``only``)
            a stage before is not up to date.
    """
    for stage in stages:
        if only in (None, stage.name):
            stage.check(config)
    with run.lock():
        run.save_config(config)
        _use_threads(config)
        by_name = {stage.name: stage for stage in stages}
        if only is not None:
            _require_upstream(run, config, by_name, by_name[only])
            return [_advance(run, config, by_name[only], progress)]
        names = [stage.name for stage in stages]
        last = names.index(until) if until in names else len(names)
        return _advance_all(run, config, stages[: last + 1], progress)


def _advance_all(
    run: RunDirectory, config: Config, stages: Sequence[Stage], progress: Progress
) -> list[Outcome]:
    """Run stages in order; tasks of a later one begin beside those that it does not need."""
    outcomes: list[Outcome] = []
    begun: dict[str, tuple[float | None, list[Future[TaskOutcome]]]] = {}
    count = processes_beside(config.run.threads)
    with processes(count, config.run.threads or 1) as submit:

        def begin(task: Task) -> Future[TaskOutcome]:
            def ended(future: Future[TaskOutcome]) -> None:
                if not future.cancelled():
                    progress.log(f"{task.name}: {future.result()}")

            future = submit(task)
            future.add_done_callback(ended)
            return future

        for number, stage in enumerate(stages):
            done = {outcome.stage for outcome in outcomes if outcome.status == "done"}
            for later in stages[number + 1 :] if count > 1 else ():
                if later.name in begun or not done.issuperset(later.needs):
                    continue
                needed = frozenset(later.needs)
                context = StageContext(later.name, run, config, progress, needed)
                tasks = later.ahead(context) if staleness(run, config, later) else []
                since = time.monotonic() if tasks else None
                begun[later.name] = since, [begin(task) for task in tasks]
            since, futures = begun.get(stage.name, (None, []))
            wait(futures)  # what fails there is not done, and fails again in the stage itself
            outcomes.append(_advance(run, config, stage, progress, since))
    return outcomes


def _use_threads(config: Config) -> None:
    if config.run.threads is not None:
        import torch

        torch.set_num_threads(config.run.threads)


def _advance(
    run: RunDirectory,
    config: Config,
    stage: Stage,
    progress: Progress,
    started: float | None = None,
) -> Outcome:
    """Run one stage unless it is up to date, and record what came of it.

    ``started`` is the ``time.monotonic()`` at which its first task began; None: now.
    """
    records = run.records()
    stale = staleness(run, config, stage)
    if not stale:
        progress.log(f"{stage.name}: up to date")
        return Outcome(stage.name, "done", False, "", records[stage.name].seconds)
    inputs = _inputs(run, config, stage)
    upstream = (*stage.needs, *stage.uses)
    done = {n for n in upstream if n in records and records[n].status == "done"}
    # A stage that lacked a tool keeps what it made before that.
    partly = {n for n in upstream if n in records and records[n].status == "missing-tool"}
    before = records[stage.name].outputs if stage.name in records else {}
    started = time.monotonic() if started is None else started

    def record(status: Status, reason: str = "", outputs: dict[str, str] | None = None) -> Outcome:
        seconds = round(time.monotonic() - started, 2)
        kept = before if outputs is None else outputs
        run.write_record(stage.name, StageRecord(status, inputs, kept, versions(), seconds, reason))
        return Outcome(stage.name, status, True, reason, seconds)

    for name in stage.needs:
        if name not in done:
            reason = f"needs {name}, which is not done: {records[name].reason}"
            progress.log(f"{stage.name}: not run: {reason}")
            return record("missing-tool", reason)
    progress.log(f"{stage.name}: running ({stale})")
    record("running")
    context = StageContext(stage.name, run, config, progress, frozenset(done | partly))
    try:
        stage.function(context)
        outcome = record("done", outputs=context.finish(before))
    except ToolMissingError as e:
        progress.log(f"{stage.name}: not run: {e}")
        # What other settings made must not pass for a result of these.
        return record("missing-tool", str(e), context.finish(before))
    except KeyboardInterrupt:
        record("failed", "interrupted")
        raise
    except Exception as e:
        record("failed", explain(e)[0])
        raise
    progress.log(f"{stage.name}: done in {outcome.seconds:.0f} s")
    return outcome


def staleness(run: RunDirectory, config: Config, stage: Stage) -> str:
    """Why a stage has to run; empty when it is up to date."""
    record = run.record(stage.name)
    if record is None:
        return "first time"
    if record.status == "running":
        return "it was killed before it finished"
    if record.status != "done":
        return f"last time: {record.reason}"
    inputs = _inputs(run, config, stage)
    changed = sorted(
        name
        for name in inputs.keys() | record.inputs.keys()
        if inputs.get(name) != record.inputs.get(name)
    )
    if changed:
        return f"changed: {', '.join(changed)}"
    return run.damage(record.outputs)


def _inputs(run: RunDirectory, config: Config, stage: Stage) -> dict[str, str]:
    """Name and hash of everything the stage's outputs depend on."""
    records = run.records()
    inputs = {"divqat": metadata.version("divqat")}
    inputs |= {f"[{section}]": config.fingerprint(section) for section in stage.sections}
    for file in stage.files(config):
        if not file.is_file():
            raise InputError(f"{stage.name}: there is no file {file}. Correct the settings.")
        inputs[file.name] = sha256_file(file)
    for name in (*stage.needs, *stage.uses):
        record = records.get(name)
        made = sha256_text(json.dumps(dict(record.outputs) if record else {}, sort_keys=True))
        if record is not None and record.status == "done":
            inputs[name] = made
        elif record is not None and record.status == "missing-tool":
            inputs[name] = f"{made}, not done: {record.reason}"
        else:
            inputs[name] = f"not done: {record.reason if record else 'not run'}"
    return inputs


def _require_upstream(
    run: RunDirectory, config: Config, stages: dict[str, Stage], stage: Stage
) -> None:
    """Refuse to run a stage on outputs that are missing or stale, however far upstream."""
    for name in (*stage.needs, *stage.uses):
        record = run.record(name)
        optional = name in stage.uses and (record is None or record.status == "missing-tool")
        if not optional and (reason := staleness(run, config, stages[name])):
            raise InputError(
                f"{stage.name} needs {name}, which is not up to date ({reason}). "
                f"Run `divqat {name} {run.path}`, or all with `divqat run --out {run.path}`."
            )
        if not optional:
            _require_upstream(run, config, stages, stages[name])
