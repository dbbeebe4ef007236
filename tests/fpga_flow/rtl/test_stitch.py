"""Tops over layers: names of nets and taps, FIFOs by name, parts of a chain."""

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl import Design, DesignSettings, Node, Stream, restitch
from fpga_flow.rtl.stitch import chain, isolated, top

WIDE = Stream(lanes=2, bits=3, signed=False, beats=4)
NARROW = Stream(lanes=1, bits=3, signed=False, beats=8)


def layer(name, taken, given):
    return Node(name, "MVAU", None, taken, given, None, 8, 1, 1)


LAYERS = [layer("A", WIDE, NARROW), layer("B", NARROW, NARROW), layer("C", NARROW, WIDE)]


@pytest.fixture
def design(tmp_path):
    nodes = chain(LAYERS, DesignSettings(fifo_depths={"A_fifo": 0, "B_fifo": 7}))
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
    assert [n.depth for n in chain(LAYERS, DesignSettings(fifo_depths=2))[::2]] == [2] * 4
    assert names(chain(LAYERS, DesignSettings(fifo_depths=0))) == [(n, None) for n in "ABC"]


def test_an_unknown_fifo_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown FIFO 'A_fif': did you mean 'A_fifo'"):
        chain(LAYERS, DesignSettings(fifo_depths={"A_fif": 2}))


@pytest.mark.parametrize("depth", [1, -2])
def test_impossible_depths_are_refused(depth):
    with pytest.raises(InputError, match="FIFO depth of B_fifo must be 0"):
        DesignSettings(fifo_depths={"B_fifo": depth})


def test_an_unknown_style_is_refused():
    with pytest.raises(InputError, match="portable, finn"):
        DesignSettings(style="vendor")


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


def test_every_node_has_its_nets_and_taps(design):
    text = top(design.nodes)
    for node in design.nodes:
        for signal in ("tdata", "tvalid", "tready"):
            assert f"assign tap_{node.name}_{signal} = {node.name}_{signal};" in text


def test_isolated_counts_layers_but_no_fifos(design):
    text = isolated(design.nodes)
    assert "A_taken, A_given" in text
    assert "fifo" not in text
