"""Names from installed packages: found, loaded when asked for, refused or left out."""

import sys
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.plugins import PluginWarning, Registry

GROUP = "divqat.tests"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with entry points where Python finds it, as pip does."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(package: str, points: dict[str, str], code: str = "", version: str = "1.2") -> None:
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        lines = [f"{name} = {package}:{attribute}" for name, attribute in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        (tmp_path / f"{package}.py").write_text(code)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return put


@pytest.fixture
def registry(tmp_path: Path) -> Registry[int]:
    def found(group: str) -> Iterable[EntryPoint]:
        points = [p for d in distributions(path=[str(tmp_path)]) for p in d.entry_points]
        return [point for point in points if point.group == group]

    return Registry(
        "number",
        GROUP,
        {"one": 1, "two": 2},
        fits=lambda thing: isinstance(thing, int),
        expected="a whole number",
        reserved=("zero",),
        found=found,
    )


def test_a_plug_in_is_listed_without_being_imported(
    install: Install, registry: Registry[int]
) -> None:
    install("plug_lazy", {"three": "N"}, "N = 3")
    assert list(registry) == ["one", "two", "three"]
    assert len(registry) == 3
    assert "three" in registry
    assert "did you mean 'three'?" in str(unknown_name("number", "thre", registry))
    assert registry["one"] == 1
    assert "plug_lazy" not in sys.modules
    assert registry["three"] == 3
    assert "plug_lazy" in sys.modules
    assert dict(registry.items()) == {"one": 1, "two": 2, "three": 3}
    assert dict(registry.built_in) == {"one": 1, "two": 2}


def test_a_broken_one_is_named_and_stops_no_other(
    install: Install, registry: Registry[int]
) -> None:
    install("plug_good", {"four": "N"}, "N = 4")
    install("plug_bad", {"three": "N"}, "import no_such_module_here")
    with pytest.warns(PluginWarning) as caught:
        assert list(registry.values()) == [1, 2, 4]
    (warning,) = caught
    for part in (
        "plug_bad 1.2",
        f"{GROUP}: three = plug_bad:N",
        "No module named 'no_such_module_here'",
    ):
        assert part in str(warning.message)
    with pytest.raises(InputError, match=r"'three' of the package plug_bad 1\.2"):
        registry["three"]
    with warnings.catch_warnings():  # told once
        warnings.simplefilter("error")
        assert dict(registry.items()) == {"one": 1, "two": 2, "four": 4}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("M = 3", "AttributeError"),
        ("N = 'three'", "is of type str, but must be a whole number"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    install: Install, registry: Registry[int], code: str, words: str
) -> None:
    install("plug_bad", {"three": "N"}, code)
    with pytest.raises(InputError, match=r"package plug_bad 1\.2") as e:
        registry["three"]
    assert words in str(e.value)


@pytest.mark.parametrize("name", ["one", "zero"])
def test_a_built_in_is_never_replaced(install: Install, registry: Registry[int], name: str) -> None:
    install("plug_thief", {name: "N", "three": "N"}, "N = 99")
    with pytest.warns(PluginWarning, match=f"'{name}' of the package plug_thief 1.2.*refused"):
        assert registry["one"] == 1
    assert list(registry) == ["one", "two", "three"]
    assert registry["three"] == 99


def test_two_packages_of_one_name_are_both_refused(
    install: Install, registry: Registry[int]
) -> None:
    install("plug_a", {"three": "N", "four": "N"}, "N = 3")
    install("plug_b", {"three": "N"}, "N = 33")
    with pytest.warns(PluginWarning) as caught:
        assert list(registry) == ["one", "two", "four"]
    assert "the name is also that of plug_b 1.2" in str(caught[0].message)
    assert "the name is also that of plug_a 1.2" in str(caught[1].message)


@pytest.mark.parametrize("name", ["Three", "three+four", "three@1", "drei vier"])
def test_names_that_settings_could_not_hold_are_refused(
    install: Install, registry: Registry[int], name: str
) -> None:
    install("plug_a", {name: "N"}, "N = 3")
    with pytest.warns(PluginWarning, match="lower-case"):
        assert list(registry) == ["one", "two"]


def test_the_list_of_plug_ins_tells_what_became_of_each(
    install: Install, registry: Registry[int]
) -> None:
    install("plug_a", {"three": "N", "two": "N", "four": "M"}, "N = 3")
    with pytest.warns(PluginWarning):
        rows = registry.plugins()
    assert [(row.name, row.status, row.package) for row in rows] == [
        ("four", "broken", "plug_a 1.2"),
        ("three", "ok", "plug_a 1.2"),
        ("two", "refused", "plug_a 1.2"),
    ]
    assert [bool(row.reason) for row in rows] == [True, False, True]


def test_nothing_installed_means_the_built_ins(registry: Registry[int]) -> None:
    assert dict(registry) == {"one": 1, "two": 2}
    assert registry.plugins() == []
    with pytest.raises(KeyError):
        registry["three"]
