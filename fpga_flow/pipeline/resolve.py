"""Where settings come from: TOML, changed by ``section.key=value``.

Later layers win: defaults, preset, file, ``--set``. An unknown section, key or
value is an `InputError` that names the file, the key and the nearest known one.
The resolved settings are saved as ``config.toml`` in the run directory, and
reading that file gives equal settings again.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.files import read_toml
from fpga_flow.pipeline.config import Config

Overrides = Mapping[str, object] | Iterable[str]
_PRESETS = resources.files("fpga_flow.pipeline") / "presets"


def presets() -> list[str]:
    """Names of the settings that come with the package."""
    return sorted(Path(item.name).stem for item in _PRESETS.iterdir() if ".toml" in item.name)


def resolve(
    file: Path | None = None,
    preset: str | None = None,
    overrides: Overrides = (),
    folder: Path = Path(),
) -> Config:
    """Settings from defaults, then a preset, a TOML file, and overrides.

    A relative path is meant from the file's own folder, or for an override from ``folder``.

    Args:
        file: TOML.
        preset: one of ``presets()``.
        overrides: texts ``section.key=value``, or a mapping of ``section.key`` to a value.
        folder: of the overrides' paths; the working directory if it is left out.

    Raises:
        InputError: no such file or preset, no TOML, an unknown section, key or value.

    Example:
        >>> resolve(overrides={"attack.budgets": [200, 1000]}).attack.budgets
        (200, 1000)
    """
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, str], str] = {}

    def merge(layer: Mapping[str, Any], source: str, folder: Path) -> None:
        for section, keys in layer.items():
            if section not in Config.model_fields:
                raise _unknown_section(section, keys, source)
            if not isinstance(keys, dict):
                raise InputError(f"[{section}] of {source} must be a table of keys and values.")
            for key, value in keys.items():
                sources[section, key] = source
                is_path = isinstance(value, str) and _annotation(section, key) == Path | None
                values.setdefault(section, {})[key] = (
                    os.path.abspath(folder / value) if is_path else value  # noqa: PTH100 (no symlink is followed)
                )

    if preset is not None:
        if preset not in presets():
            raise unknown_name("preset", preset, presets())
        text = (_PRESETS / f"{preset}.toml").read_text("utf-8")
        merge(tomllib.loads(text), f"preset {preset}", Path())
    if file is not None:
        merge(_read(file), str(file), file.parent)
    for source, layer in _layers(overrides):
        merge(layer, source, folder)
    try:
        text = json.dumps(values, default=str)
    except (ValueError, RecursionError) as e:
        raise InputError(f"the settings hold a value that is too large: {e}.") from e
    try:
        return Config.model_validate_json(text)
    except ValidationError as e:
        raise _explained(e.errors()[0], sources) from e


def to_toml(config: Config) -> str:
    """The settings as TOML; keys that are None are left out, since TOML has no null."""
    blocks = []
    for section, keys in config.model_dump(mode="json", exclude_none=True).items():
        lines = [f"{key} = {_toml(value)}" for key, value in keys.items()]
        blocks.append("\n".join([f"[{section}]", *lines]) + "\n")
    return "\n".join(blocks)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings, numbers and booleans are TOML's, but for the raw DEL character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _read(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise InputError(
            f"{file} is a folder, not a settings file. To continue the run in it: "
            f"divqat run --out {file}"
        )
    try:
        return read_toml(file, "settings file")
    except InputError as e:
        if isinstance(e.__cause__, FileNotFoundError):
            raise InputError(f"{e} Presets: {presets()}.") from e
        raise


def _layers(overrides: Overrides) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Each override as a source, for messages, and a layer of settings."""
    if not isinstance(overrides, Mapping):
        for text in [overrides] if isinstance(overrides, str) else overrides:
            yield f"--set {text}", _override(text)
        return
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        annotation = _annotation(section, key)
        if value == "none" and NoneType in get_args(annotation):  # TOML cannot say None
            value = None
        elif _item(annotation) is not None and not isinstance(value, list | tuple):
            value = [value]
        yield name, {section: {key: str(value) if isinstance(value, Path) else value}}


def _override(text: str) -> dict[str, dict[str, Any]]:
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise InputError(f"--set {text!r} is not of the form section.key=value.")
    annotation = _annotation(section, key)
    parsed: Any
    if NoneType in get_args(annotation) and value.strip().lower() == "none":
        parsed = None
    elif _item(annotation) is not None and not value.strip().startswith("["):
        parsed = [_scalar(part) for part in value.split(",") if part.strip()]
    else:
        parsed = _scalar(value)
    return {section: {key: parsed}}


def _scalar(text: str) -> Any:
    """A TOML value where the text is one, else the text itself: names need no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if set(parsed) == {"value"} else text.strip()


def _annotation(section: str, key: str) -> Any:
    """The declared type of a key, or None where there is no such key."""
    if section not in Config.model_fields:
        return None
    field = _keys(section).get(key)
    return field.annotation if field else None


def _keys(section: str) -> dict[str, Any]:
    kind: Any = Config.model_fields[section].annotation
    return dict(kind.model_fields)


def _item(annotation: Any) -> Any:
    """Element type of a tuple annotation, or None."""
    return get_args(annotation)[0] if get_origin(annotation) is tuple else None


def _choices(annotation: Any) -> Sequence[Any]:
    """The members of the first Literal within a type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for inner in get_args(annotation):
        if found := _choices(inner):
            return found
    return ()


def _unknown_section(section: str, keys: object, source: str) -> InputError:
    owners = [name for name in Config.model_fields if section in _keys(name)]
    if owners and not isinstance(keys, dict):
        return InputError(f"{source}: the key {section!r} belongs below [{owners[0]}].")
    error = unknown_name("section", section, Config.model_fields)
    return InputError(f"{source}: {error}")


def _explained(error: ErrorDetails, sources: Mapping[tuple[str, str], str]) -> InputError:
    """One paragraph from pydantic's first finding: which file, which key, what to write."""
    if len(error["loc"]) < 2:
        reason = error.get("ctx", {}).get("error", error["msg"])
        return InputError(f"the settings do not fit together: {reason}.")
    section, key = str(error["loc"][0]), str(error["loc"][1])
    source = sources.get((section, key), "the settings")
    if error["type"] == "extra_forbidden":
        owners = [name for name in Config.model_fields if key in _keys(name)]
        if owners:
            return InputError(
                f"{source}: [{section}] has no key {key!r}: it belongs in [{owners[0]}]."
            )
        unknown = unknown_name("key", key, _keys(section))
        return InputError(f"{source}: in [{section}], {unknown}")
    if error["type"] == "unknown_name":
        return InputError(f"{source}: {section}.{key}: {error['msg']}")
    if error["type"] == "literal_error":
        known = [str(choice) for choice in _choices(_annotation(section, key))]
        unknown = unknown_name("value", str(error["input"]), known)
        return InputError(f"{source}: {section}.{key}: {unknown}")
    return InputError(f"{source}: {section}.{key} = {error['input']!r}: {error['msg']}.")
