"""``compile.answer``: what it may be, and what is refused before any work."""

import sys
from pathlib import Path

import pytest
from engine_models import small_network

from divqat_brevitas.errors import InputError
from fpga_flow.console import Progress
from fpga_flow.pipeline.config import CompileSection
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.stages import compile as stage
from fpga_flow.pipeline.stages import hardware


@pytest.mark.parametrize(
    "answer", ["logits", "top1", "topk:3", "rounded:1", "posterior:8", "gated:9:4"]
)
def test_answers_that_can_be_had(answer: str) -> None:
    config = resolve(preset="smoke", overrides=[f"compile.answer={answer}"])
    assert config.compile.answer == answer
    stage.check(config)


@pytest.mark.parametrize(
    "answer", ["label", "topk", "topk:0", "rounded:9", "rounded:", "top1:2", "gated:x"]
)
def test_others_are_refused_by_name(answer: str) -> None:
    with pytest.raises(InputError, match=r"compile\.answer.*rounded:BITS or posterior:BITS"):
        resolve(overrides=[f"compile.answer={answer}"])


def test_what_cannot_be_built_is_refused_before_training() -> None:
    with pytest.raises(InputError, match="more classes than the 10"):
        stage.check(resolve(preset="smoke", overrides=["compile.answer=topk:11"]))
    with pytest.raises(InputError, match="classes 0 to 9 only"):
        stage.check(resolve(preset="smoke", overrides=["compile.answer=gated:10"]))
    vendor = ["compile.answer=top1", "compile.target=pynq-z1"]
    with pytest.raises(InputError, match="for devices of the open flow"):
        stage.check(resolve(preset="smoke", overrides=vendor))


def test_a_file_alone_has_no_images_to_choose_a_step_from(tmp_path: Path) -> None:
    onnx = small_network(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="needs calibration images"):
        hardware.build_all(
            onnx, tmp_path / "out", CompileSection(answer="rounded:3"), Progress(sys.stderr)
        )
    assert not (tmp_path / "out").exists()
