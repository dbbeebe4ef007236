"""A run's attack stage: behind the answer unit, with shared clones, with costed defences."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Silent

from divqat_brevitas.data import load, query_pool
from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction import softmax
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.defences import at_cost
from divqat_brevitas.extraction.learners import base
from divqat_brevitas.files import read_json
from fpga_flow.cli import main
from fpga_flow.engines import load_engine
from fpga_flow.pipeline import run as pipeline
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import attack, order
from fpga_flow.pipeline.stages.context import Stage, StageContext
from fpga_flow.pipeline.stages.victims import split

SMALL = [
    "data.name=digits",
    "model.name=mlp",
    "train.variants=qat",
    "train.float_epochs=1",
    "train.quant_epochs=1",
    "attack.budgets=40",
    "attack.surrogates=mlp",
    "attack.epochs=1",
    "attack.oracles=soft",
    "attack.learners=soft",
]


def attack_rows(path: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train, export and attack; gives the rows of the attacks."""
    config = resolve(overrides=[*SMALL, *overrides])
    stages = [*order.STAGES[:2], order.STAGES[4]]
    pipeline.execute(RunDirectory(path), config, stages, progress=Silent())
    return [read_json(file) for file in (path / "attack").glob("*.json")]


@pytest.mark.slow  # runs whole stages
def test_a_victim_with_a_reject_class_gets_a_tripwire(tmp_path):
    decoy = ["train.variants=float,divqat", "divqat.preset=decoy", "divqat.guard=1"]
    pools = "attack.pools=in,noise,letters"
    attack_rows(tmp_path, *decoy, pools)
    (file,) = (tmp_path / "attack/detection").iterdir()
    rows = read_json(file)

    assert file.name == "divqat.json"
    assert [row["pool"] for row in rows[::4]] == ["noise", "letters"]
    model = load_engine(tmp_path / "export" / "divqat.onnx")
    images = to_float(query_pool("noise", "digits", 1000, 0).images)
    assert rows[0]["pool_rate"] == (model.predict(images).argmax(axis=1) == 0).mean()
    for row in rows:
        assert row["false_alarm_bound"] <= 1e-4
        assert row["users"] == 10_000


SETTINGS = [*SMALL, "run.seeds=0,3", "train.variants=float,qat"]
STAGES = [*order.STAGES[:2], replace(order.STAGES[4], uses=())]
GATED = "compile.answer=gated:0:4"


def execute(path, *overrides):
    config = resolve(overrides=[*SETTINGS, *overrides])
    pipeline.execute(RunDirectory(path), config, STAGES, progress=Silent())
    return {file.name: read_json(file) for file in (path / "attack").glob("*.json")}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.mark.slow  # runs whole stages
def test_attackers_get_what_leaves_the_chip(path, monkeypatch):
    plain = execute(path)
    assert len(plain) == 4
    assert not any("answer" in row or "gated" in name for name, row in plain.items())
    asked = []
    run_attack = attack.attack_spec.run_attack
    monkeypatch.setattr(
        attack.attack_spec,
        "run_attack",
        lambda how, model, *a, **k: asked.append((how, model)) or run_attack(how, model, *a, **k),
    )
    gated = execute(path, GATED)
    # The float victim has no chip: its cells were not even run again.
    assert {name: row for name, row in gated.items() if row["victim"] == "float"} == {
        name: row for name, row in plain.items() if row["victim"] == "float"
    }
    assert len(asked) == 2
    changed = {name: row for name, row in gated.items() if row["victim"] == "qat"}
    assert all(row["answer"] == "gated:0:4" and "gated" in name for name, row in changed.items())
    config = resolve(overrides=[*SETTINGS, GATED])
    train, test = (split(config, name)[0] for name in ("train", "test"))
    for (how, model), stem in zip(asked, ("qat", "qat-seed3"), strict=True):
        assert how.answer == "gated:0:4"
        file = path / f"export/{stem}.onnx"
        expected = load_engine(file, answer="gated:0:4", calibration=train[:1000]).predict(test)
        assert np.array_equal(model.predict(test), expected)
        assert len(np.unique(expected)) <= 17
    # Taken back: the first rows again, to the bit.
    assert execute(path) == plain


REJECT = (
    "train.variants=divqat",
    "divqat.preset=reject",
    "divqat.decoy_cost=0.3",
    "divqat.guard=1",
)


