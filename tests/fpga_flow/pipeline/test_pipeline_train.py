"""The bodies of train and attack, on a data set and networks that take seconds."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from fakes import Silent
from safetensors.numpy import load_file

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, sha256_file
from fpga_flow.pipeline import run as pipeline
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import attack, order
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import predictor, split, victims

SETTINGS = [
    "data.name=digits",
    "model.name=mlp",
    "run.seeds=0,3",
    "train.float_epochs=2",
    "train.quant_epochs=2",
    "divqat.guard=1",
]
TRAIN, ATTACK = order.STAGES[0], replace(order.STAGES[4], needs=("train",), uses=())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run directory with trained victims of two seeds."""
    path = tmp_path_factory.mktemp("run")
    execute(path, [TRAIN])
    return path


def execute(path, stages, *overrides):
    progress = Silent()
    config = resolve(overrides=[*SETTINGS, *overrides])
    pipeline.execute(RunDirectory(path), config, stages, progress=progress)
    return progress.lines


def context(path, *overrides):
    return StageContext(
        "attack", RunDirectory(path), resolve(overrides=[*SETTINGS, *overrides]), Silent()
    )


def contents(path):
    """What is in train/: texts, and tensors (a safetensors header has no fixed order)."""
    found = {}
    for file in (path / "train").iterdir():
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            found |= {f"{file.name}:{name}": t.tobytes() for name, t in tensors.items()}
        else:
            found[file.name] = file.read_text()
    return found


@pytest.mark.slow  # runs whole stages
def test_every_victim_has_a_row_of_its_own(whole):
    rows = read_json(whole / "train" / "victims.json")
    assert [(row["variant"], row["seed"]) for row in rows] == [
        (variant, seed) for seed in (0, 3) for variant in ("float", "ptq", "qat", "divqat")
    ]
    floats = [row for row in rows if row["variant"] == "float"]
    assert all(row["l1_to_reference"] == row["flips_from_reference"] == 0 for row in floats)
    others = [row for row in rows if row["variant"] != "float"]
    assert all(row["l1_to_reference"] > 0 and row["bits"] == "w4a4" for row in others)
    assert {row["preset"] for row in rows if row["variant"] == "divqat"} == {"nasty"}
    assert all(row["accuracy"] > 0.5 for row in rows)  # 10 classes: chance is 0.1


def test_the_accuracy_in_the_row_is_the_loaded_victims(whole):
    here = context(whole)
    images, labels = split(here.config, "test")
    rows = read_json(whole / "train" / "victims.json")
    for victim, row in zip(victims(here.config), rows, strict=True):
        logits = predictor(here, victim, "torch").predict(images)
        assert (logits.argmax(axis=1) == labels).mean() == row["accuracy"]


@pytest.mark.slow  # runs whole stages
@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("divqat.weight=0.1", {"divqat", "divqat-seed3"}),
        ("run.seeds=0", set()),
        ("train.variants=float,qat", set()),
        ("train.quant_epochs=1", {"qat", "divqat", "qat-seed3", "divqat-seed3"}),
    ],
)
def test_only_networks_that_a_change_concerns_are_trained(whole, override, again, tmp_path):
    subprocess.run(["cp", "-a", f"{whole}/.", str(tmp_path)], check=True)
    lines = execute(tmp_path, [TRAIN], override)
    assert {line.split()[1].rstrip(":") for line in lines if "validation" in line} == again


