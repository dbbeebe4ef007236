"""How to make a run again: its settings, versions, stages and the hashes of its files."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from divqat_brevitas.files import read_json, sha256_file
from fpga_flow.report.schema import Run, Stage, parse

_COMPARED = (".safetensors", ".onnx", "/victims.json", "/design/design.json", "/chip.bit")


def run_record(run_dir: Path) -> Run:
    """Settings, versions and outcomes. No clock times: the same run gives the same file."""
    config = run_dir / "config.toml"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
    manifest = run_dir / "manifest.json"
    recorded = read_json(manifest) if manifest.is_file() else {}
    stages = recorded.get("stages") if isinstance(recorded, dict) else None
    # The report is being written now: it has nothing to say of itself.
    records = {
        name: record
        for name, record in (stages if isinstance(stages, dict) else {}).items()
        if name != "report" and isinstance(record, dict)
    }
    return Run(
        name=_name(text) or run_dir.resolve().name,
        config=text,
        versions=_versions(records.values()),
        files=_files(config, records.values()),
        stages={
            name: parse(
                Stage,
                {"status": record.get("status"), "reason": record.get("reason") or None},
                f"{manifest}, {name}",
            )
            for name, record in records.items()
        },
    )


def _files(config: Path, records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """SHA-256 of what a reader would compare: settings, weights, QONNX files, bitstreams."""
    found = {config.name: sha256_file(config)} if config.is_file() else {}
    for record in records:
        outputs = record.get("outputs")
        for path, digest in outputs.items() if isinstance(outputs, dict) else ():
            if path.endswith(_COMPARED) and "/models/" not in path:
                found[path] = str(digest)
    return found


def _name(config: str | None) -> str | None:
    try:
        name = tomllib.loads(config or "").get("run", {}).get("name")
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _versions(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Package → version; where stages ran with different ones, all of them."""
    seen: dict[str, list[str]] = {}
    for record in records:
        versions = record.get("versions")
        for package, version in versions.items() if isinstance(versions, dict) else ():
            known = seen.setdefault(package, [])
            if str(version) not in known:
                known.append(str(version))
    return {package: " and ".join(found) for package, found in sorted(seen.items())}
