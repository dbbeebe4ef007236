"""The record of a design, beats of a stream, and tops over layers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError, ToolMissingError
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl import Design, DesignSettings, Node, Stream, restitch
from fpga_flow.rtl.library import OURS, library, needed
from fpga_flow.rtl.patches import PATCHES, Patch, patched
from fpga_flow.rtl.stitch import isolated, stitched, top
from fpga_flow.rtl.windows import fused, searches_in_turn, weight_memories


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


WIDE = Stream(lanes=2, bits=3, signed=False, beats=4)
NARROW = Stream(lanes=1, bits=3, signed=False, beats=8)


def layer(name, taken, given):
    return Node(name, "MVAU", None, taken, given, None, 8, 1, 1)


LAYERS = [layer("A", WIDE, NARROW), layer("B", NARROW, NARROW), layer("C", NARROW, WIDE)]


@pytest.fixture
def design(tmp_path):
    nodes = stitched(LAYERS, DesignSettings(fifo_depths={"A_fifo": 0, "B_fifo": 7}))
    folder = tmp_path / "design"
    (folder / "src").mkdir(parents=True)
    (folder / "src/divqat_top.sv").write_text(top(nodes))
    (folder / "src/divqat_isolated.sv").write_text(isolated(nodes))
    (folder / "A_weights.dat").write_text("0\n")
    sources = ("src/divqat_top.sv", "src/divqat_isolated.sv")
    step = InputStep.plain(0.5, 8, (2, 2, 2))
    scale = ("portable", nodes, WIDE, WIDE, (2, 2, 2), step, "Gemm_0", (0.5,) * 8, (1.0,) * 8)
    made = Design(folder, "divqat_top", sources, ("A_weights.dat",), *scale, "0", {})
    made.save()
    return Design.load(folder)


def names(nodes):
    return [(node.name, node.depth) for node in nodes]


def test_fifos_stand_between_all_layers_by_name(design):
    assert names(design.nodes) == [
        ("input_fifo", 16),
        ("A", None),
        ("B", None),
        ("B_fifo", 7),
        ("C", None),
        ("C_fifo", 16),
    ]


def test_one_depth_for_all_and_none():
    assert [n.depth for n in stitched(LAYERS, DesignSettings(fifo_depths=2))[::2]] == [2] * 4
    assert names(stitched(LAYERS, DesignSettings(fifo_depths=0))) == [(n, None) for n in "ABC"]


def test_an_unknown_fifo_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown FIFO 'A_fif': did you mean 'A_fifo'"):
        stitched(LAYERS, DesignSettings(fifo_depths={"A_fif": 2}))


@pytest.mark.parametrize("depth", [1, -2])
def test_impossible_depths_are_refused(depth):
    with pytest.raises(InputError, match="FIFO depth of B_fifo must be 0"):
        DesignSettings(fifo_depths={"B_fifo": depth})


def test_the_same_again_is_the_same(design, tmp_path):
    assert restitch(design, tmp_path / "again").digest == design.digest


def test_other_depths(design, tmp_path):
    deeper = restitch(design, tmp_path / "deeper", fifo_depths={"A_fifo": 9})
    assert [n.depth for n in deeper.nodes if n.name.endswith("fifo")] == [16, 9, 16, 16]
    assert (
        "fifo #(.DEPTH(9), .DATA_WIDTH(3)) A_fifo"
        in (deeper.folder / "src/divqat_top.sv").read_text()
    )


def test_a_part_takes_and_gives_integers(design, tmp_path):
    part = restitch(design, tmp_path / "part", first="B", last="B")
    assert names(part.nodes) == [("B", None), ("B_fifo", 7)]
    assert (part.input, part.output) == (NARROW, NARROW)
    assert (part.input_shape, part.output_scale) == ((8,), (1.0,))
    integers = np.arange(8, dtype=np.float32)[None]
    assert np.array_equal(part.input_step.codes(integers), integers.clip(0, 7))
    tail = restitch(design, tmp_path / "tail", first="C")
    assert tail.output_scale == design.output_scale


def test_an_unknown_layer_is_refused(design, tmp_path):
    with pytest.raises(InputError, match="unknown layer 'D'"):
        restitch(design, tmp_path / "part", first="D")
    assert not (tmp_path / "part").exists()


def test_a_folder_of_something_else_is_kept(design, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("keep")
    with pytest.raises(InputError, match="something else"):
        restitch(design, tmp_path / "mine")
    assert (tmp_path / "mine/notes").read_text() == "keep"


# finn-rtllib as installed, with our patches and modules; choices among our modules.
PATCH = Patch("a.sv", r"\bold\b", "new", 2, "a reason")


@pytest.mark.finn
def test_every_patch_applies_to_the_installed_library():
    files = library("finn")
    for patch in PATCHES:
        assert patch.file in files
        assert not re.search(r"INIT_ABITS|blkRecoveryWatch", files[patch.file])
    with_functions = files["add_multi.sv"]
    assert with_functions.index("init_leaf_loads") < with_functions.index("genTrivial")


@pytest.mark.finn
def test_portable_files_are_ours_where_names_agree():
    ours = {path.name: path.read_text() for path in OURS.glob("*.sv")}
    portable, finn = library("portable"), library("finn")
    assert set(finn) <= set(portable)
    assert all(portable[name] == text for name, text in ours.items())
    assert finn["fifo.sv"] != ours["fifo.sv"]
    assert finn["pool_max.sv"] == ours["pool_max.sv"]


def test_a_patch_replaces_exactly_what_it_says():
    assert PATCH.apply("old older old", "1.6.1") == "new older new"


@pytest.mark.parametrize("text", ["old", "old old old", ""])
def test_another_version_of_a_file_is_refused_with_name_and_version(text):
    with pytest.raises(ToolMissingError, match=r"finn-plus 9\.9.*a\.sv has \d places") as caught:
        PATCH.apply(text, "9.9")
    assert "finn-plus==1.6.1" in str(caught.value)


def test_a_changed_library_file_is_refused():
    with pytest.raises(ToolMissingError, match=r"vpc\.sv"):
        patched("vpc.sv", "module vpc; endmodule", "1.7.0")
    assert patched("other.sv", "module other; endmodule", "1.7.0") == "module other; endmodule"


def test_needed_follows_names_but_not_comments():
    available = {
        "a.sv": "module a; b inst(); // c\n endmodule",
        "b.sv": "/* c */ module b import p::*; (); endmodule",
        "c.sv": "module c; endmodule",
        "p.sv": "package p; endpackage",
    }
    assert list(needed({"top.sv": "module top; a inst(); endmodule"}, available)) == [
        "p.sv",
        "a.sv",
        "b.sv",
    ]


def _weights(**sizes: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"name": name, "weights": {"depth": depth, "width": width}}
        for name, (depth, width) in sizes.items()
    ]


def test_few_words_are_logic_others_block_ram() -> None:
    styles = weight_memories([*_weights(few=(6, 50), many=(1500, 64)), {"name": "pool"}])
    assert styles == {"few": "logic", "many": "block"}


def test_short_block_ram_is_packed_tightly_then_shallow_words_become_logic() -> None:
    # 1500 words rounded to 2048 of 9 bits: 8 blocks for 64 bits; as 3 * 512 of 36 bits: 6.
    tight = weight_memories(_weights(**{f"l{i}": (1500, 64) for i in range(20)}))
    assert set(tight.values()) == {"auto", "block"}
    # 8 blocks of 20 too many need 5 of these to save 2 each.
    assert list(tight.values()).count("auto") == 5
    shallow = weight_memories(_weights(wide=(40, 1440), deep=(16384, 144)))
    assert shallow == {"wide": "logic", "deep": "auto"}


def _window(**changes: Any) -> dict[str, Any]:
    facts = {"rows": 8, "cols": 8, "k_rows": 2, "k_cols": 2, "s_rows": 2, "s_cols": 2, "fold": 4}
    facts |= {"dense": True, "depthwise": True, "parallel": False} | changes
    return {
        "name": "swg",
        "op": "ConvolutionInputGenerator",
        "sources": ("input",),
        "window": facts,
        "input": {"lanes": 2},
        "cycles": 70,
    }


def test_a_max_pool_takes_the_image_itself_where_windows_tile_it() -> None:
    pool = {
        "name": "pool",
        "op": "Pool",
        "sources": ("swg",),
        "input": {"lanes": 8},
        "cycles": 64,
        "pool": {"window": 4},
    }
    window = _window()
    (record,) = fused([window, pool])
    assert record["name"] == "pool"
    assert (record["input"], record["sources"]) == (window["input"], ("input",))
    assert record["pool"] == {"window": 4, "grid": window["window"]}
    for overlapping in ({"s_rows": 1}, {"dense": False}, {"parallel": True}):
        assert len(fused([_window(**overlapping), pool])) == 2


def test_thresholds_are_searched_in_turn_only_behind_slow_enough_layers() -> None:
    record = {"output": {"bits": 2}}
    unit = {"op": "MVAU", "cycles": 700, "output": {"beats": 100}}
    assert searches_in_turn(record, unit)
    assert not searches_in_turn(record, {**unit, "cycles": 600})
    assert not searches_in_turn(record, {**unit, "op": "Pool"})
    assert not searches_in_turn(record, None)
