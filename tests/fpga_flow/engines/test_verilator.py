"""Executables by content: found again, repaired, built once, refused readably."""

import importlib.util
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_design import tiny_design

from divqat_brevitas.errors import InputError, ToolMissingError
from fpga_flow.engines import verilator
from fpga_flow.engines.simulation import compiled
from fpga_flow.engines.verilator import VerilationError, cache_root, verilate
from fpga_flow.rtl import Design


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that only these tests use, since they damage it; with Verilator's runtime if any."""
    own = tmp_path_factory.mktemp("cache")
    (own / "verilator").mkdir()
    for file in cache_root().glob("runtime-*.o"):
        shutil.copyfile(file, own / "verilator" / file.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIVQAT_CACHE", str(own))
        yield


@pytest.fixture
def design(tmp_path: Path) -> Design:
    return tiny_design(tmp_path / "design")


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.mark.slow  # simulates generated hardware
def test_compiled_once_for_all_memory_files_but_not_for_other_sources(design: Design) -> None:
    first = compiled(design)
    before = identity(first)
    (design.folder / "slow_weights.dat").write_text("07\n")
    assert compiled(design) == first
    assert identity(first) == before
    source = design.folder / "src" / "layers.sv"
    source.write_text(source.read_text() + "// more\n")
    assert compiled(design) != first


@pytest.mark.slow  # simulates generated hardware
def test_a_damaged_executable_is_built_again(design: Design) -> None:
    path = compiled(design)
    whole = path.read_bytes()
    path.unlink()  # another test's simulation may still run it
    path.write_bytes(whole[:1000])
    assert compiled(design) == path
    assert len(path.read_bytes()) == len(whole)


@pytest.mark.slow  # simulates generated hardware
def test_what_a_killed_build_left_is_removed(design: Design) -> None:
    entry = compiled(design).parent
    for name in entry.iterdir():
        name.unlink()
    entry.rmdir()
    left = entry.with_name(f".{entry.name}.building")
    left.mkdir()
    (left / "Vtop_old.cpp").write_text("no C++")
    assert compiled(design).is_file()
    assert not left.exists()


@pytest.mark.slow  # simulates generated hardware
def test_builds_at_the_same_time_make_one_executable(design: Design) -> None:
    source = design.folder / "src" / "layers.sv"
    source.write_text(source.read_text() + "// together\n")
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: compiled(design), range(3)))
    assert len(set(paths)) == 1
    assert len({identity(path) for path in paths}) == 1


@pytest.mark.slow  # simulates generated hardware
def test_few_executables_are_kept(monkeypatch: pytest.MonkeyPatch, design: Design) -> None:
    monkeypatch.setattr(verilator, "_KEPT", 1)
    old = compiled(design)
    source = design.folder / "src" / "layers.sv"
    source.write_text(source.read_text() + "// newer\n")
    new = compiled(design)
    assert new.is_file()
    assert not old.exists()


def test_a_wrong_design_is_refused_with_its_line(design: Design) -> None:
    source = design.folder / "src" / "layers.sv"
    source.write_text(source.read_text().replace("endmodule", "endmodul", 1))
    with pytest.raises(VerilationError, match=r"Verilator refuses the design .*layers\.sv:\d+"):
        compiled(design)


def test_a_source_that_is_gone(design: Design) -> None:
    (design.folder / "src" / "layers.sv").unlink()
    with pytest.raises(InputError, match=r"layers\.sv is gone"):
        compiled(design)


def test_no_verilator(monkeypatch: pytest.MonkeyPatch, design: Design) -> None:
    verilator._verilator.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match=r"Verilator.*divqat\[hardware\]"):
        compiled(design)
    verilator._verilator.cache_clear()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, design: Design) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissingError, match=r"C\+\+ compiler"):
        compiled(design)


def test_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, design: Design, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIVQAT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="DIVQAT_CACHE"):
        verilate(design.folder, design.sources, design.top, headers={"ports.h": ""})


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIVQAT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_root() == Path("/caches/divqat/verilator")


def test_the_runtime_is_prepared_while_something_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(verilator, "_runtime", lambda include, _: prepared.append(include.name))
    verilator.prepare().join()
    assert prepared == ["include"]
    monkeypatch.setenv("PATH", "")  # no compiler: verilate reports it, not the thread
    verilator.prepare().join()
    assert prepared == ["include"]