@pytest.mark.slow  # runs whole stages
def test_a_reject_output_is_no_class_and_a_key_is_part_of_the_result(tmp_path, monkeypatch):
    asked = []
    run_attack = attack.attack_spec.run_attack
    monkeypatch.setattr(
        attack.attack_spec,
        "run_attack",
        lambda how, model, *a, **k: asked.append(model) or run_attack(how, model, *a, **k),
    )
    (key := tmp_path / "key").write_bytes(b"one")
    path = tmp_path / "run"
    execute(path, *REJECT, "run.seeds=0")
    keyed = [*REJECT, "run.seeds=0", "compile.answer=reject:keyed", f"compile.answer_key={key}"]
    rows = execute(path, *keyed)
    key.write_bytes(b"two")
    execute(path, *keyed)
    test, labels = split(resolve(overrides=SETTINGS), "test")
    raw, first, second = (model.predict(test) for model in asked)
    assert [shown.shape[1] for shown in (raw, first, second)] == [11, 10, 10]
    rejected = raw.argmax(axis=1) == 10
    assert rejected.any()
    for shown in (first, second):
        assert np.array_equal(shown[~rejected].argmax(1), raw[~rejected].argmax(1))
        assert not (shown.argmax(1) == raw[:, :10].argmax(1))[rejected].any()
    assert not np.array_equal(first, second)
    victim = read_json(path / "train" / "victims.json")[0]
    assert victim["accuracy"] == (raw.argmax(axis=1) == labels).mean()
    assert {row["answer"] for row in rows.values()} == {"reject:keyed"}


def test_only_victims_that_get_a_chip_have_its_answer():
    two = ["train.variants=ptq,qat", "compile.variants=ptq"]
    config = resolve(overrides=[*SETTINGS, GATED, *two])
    found = {cell.victim.variant: cell.spec.answer for cell in attack.attacks(config)}
    assert found == {"ptq": "gated:0:4", "qat": "logits"}
    config = resolve(overrides=[*SETTINGS, GATED])
    found = {cell.victim.variant: cell.spec.answer for cell in attack.attacks(config)}
    assert found == {"float": "logits", "qat": "gated:0:4"}
    without = attack.attacks(resolve(overrides=SETTINGS))
    assert {cell.spec.answer for cell in without} == {"logits"}


def both_learners(path, *overrides):
    rows = attack_rows(path, "attack.epochs=2", *overrides)
    return {(row["oracle"], row["treatment"]): row for row in rows}


@pytest.mark.slow  # runs whole stages
def test_labels_and_the_argmax_of_soft_answers_train_one_clone(tmp_path, monkeypatch):
    train, trained = base.train_surrogate, []
    monkeypatch.setattr(
        base, "train_surrogate", lambda *a, **k: trained.append(a) or train(*a, **k)
    )
    both = both_learners(
        tmp_path / "both", "attack.oracles=soft,top1", "attack.learners=soft,argmax"
    )
    assert set(both) == {("soft", "soft"), ("soft", "argmax"), ("top1", "soft")}
    assert len(trained) == 2
    alone = both_learners(tmp_path / "alone", "attack.oracles=top1", "attack.learners=soft")
    assert len(trained) == 3
    assert alone["top1", "soft"] == both["top1", "soft"]
    measured = ("clone_accuracy", "agreement", "confusion")
    labels, argmax = both["top1", "soft"], both["soft", "argmax"]
    assert {name: labels[name] for name in measured} == {name: argmax[name] for name in measured}


def test_a_row_has_the_strength_found_on_validation_images(tmp_path):
    found = attack_rows(tmp_path, "attack.defences=reverse-sigmoid@0.2,dcp:0.7")
    rows = {row["defence"]: row for row in found}
    assert set(rows) == {"reverse-sigmoid@0.2", "dcp:0.7"}
    assert "defence_found" not in rows["dcp:0.7"]
    images = to_float(load("digits", "val")[0])
    answers = softmax(load_engine(tmp_path / "export" / "qat.onnx").predict(images))
    row = rows["reverse-sigmoid@0.2"]
    # A smaller split than 1,000 images is taken whole; its order does not count but for rounding.
    expected = at_cost("reverse-sigmoid@0.2", answers, images)
    assert row["defence_found"]["spec"] == expected.spec
    assert row["defence_l1"] == pytest.approx(expected.cost.l1, rel=1e-12)