def test_files_of_seeds_no_longer_asked_for_are_gone(whole, tmp_path):
    subprocess.run(["cp", "-a", f"{whole}/.", str(tmp_path)], check=True)
    execute(tmp_path, [TRAIN], "run.seeds=0", "train.variants=float")
    assert sorted(file.name for file in (tmp_path / "train").iterdir()) == [
        "dataset.json",
        "metrics.jsonl",
        "reference.json",
        "reference.safetensors",
        "victims.json",
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
from fakes import Silent
from test_pipeline_train import TRAIN, execute
rename, seen = Path.replace, 0
def replace(self, target):
    global seen
    rename(self, target)
    seen += str(target).endswith(".scratch")
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
execute(Path(sys.argv[1]), [TRAIN])
"""


# Checkpoints are written after each epoch: 1 and 2 are the float network's, 3 is QAT's first.
@pytest.mark.slow  # runs whole stages
@pytest.mark.parametrize("checkpoint", [1, 3])
def test_killed_in_the_middle_of_a_training_the_result_is_the_same(whole, tmp_path, checkpoint):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(checkpoint)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [scratch] = tmp_path.glob(".tasks/train/*.scratch")
    execute(tmp_path, [TRAIN])
    assert contents(tmp_path) == contents(whole)
    assert not scratch.exists()


@pytest.mark.slow  # runs whole stages
def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path):
    subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "1"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    settings = ["train.float_epochs=1", "train.variants=float", "run.seeds=0"]
    execute(tmp_path, [TRAIN], *settings)
    execute(tmp_path / "fresh", [TRAIN], *settings)
    assert contents(tmp_path) == contents(tmp_path / "fresh")
    assert not list(tmp_path.glob(".tasks/train/*.scratch"))


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("attack.oracles=sft", "did you mean 'soft'"),
        ("attack.pools=leters", "did you mean 'letters'"),
        ("attack.learners=argmx", "did you mean 'argmax'"),
        ("attack.surrogates=vgg", "did you mean 'vgg-"),
        ("attack.budgets=100000", "the pool 'in' has 200 images, 100000 were asked for"),
    ],
)
def test_attacks_check_names_and_pools_first(override, part):
    with pytest.raises(InputError, match=part):
        attack.check(resolve(overrides=[*SETTINGS, override]))


def test_without_a_budget_as_many_queries_as_the_smallest_pool_has_images(whole, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[run]\nname = "x"\n')
    config = resolve(file)
    attack.check(config)
    assert attack.budgets(config) == (200,)
    for override, expected in (
        ("attack.pools=letters", (1000,)),
        ('attack.pools=["letters", "mix:in:0.5,noise"]', (398,)),  # (200 - 1) / 0.5
        ("attack.attacks=dfme", (1000,)),
        ("attack.budgets=70", (70,)),
    ):
        assert attack.budgets(resolve(file, overrides=[override])) == expected
    subprocess.run(["cp", "-a", f"{whole}/.", str(tmp_path / "run")], check=True)
    few = ["run.seeds=0", "attack.victims=float", "attack.oracles=top1", "attack.epochs=1"]
    said = execute(tmp_path / "run", [TRAIN, ATTACK], *few)
    assert any(
        "attack.budgets is not set: each attack may ask 200 queries" in line for line in said
    )
    (row,) = map(read_json, (tmp_path / "run/attack").glob("*.json"))
    assert (row["budget"], row["queries_used"]) == (200, 200)


FLOAT_ATTACK = [
    "attack.victims=float",
    "attack.budgets=40,80",
    "attack.pools=in,noise",
    "attack.surrogates=mlp",
    "attack.epochs=1",
    "run.seeds=0",
]


def test_attacks_are_every_combination_once():
    config = resolve(overrides=[*SETTINGS, *FLOAT_ATTACK, "attack.seeds=0,1"])
    cells = list(attack.attacks(config))
    # budgets x pools x seeds, for soft answers with two learners and top-1 with one
    assert len(cells) == 2 * 2 * 2 * 3
    assert len({cell.name for cell in cells}) == len(cells)


def test_pool_names_that_are_no_file_names(tmp_path):
    pools = ["photos:/a/b", "photos:/a_b", f"photos:{'x' * 300}", "dataset:cifar10"]
    config = resolve(overrides=[*SETTINGS, *FLOAT_ATTACK, f"attack.pools={','.join(pools)}"])
    names = {cell.name for cell in attack.attacks(config)}
    assert len(names) == len(list(attack.attacks(config)))
    for name in names:
        (tmp_path / f"{name}.json").write_text("")


def test_attack_rows_and_resume(whole, tmp_path):
    subprocess.run(["cp", "-a", f"{whole}/.", str(tmp_path)], check=True)
    execute(tmp_path, [TRAIN, ATTACK], *FLOAT_ATTACK)
    files = sorted((tmp_path / "attack").glob("*.json"))
    rows = [read_json(file) for file in files]
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        assert (row["victim"], row["victim_seed"], row["engine"]) == ("float", 0, "torch")
        assert row["queries_used"] == row["budget"]
        assert row["pool_kind"] == {"in": "in", "noise": "free"}[row["pool"]]
        assert 0 <= row["agreement"] <= 1
    # One row is lost, one is asked for no longer: the others are not computed again.
    times = {file: file.stat().st_mtime_ns for file in files}
    before = {file.name: sha256_file(file) for file in files}
    files[0].unlink()
    execute(tmp_path, [TRAIN, ATTACK], *FLOAT_ATTACK)
    after = {file.name: sha256_file(file) for file in (tmp_path / "attack").glob("*.json")}
    assert after == before
    assert all(file.stat().st_mtime_ns == times[file] for file in files[1:])
    execute(tmp_path, [TRAIN, ATTACK], *FLOAT_ATTACK, "attack.budgets=40")
    assert {row["budget"] for row in map(read_json, (tmp_path / "attack").glob("*.json"))} == {40}


@pytest.mark.slow  # runs whole stages
def test_a_decoy_is_balanced_at_its_cost(tmp_path):
    """The accuracy left is the one allowed, and what is exported has the moved bias."""
    decoy = ("run.seeds=0", "train.variants=divqat", "divqat.preset=decoy", "divqat.ood_weight=1")
    ends = {}
    for cost in (None, 0.2, 0.6):
        path = tmp_path / str(cost)
        balanced = () if cost is None else (f"divqat.decoy_cost={cost}",)
        lines = execute(path, [TRAIN], *decoy, *balanced)
        qat, divqat = (read_json(path / "train" / f"{name}.json") for name in ("qat", "divqat"))
        last = divqat["history"][-1]
        assert ("reject_shift" in last) == any("decoy balanced by" in line for line in lines)
        assert ("reject_shift" in last) == (cost is not None)
        weights = load_file(path / "train" / "divqat.safetensors")
        bias = next(
            value for name, value in weights.items() if name.endswith("bias") and len(value) == 10
        )
        ends[cost] = bias, last.get("reject_shift", 0.0)
        if cost is not None:
            assert last["val_accuracy"] >= qat["history"][-1]["val_accuracy"] - cost
    for cost in (0.2, 0.6):
        moved = ends[cost][0] - ends[None][0]
        # Float32: bias and shift are both rounded, to 1e-6 at these sizes.
        assert moved.tolist() == pytest.approx([ends[cost][1], *[0.0] * 9], abs=1e-5)
    assert ends[0.6][1] > ends[0.2][1]


def test_pools_that_the_loss_is_trained_on_are_refused_before_anything_runs():
    photos = ("divqat.preset=decoy-photos", "attack.pools=photos+")
    with pytest.raises(InputError, match="trained on outliers of 'backgrounds'"):
        attack.check(resolve(overrides=[*SETTINGS, *photos]))
