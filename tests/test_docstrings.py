"""Every example in a docstring runs, in a folder of its own that holds what examples start from.

Besides its module's names an example may use ``np``, ``torch``, ``Path``, ``model`` (a small
quantized network), ``images`` and ``labels`` (float32 (64, 1, 8, 8) and int64), the network's file
``model.onnx``, and the files of ``FILES``. ``# doctest: +SKIP`` is for what needs hours, a network
connection or a tool that is not part of the tests' environment.
"""

import ast
import doctest
import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchmarks
import divqat_brevitas
import fpga_flow
from divqat_brevitas.data import load
from divqat_brevitas.models import build_model, quantize
from fpga_flow import export_qonnx

FILES = {"sweep.toml": 'preset = "smoke"\n[grid]\nmodel.bits = ["w2a2", "w4a4"]\n'}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def modules() -> list[str]:
    """Modules of the packages and benchmarks with an example that is not skipped."""
    names = []
    for package in (divqat_brevitas, fpga_flow, benchmarks):
        root = Path(package.__path__[0])
        for file in sorted(root.rglob("*.py")):
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            texts = (ast.get_docstring(n) or "" for n in nodes if isinstance(n, DOCUMENTED))
            examples = [e for text in texts for e in doctest.DocTestParser().get_examples(text)]
            if any(not e.options.get(doctest.SKIP) for e in examples):
                steps = file.relative_to(root.parent).with_suffix("").parts
                names.append(".".join(step for step in steps if step != "__init__"))
    return names


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that examples share, and the exported network's file."""
    torch.manual_seed(0)
    pixels, labels = load("digits", "train")
    images = pixels[:64].astype(np.float32) / np.float32(255)
    model = quantize(build_model("digits-cnn", (1, 8, 8), 10), "w4a4")
    model.train()
    for _ in range(3):
        model(torch.from_numpy(images))
    file = tmp_path_factory.mktemp("shelf") / "model.onnx"
    export_qonnx(model.eval(), file, images)
    return {"np": np, "torch": torch, "Path": Path, "file": file} | {
        "model": model,
        "images": images,
        "labels": labels[:64],
    }


SLOW = ("fpga_flow.api", "fpga_flow.doctor")  # they start FINN


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=[pytest.mark.slow] * (m in SLOW)) for m in modules()]
)
def test_examples_run(
    name: str, shelf: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    shutil.copy(shelf["file"], tmp_path / "model.onnx")
    for file, text in FILES.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    names = {key: value for key, value in shelf.items() if key != "file"}
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    lines: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs=names | vars(module)):
        torch.manual_seed(0)
        runner.run(test, out=lines.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(lines)
