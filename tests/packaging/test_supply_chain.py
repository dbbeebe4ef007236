"""Lock, bill of materials and licence list say what is installed, and every download is pinned."""

import json
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from divqat_brevitas.data.packages import PACKAGES

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

import supply_chain  # noqa: E402 (a script beside the packages)

LOCK = supply_chain.LOCK.read_text(encoding="utf-8")
PINS = supply_chain.pins(LOCK)
PAGE = supply_chain.LICENCES.read_text(encoding="utf-8")
BILL = json.loads(supply_chain.SBOM.read_text(encoding="utf-8"))
ROWS = {
    canonicalize_name(name): (version, licence, parts.split(", "))
    for name, version, licence, parts in re.findall(
        r"^\| (\S+) \| (\d\S*) \| (.*) \| (.*) \|$", PAGE, flags=re.MULTILINE
    )
}


def test_every_entry_of_the_lock_has_hashes_and_no_address() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINS) > 100
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry
    assert not re.search(r"://|index-url|find-links|trusted-host|@ ", LOCK)


def test_the_lock_agrees_with_the_constraints() -> None:
    constraints = supply_chain.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    public = {name: version.partition("+")[0] for name, version in PINS.items()}
    assert public == {name: constraints[name] for name in public}
    assert set(constraints) <= set(public)


def test_the_lock_agrees_with_the_project() -> None:
    table = supply_chain.project()
    groups = [table["dependencies"], *table["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]
    assert len(requirements) > 30
    for requirement in requirements:
        if requirement.name != "divqat":
            assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_lock_bill_and_licences_name_what_is_installed() -> None:
    needed = supply_chain.needed_by()
    installed = {name: metadata.version(name) for name in needed}
    assert {name: PINS[name].partition("+")[0] for name in PINS} == {
        name: version.partition("+")[0] for name, version in installed.items()
    }
    assert BILL["bomFormat"] == "CycloneDX"
    listed = {canonicalize_name(one["name"]): one["version"] for one in BILL["components"]}
    assert listed == installed
    assert {name: row[0] for name, row in ROWS.items()} == installed
    assert {name: row[2] for name, row in ROWS.items()} == needed


def test_no_copyleft_package_is_in_the_core() -> None:
    core = {name: row[1] for name, row in ROWS.items() if row[2] == ["core"]}
    assert {"torch", "brevitas", "qonnx", "numpy"} <= set(core)
    assert not [name for name, said in core.items() if supply_chain.COPYLEFT.search(said)]
    # A licence of single files that stay under it: allowed, and named in the list.
    weak = [name for name, said in core.items() if supply_chain.PER_FILE.search(said)]
    assert weak == ["tqdm"]
    assert "not declared" not in PAGE
    for name, (_, said, parts) in ROWS.items():
        if supply_chain.COPYLEFT.search(said):
            assert f"{name} ({', '.join(parts)})" in PAGE
    files = metadata.files("docutils") or []  # what supply_chain.READ says of it
    assert files
    assert not [file for file in files if file.suffix == ".el"]


@pytest.mark.parametrize("text", ["GPL-3.0", "LGPL-3.0-only", "AGPL", "GNU General Public License"])
def test_copyleft_is_recognised(text: str) -> None:
    assert supply_chain.COPYLEFT.search(text)
    assert not supply_chain.COPYLEFT.search("BSD-3-Clause / MIT / MPL-2.0")


def test_every_download_has_its_sha256() -> None:
    archives = [one for package in PACKAGES.values() for one in (package, *package.more)]
    assert len(archives) >= 7
    for one in archives:
        assert re.fullmatch("[0-9a-f]{64}", one.sha256), one.package
        assert one.version in " ".join(one.command)
        assert f"| {one.client}: {one.package} {one.version} | {one.licence} |" in PAGE
    assert len({one.sha256 for one in archives}) == len(archives)
