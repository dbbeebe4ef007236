"""The worker process: ``python -m fpga_flow.compile.worker``, one job file name a line on stdin.

FINN replaces stdout, reconfigures logging, seeds and reads the environment: none of that may
reach the program of a user. For every job (JSON: ``kind`` build, execute or
call, which names a ``module:function`` that takes the job) the answer is
written to the job's ``answer`` file, then one line says so on stdout. Whatever FINN prints goes
to stderr, which is the log. The process ends when stdin is closed, so it never outlives the
program that started it.
"""

import functools
import importlib
import os
import queue
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json, write_json


def main() -> None:
    """Answer jobs until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # prints of FINN and of its child processes are log lines
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    warnings.simplefilter("ignore")  # QONNX warns at every graph it touches
    while True:
        path = jobs.get()
        job = read_json(Path(path))
        write_json(Path(job["answer"]), _answer(job))
        print("done", file=answers, flush=True)


def _listen(jobs: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        jobs.put(line.rstrip("\n"))
    os._exit(0)


@functools.cache
def _import_tools(with_vivado: bool) -> str | None:
    """Import FINN; the answer says why it cannot simulate RTL, where Vivado is asked for."""
    from fpga_flow.compile.finn_import import import_finn, import_finn_with_simulator

    no_simulator: str | None = "not asked for"
    if with_vivado:
        no_simulator = import_finn_with_simulator()
    else:
        import_finn()
    importlib.import_module("finn.builder.build_dataflow")
    return no_simulator


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        no_simulator = _import_tools(job.get("with_vivado", False))
    except ImportError as e:
        traceback.print_exc()
        return {"error": "tool", "message": str(e)}
    from fpga_flow.compile.worker_build import StepFailedError, build
    from fpga_flow.compile.worker_execution import execute_step

    try:
        if job["kind"] == "build":
            return {"result": build(job)}
        if job["kind"] == "call":
            module, name = job["function"].split(":")
            job["simulator"] = no_simulator is None
            return {"result": getattr(importlib.import_module(module), name)(job)}
        execute_step(job)
        return {"result": None}
    except InputError as e:
        return {"error": "input", "message": str(e)}
    except CheckFailedError as e:
        return {"error": "check", "message": str(e)}
    except StepFailedError as e:
        traceback.print_exception(e.cause)
        return {"error": "step", "step": e.step, "message": str(e), "unmappable": e.unmappable}
    except Exception as e:
        traceback.print_exc()
        return {"error": "step", "step": job["kind"], "message": repr(e), "unmappable": False}


if __name__ == "__main__":
    main()
