"""Kill `divqat run` (-9) at random moments, continue it, and compare with a run left in peace.

    python tests/robustness/kill9.py --moments 50 --out FOLDER [--seed 0] [--whole]

Each run directory is killed and continued until a run ends before its moment comes; then it is
compared, and the next one begins. Without --whole the hardware stops at FINN's estimate.
Ends with the number of kills by stage; exit code 1 where anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

COMMAND = [sys.executable, "-c", "from fpga_flow.cli import main; main()", "run"]
SETTINGS = ["--preset", "smoke", "--set", "train.variants=float,qat"]
ESTIMATE = ["--set", "compile.until=estimate"]
# Compared byte for byte; FINN writes its own seconds into what lies below compile/.
COMPARED = ("train/*.safetensors", "export/*.onnx", "attack/*.json", "report/results.json")


def start(folder: Path, settings: list[str]) -> "subprocess.Popen[bytes]":
    """The command, in a group of its own."""
    return subprocess.Popen(
        [*COMMAND, *settings, "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=(folder.parent / f"{folder.name}.log").open("ab"),
        start_new_session=True,
    )


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of what has to be equal, by path."""
    files = sorted(path for pattern in COMPARED for path in folder.glob(pattern))
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def stage(folder: Path) -> str:
    """Which stage the killed run was in."""
    try:
        stages = json.loads((folder / "manifest.json").read_text())["stages"]
    except FileNotFoundError:
        return "before the first stage"
    running = [name for name, record in stages.items() if record["status"] == "running"]
    return running[0] if running else f"after {list(stages)[-1]}"


def campaign(out: Path, moments: int, seed: int, settings: list[str]) -> tuple[Counter[str], int]:
    """Kill ``moments`` times.

    Returns:
        kills by stage, and how many runs were compared.

    Raises:
        AssertionError: a run ended otherwise than the one left in peace, or not at all.
    """
    rng = random.Random(seed)
    began = time.monotonic()
    peaceful = out / "peaceful"
    assert start(peaceful, settings).wait() == 0, f"see {peaceful}.log"
    whole = time.monotonic() - began
    expected = hashes(peaceful)
    assert "report/results.json" in expected
    kills: Counter[str] = Counter()
    compared = 0
    while kills.total() < moments:
        folder = out / f"killed-{compared}"
        while True:
            process = start(folder, settings)
            last = kills.total() >= moments
            try:
                code = process.wait(None if last else rng.uniform(0, whole))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills[stage(folder)] += 1
                print(f"kill {kills.total()}: {stage(folder)}", file=sys.stderr, flush=True)
                continue
            assert code == 0, f"exit code {code}, see {folder}.log"
            break
        found = hashes(folder)
        different = [name for name in expected if found.get(name) != expected[name]]
        assert found == expected, f"{folder}: {different or sorted(found)} differ"
        left = [path for path in folder.rglob(".*") if path.name not in (".lock", ".tasks")]
        assert not left, f"left behind: {left}"
        compared += 1
        shutil.rmtree(folder)
    return kills, compared


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--whole", action="store_true", help="RTL and its simulation too")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True)
    settings = SETTINGS if chosen.whole else [*SETTINGS, *ESTIMATE]
    kills, compared = campaign(chosen.out, chosen.moments, chosen.seed, settings)
    print(f"{kills.total()} kills, {compared} runs compared, all equal: {dict(kills)}")


if __name__ == "__main__":
    main()
