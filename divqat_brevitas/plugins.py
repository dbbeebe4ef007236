"""Names that installed packages add: attacks, defences, engines and data sets by entry points.

A :class:`Registry` holds what comes with divqat and what other packages declare in an entry point
group. Reading the declarations imports nothing; a plug-in is imported when it is asked for. One
that cannot be used is warned of (:class:`PluginWarning`) and left out: the others stay usable.
"""

import re
import warnings
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Literal, TypeVar

from divqat_brevitas.errors import DivQATWarning, InputError

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class PluginWarning(DivQATWarning):
    """A plug-in that cannot be used, with its package, its entry point and the reason."""


@dataclass(frozen=True)
class Plugin:
    """One entry point that an installed package declares.

    Attributes:
        group: such as "divqat.attacks".
        name: under which it is asked for.
        package: that declares it, with its version.
        target: what is loaded, "module:attribute".
        status: "refused" stands for one that is never loaded, "broken" for one that failed to.
        reason: why it cannot be used; empty where it can.
    """

    group: str
    name: str
    package: str
    target: str
    status: Literal["ok", "refused", "broken"]
    reason: str


class Registry(Mapping[str, T], Generic[T]):
    """What comes with divqat, by name, and behind it what plug-ins add.

    Iterating gives all names and imports no plug-in; ``registry[name]`` imports the one asked for.
    ``items()`` and ``values()`` import them all, and leave out those that fail, with a warning. A
    plug-in never takes the place of a built-in: it is refused, by name.

    Args:
        kind: what a user calls one, such as "attack".
        group: the entry points' group.
        built_in: what comes with divqat.
        fits: whether a loaded object is one.
        expected: what it must be, in words.
        reserved: further names that no plug-in may have.
        found: the entry points of a group (default: those of the installed packages).

    Example:
        >>> numbers = Registry("number", "divqat.numbers", {"one": 1})
        >>> list(numbers), numbers["one"], "two" in numbers
        (['one'], 1, False)
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, T],
        *,
        fits: Callable[[object], bool] = lambda found: True,
        expected: str = "",
        reserved: Iterable[str] = (),
        found: Callable[[str], Iterable[EntryPoint]] = lambda group: entry_points(group=group),
    ) -> None:
        self.kind = kind
        self.group = group
        self.built_in: Mapping[str, T] = dict(built_in)
        self._fits = fits
        self._expected = expected
        self._reserved = frozenset(reserved)
        self._found = found
        self._refused: list[tuple[EntryPoint, str]] = []
        self._loaded: dict[str, T] = {}
        self._failed: dict[str, str] = {}

    def __getitem__(self, name: str) -> T:
        """The built-in or plug-in of that name.

        Raises:
            KeyError: no such name.
            InputError: a plug-in that cannot be loaded, with its package and entry point.
        """
        point = self._declared.get(name)
        if point is None:
            return self.built_in[name]
        if name not in self._loaded and name not in self._failed:
            try:
                self._loaded[name] = self._load(point)
            except InputError as e:
                self._failed[name] = str(e)
        if name in self._failed:
            raise InputError(self._failed[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        """Whether the name is declared; a plug-in is not loaded to find out."""
        return name in self.built_in or name in self._declared

    def __iter__(self) -> Iterator[str]:
        """All names: built-ins in their order, plug-ins by the alphabet."""
        return iter((*self.built_in, *self._declared))

    def __len__(self) -> int:
        return len(self.built_in) + len(self._declared)

    def items(self) -> ItemsView[str, T]:
        """Names with what they stand for; plug-ins that cannot be loaded are left out."""
        return self._all().items()

    def values(self) -> ValuesView[T]:
        """What the names stand for; plug-ins that cannot be loaded are left out."""
        return self._all().values()

    def plugins(self) -> list[Plugin]:
        """Every plug-in declared, usable or not; loads them all."""
        declared = self._declared
        rows = [self._row(point, "refused", reason) for point, reason in self._refused]
        for name, point in declared.items():
            try:
                self[name]
            except InputError as e:
                rows.append(self._row(point, "broken", str(e)))
            else:
                rows.append(self._row(point, "ok", ""))
        return sorted(rows, key=lambda row: (row.name, row.package))

    def _all(self) -> dict[str, T]:
        whole = dict(self.built_in)
        for name in self._declared:
            known = name in self._failed
            try:
                whole[name] = self[name]
            except InputError as e:
                if not known:
                    warnings.warn(f"{e} It is left out.", PluginWarning, stacklevel=3)
        return whole

    @cached_property
    def _declared(self) -> dict[str, EntryPoint]:
        """The plug-ins that may be loaded, by name; warns, once, of those that may not."""
        points = sorted(self._found(self.group), key=lambda p: (p.name, _package(p)))
        usable = {}
        for point in points:
            if reason := self._objection(point, points):
                self._refused.append((point, reason))
                warnings.warn(reason, PluginWarning, stacklevel=4)
            else:
                usable[point.name] = point
        return usable

    def _objection(self, point: EntryPoint, points: Iterable[EntryPoint]) -> str:
        """Why an entry point is refused; empty where it is not."""
        rivals = {_package(p) for p in points if p.name == point.name and p is not point}
        if point.name in self.built_in or point.name in self._reserved:
            why = f"{point.name!r} is divqat's own name, and stays what it was. Rename the plug-in"
        elif not _NAME.fullmatch(point.name):
            why = "a name is lower-case letters, digits, '.', '_' and '-'. Rename the plug-in"
        elif rivals:
            why = f"the name is also that of {' and '.join(sorted(rivals))}. Uninstall one of them"
        else:
            return ""
        return f"{self._described(point)} is refused: {why}."

    def _load(self, point: EntryPoint) -> T:
        try:
            found = point.load()
        except (Exception, SystemExit) as e:  # anything may happen in another's module
            reason = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
            raise InputError(
                f"{self._described(point)} cannot be loaded ({reason}). "
                "Repair, update or uninstall that package."
            ) from e
        if not self._fits(found):
            raise InputError(
                f"{self._described(point)} is of type {type(found).__name__}, but must be "
                f"{self._expected}."
            )
        made: T = found
        return made

    def _described(self, point: EntryPoint) -> str:
        return (
            f"{self.kind} {point.name!r} of the package {_package(point)} "
            f"(entry point {self.group}: {point.name} = {point.value})"
        )

    def _row(
        self, point: EntryPoint, status: Literal["ok", "refused", "broken"], reason: str
    ) -> Plugin:
        return Plugin(self.group, point.name, _package(point), point.value, status, reason)


def _package(point: EntryPoint) -> str:
    """The distribution that declares an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "of unknown name"
