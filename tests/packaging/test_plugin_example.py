"""The worked example of a plug-in: built, installed, and used as any built-in is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from unpacked import run

SOURCE = Path(__file__).parents[2] / "examples" / "divqat_plugin_example"

pytestmark = pytest.mark.slow  # every process imports torch

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
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put it, from a copy: building leaves files beside the source."""
    folder = tmp_path_factory.mktemp("plugin")
    for file in SOURCE.rglob("*"):
        if file.suffix in (".py", ".toml", ".typed"):
            copy = folder / "source" / file.relative_to(SOURCE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    pip += ["--no-build-isolation", "--target", str(target), str(folder / "source")]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def test_python_finds_it_by_name(site: Path) -> None:
    run(site, "-c", SURFACE)


def test_the_command_line_lists_it(site: Path) -> None:
    rows = json.loads(run(site, *DIVQAT, "plugins", "--json"))
    assert {row["group"]: (row["name"], row["status"]) for row in rows} == {
        "divqat.attacks": ("mirrored", "ok"),
        "divqat.defences": ("uniform", "ok"),
        "divqat.engines": ("narrow", "ok"),
        "divqat.datasets": ("stripes", "ok"),
    }
    help_text = run(site, *DIVQAT, "--help")
    assert "From other packages" in help_text
    for name in ("mirrored", "uniform", "narrow", "stripes"):
        assert name in help_text


def test_settings_name_it(site: Path) -> None:
    settings = site.parent / "run.toml"
    settings.write_text(SETTINGS, encoding="utf-8")
    folder = site.parent / "run"
    run(site, "-c", STAGES, str(settings), str(folder))
    (row,) = [json.loads(f.read_text(encoding="utf-8")) for f in (folder / "attack").glob("*.json")]
    assert (row["attack"], row["engine"]) == ("mirrored", "narrow")
    assert (row["defence"], row["queries_used"]) == ("uniform:0.5", 150)


def test_errors_know_its_names(site: Path) -> None:
    said = run(site, "-c", NEARLY)
    for name in ("narrow", "mirrored", "uniform", "stripes"):
        assert f"did you mean '{name}'?" in said
