"""finn-rtllib as installed, with our patches and modules; choices among our modules."""

import re
from typing import Any

import pytest

from divqat_brevitas.errors import ToolMissingError
from fpga_flow.rtl.library import OURS, library, needed
from fpga_flow.rtl.patches import PATCHES, Patch, patched
from fpga_flow.rtl.windows import fused, searches_in_turn, weight_memories

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