def test_bad_costs_are_refused_before_training():
    for name, says in (("rounding@0.2", "no continuous strength"), ("dcp@3", "up to 2")):
        with pytest.raises(InputError, match=says):
            attack.check(resolve(overrides=[*SMALL, f"attack.defences={name}"]))


EIGHT_BITS = ("model.bits=w8a8", "train.variants=float,divqat", "divqat.guard=1")


@pytest.mark.slow  # runs whole stages
def test_eight_bits_pass_export_and_simulation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    sets = [part for setting in EIGHT_BITS for part in ("--set", setting)]
    train_and_export = ["run", "--preset", "smoke", *sets, "--out", out, "--until", "export"]
    for command in (train_and_export, ["simulate", out]):
        with pytest.raises(SystemExit) as done:
            main(command)
        assert done.value.code == 0, capsys.readouterr().err
    parity = read_json(tmp_path / "run/export/parity.json")["divqat"]
    rows = read_json(tmp_path / "run/simulate/equivalence.json")
    assert [(row["a"], row["b"]) for row in rows] == [("torch", "qonnx"), ("qonnx", "integer")]
    # How many images noise decides depends on this machine; that nothing else differs does not.
    assert parity["mismatches"] == parity["by_noise"]
    assert [row["mismatches"] for row in rows] == [row.get("by_noise", 0) for row in rows]
    for row in rows:
        assert bool(row.get("noise")) == (row.get("by_noise", 0) > 0)


@pytest.mark.slow  # starts processes that train clones
def test_attacks_in_several_processes_give_the_same_rows(tmp_path, monkeypatch):
    settings = ["run.threads=1", "attack.oracles=soft,top1", "attack.budgets=20,40"]
    here = attack_rows(tmp_path / "one", *settings)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    run_here, named = attack._run_here, []
    monkeypatch.setattr(
        attack,
        "_run_here",
        lambda context, planned, label: (
            named.extend(context.done(one.name, _key(context, one)) for one in planned),
            run_here(context, planned, label),
        ),
    )
    beside = attack_rows(tmp_path / "two", *settings)
    assert named == [True] * 4  # nothing was left to this process
    assert _timeless(beside) == _timeless(here)


def _key(context, one):
    return attack._Attacker(context, one.victim, Path()).key(one)


def _timeless(rows):
    kept = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
    return sorted(kept, key=lambda row: (row["budget"], row["oracle"]))


@pytest.mark.slow  # starts processes that train clones
@pytest.mark.parametrize("end", ["done", "failed", "killed"])
def test_attacks_run_beside_the_stages_they_do_not_need(tmp_path, monkeypatch, end):
    settings = ["run.threads=1", "attack.oracles=soft,top1", "attack.budgets=20,40"]
    alone = attack_rows(tmp_path / "alone", *settings)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    path, begun = tmp_path / "beside", {}

    def build(context):
        last = time.monotonic() + 300  # a process that imports torch on a busy machine
        while not list((path / "attack").glob("*.json")):
            assert time.monotonic() < last, "no attack ran beside the stage"
            time.sleep(0.05)
        if end == "failed":
            raise CheckFailedError("the chip is too small")
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

    train, export, _, _, attacked = order.STAGES[:5]
    stages = [train, export, Stage("compile", (), build, needs=("export",)), attacked]

    def execute():
        config, run = resolve(overrides=[*SMALL, *settings]), RunDirectory(path)
        outcomes = pipeline.execute(run, config, stages, progress=Silent())
        assert [outcome.status for outcome in outcomes] == ["done"] * 4

    if end == "failed":
        with pytest.raises(CheckFailedError):
            execute()
    elif end == "killed":
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                execute()
            os._exit(1)  # not killed
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    if end != "done":
        assert RunDirectory(path).record("attack") is None
        records = (path / ".tasks/attack").glob("*.json")
        done = [path / "attack" / file.name for file in records if read_json(file)["key"]]
        begun = {file: file.stat().st_mtime_ns for file in done}
        end = "done"
    execute()
    # What was done beside the stage that did not end is not done again.
    assert all(file.stat().st_mtime_ns == made for file, made in begun.items())
    assert _timeless(map(read_json, (path / "attack").glob("*.json"))) == _timeless(alone)
    execute()  # up to date: nothing starts
    # Attacks through what the compile stage builds wait for it.
    config = resolve(overrides=[*SMALL, *settings, "attack.engine=rtl"])
    waiting = StageContext("attack", RunDirectory(path), config, Silent(), frozenset({"export"}))
    assert attack.ahead(waiting) == []
