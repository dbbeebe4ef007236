"""Programs that find the packages in a folder that pip unpacked them to."""

import os
import subprocess
import sys
from pathlib import Path


def run(site: Path, *arguments: str, code: int = 0, python: str = sys.executable) -> str:
    done = subprocess.run(
        [python, "-W", "ignore", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr[-2000:]
    return done.stdout + done.stderr
