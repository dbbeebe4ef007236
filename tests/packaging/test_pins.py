"""Every package and every download is pinned, and the core needs no copyleft package."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from divqat_brevitas.data.packages import PACKAGES

ROOT = Path(__file__).parents[2]
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
