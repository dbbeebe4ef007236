"""Dataclasses that a folder holds as one JSON record: written, read and checked in one way."""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, write_json
from divqat_brevitas.short_repr import ShortRepr

SCHEMA = 1


def reason(error: Exception) -> str:
    """Why a value was refused, in a line: of pydantic's findings the first, with its field."""
    if not isinstance(error, ValidationError):
        return str(error)
    first, more = error.errors()[0], error.error_count() - 1
    field = ".".join(map(str, first["loc"])) or "the whole value"
    return f"{field}: {first['msg'].lower()}" + (f" ({more} more like it)" if more else "")


class Recorded(ShortRepr):
    """Base of frozen dataclasses with a field ``folder``, which holds their record.

    Attributes:
        RECORD: file name of the record.
        ABSENT: what to say of a folder without one.
        needed: files that must be in the folder beside the record.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    RECORD: ClassVar[str]
    ABSENT: ClassVar[str]
    folder: Path

    @property
    def needed(self) -> tuple[str, ...]:  # noqa: D102
        return ()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record of ``folder``.

        Raises:
            InputError: none is there, it is of another version, or a file is gone.
        """
        folder = Path(folder).absolute()
        file = folder / cls.RECORD
        if not file.is_file():
            raise InputError(f"{folder} {cls.ABSENT}")
        record: Any = read_json(file)
        try:
            if record.pop("schema") != SCHEMA:
                raise KeyError("schema")
            loaded = TypeAdapter(cls).validate_python({**record, "folder": folder})
        except (AttributeError, KeyError, TypeError, ValidationError, InputError) as e:
            raise InputError(
                f"{file} is not of this version ({reason(e)}). Run `divqat compile` again."
            ) from e
        for name in loaded.needed:
            if not (folder / name).is_file():
                raise InputError(f"{folder / name} is gone. Run `divqat compile` again.")
        return loaded

    def save(self) -> None:
        """Write the record."""
        record = TypeAdapter(type(self)).dump_python(self, mode="json", exclude={"folder"})
        write_json(self.folder / self.RECORD, {**record, "schema": SCHEMA})
