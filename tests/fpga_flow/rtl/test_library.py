"""The installed finn-rtllib: every patch applies, another version is refused, ours take over."""

import re

import pytest

from divqat_brevitas.errors import ToolMissingError
from fpga_flow.rtl.library import OURS, library, needed
from fpga_flow.rtl.patches import PATCHES, Patch, patched

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
