"""The record of a design, and how integers become beats of a stream."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl import Design, Node, Stream


def _design(folder: Path) -> Design:
    folder.mkdir()
    (folder / "src").mkdir()
    (folder / "src/top.sv").write_text("module top; endmodule\n")
    (folder / "weights.dat").write_text("f\n")
    pixels = Stream(lanes=2, bits=8, signed=False, beats=4)
    sums = Stream(lanes=1, bits=6, signed=True, beats=3)
    design = Design(
        folder=folder,
        top="top",
        sources=("src/top.sv",),
        data=("weights.dat",),
        style="portable",
        nodes=(Node("MVAU_rtl_0", "MVAU", "logits", pixels, sums, 12, 12, 1, 2),),
        input=pixels,
        output=sums,
        input_shape=(2, 2, 2),
        input_step=InputStep.plain(1 / 255, 8, (2, 2, 2)),
        output_layer="MatMul_0",
        output_scale=(0.5,),
        output_bias=(1.0, 2.0, 3.0),
        onnx_sha256="0",
        versions={"finn-plus": "1.6.1"},
    )
    design.save()
    return design


@given(
    st.integers(1, 5), st.integers(1, 33), st.booleans(), st.integers(0, 3), st.integers(0, 2**31)
)
def test_what_is_packed_is_unpacked(
    lanes: int, bits: int, signed: bool, beats: int, seed: int
) -> None:
    stream = Stream(lanes=lanes, bits=bits, signed=signed, beats=beats)
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.random.default_rng(seed).integers(low, low + 2**bits, (2, beats, lanes))
    packed = stream.pack(values)
    assert packed.shape == (2, beats, stream.bytes)
    assert np.array_equal(stream.unpack(packed), values)


def test_the_first_lane_is_in_the_lowest_bits() -> None:
    assert Stream(lanes=3, bits=3, signed=True, beats=1).pack(np.array([1, -1, 2])).tolist() == [
        0b10_111_001,
        0b0,
    ]


def test_a_saved_design_is_loaded_equal(tmp_path: Path) -> None:
    design = _design(tmp_path / "design")
    assert Design.load(tmp_path / "design") == design


def test_images_enter_channels_last_and_rounded_to_codes(tmp_path: Path) -> None:
    design = _design(tmp_path / "design")
    codes = np.arange(8).reshape(1, 2, 2, 2)
    beats = design.beats((codes / 255).astype(np.float32))
    assert beats.tolist() == [[[0, 4], [1, 5], [2, 6], [3, 7]]]
    assert design.beats(np.full((1, 2, 2, 2), 9, np.float32)).max() == 255


def test_logits_are_scaled_and_shifted_accumulators(tmp_path: Path) -> None:
    design = _design(tmp_path / "design")
    answer = design.output.pack(np.array([[[-1], [0], [4]]]))
    accumulators = design.accumulators(answer)
    assert accumulators.tolist() == [[-1, 0, 4]]
    assert design.logits(accumulators).tolist() == [[0.5, 2.0, 5.0]]


def test_the_digest_follows_contents_names_and_top(tmp_path: Path) -> None:
    design = _design(tmp_path / "design")
    digest = design.digest
    assert replace(design, top="other").digest != digest
    (design.folder / "weights.dat").write_text("e\n")
    assert replace(design).digest != digest
    (design.folder / "weights.dat").write_text("f\n")
    assert replace(design).digest == digest


def test_no_design_a_strange_one_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no hardware design"):
        Design.load(tmp_path)
    design = _design(tmp_path / "design")
    record = (design.folder / "design.json").read_text()
    (design.folder / "design.json").write_text(record.replace('"schema": 1', '"schema": 0'))
    with pytest.raises(InputError, match="not of this version"):
        Design.load(design.folder)
    (design.folder / "design.json").write_text(record)
    (design.folder / "weights.dat").unlink()
    with pytest.raises(InputError, match=r"weights\.dat is gone"):
        Design.load(design.folder)
