"""Archives, settings, records and weights that were made to do harm, or are merely odd."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS, seeds

from divqat_brevitas.data import download, formats, load, query_pool
from divqat_brevitas.errors import CheckFailedError, DivQATError, InputError
from divqat_brevitas.extraction import make_attack
from divqat_brevitas.extraction.defences import make_defence
from divqat_brevitas.extraction.learners.catalogue import make_learner
from divqat_brevitas.files import read_json, write_json
from divqat_brevitas.training.checkpoint import load_tensors, save_tensors
from fpga_flow.compile.folding_file import read_folding
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.report.schema import validate

pytestmark = pytest.mark.usefixtures("bounded_memory")
few = settings(derandomize=True, deadline=None, max_examples=40)


def outcome(function: Callable[[Any], object], given: Any) -> str:
    """How a call ended: "fine", or what an error for users says; others pass through."""
    try:
        function(given)
    except DivQATError as e:
        return str(e)
    return "fine"


CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


# Archives


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_every_compression_is_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(pack(tar_of((member("p/a"), b"1"), (member("p/b"), b"22"))))
    assert download.read_members(path, "p/*") == {"a": b"1", "b": b"22"}


@pytest.mark.parametrize(
    ("bad", "content"),
    [
        (member("p/../../x"), b"x"),
        (member("/p/x"), b"x"),
        (member("p/link", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member("p/link", tarfile.LNKTYPE, "../../etc/passwd"), b""),
        (member("p/pipe", tarfile.FIFOTYPE), b""),
        (member("p/device", tarfile.CHRTYPE), b""),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_members_that_leave_the_archive(
    tmp_path: Path, bad: tarfile.TarInfo, content: bytes
) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(tar_of((bad, content))))
    with pytest.raises(CheckFailedError, match="refused the unsafe member"):
        download.read_members(path, "*")
    assert [p.name for p in tmp_path.rglob("*")] == ["a.tgz"]


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 2**20)
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(tar_of((member("p/a"), bytes(2**21)))))
    with pytest.raises(CheckFailedError, match="unpacked it is larger than 1048576"):
        download.read_members(path, "p/*")


def test_a_member_that_declares_a_terabyte(tmp_path: Path) -> None:
    content = bytearray(tar_of((member("p/a"), b"1")))
    content[124:136] = b"\x80" + (2**40).to_bytes(11, "big")
    head = bytes(content[:148]) + b" " * 8 + bytes(content[156:512])
    content[148:156] = b"%06o\0 " % sum(head)
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(CheckFailedError, match="not a readable archive"):
        download.read_members(path, "p/*")


def test_members_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_MEMBERS", 50)
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(tar_of(*((member(f"x/{i}"), b"") for i in range(60)))))
    with pytest.raises(CheckFailedError, match="more than 50 members"):
        download.read_members(path, "p/*")


@pytest.mark.parametrize("size", [b"-60", b"-1", b"9" * 10, b"nine"])
def test_a_debian_package_of_odd_sizes_ends(tmp_path: Path, size: bytes) -> None:
    """A member of -60 bytes was read again and again, for ever."""
    path = tmp_path / "a.deb"
    path.write_bytes(b"!<arch>\n" + b"other".ljust(48) + size.ljust(10) + b"`\n" + bytes(40))
    with pytest.raises(CheckFailedError, match="not a readable archive"):
        download.read_members(path, "*")


def test_a_gzip_bomb_beside_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_BYTES", 2**20)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(InputError, match=r"a\.gz: cannot be read \(unpacked it is larger"):
        formats.read_bytes(tmp_path / "a")
    (tmp_path / "b").write_bytes(bytes(2**21))
    with pytest.raises(InputError, match="larger than"):
        formats.read_bytes(tmp_path / "b")


# Settings


@pytest.mark.parametrize(
    "text",
    [
        "[run]\nseeds = " + "[" * 100_000,
        "[run]\nseeds = [" + "[" * 400 + "]" * 400 + "]",
        "[run]\nname = " + "{a = " * 5_000,
        "[a" + ".a" * 20_000 + "]",
        "a." * 5_000 + "b = 1",
        "[train]\nfloat_epochs = 0x" + "f" * 6_000,
        "[train]\nfloat_epochs = " + "9" * 6_000,
        "[train]\nlearning_rate = nan",
        '[run]\nname = "' + "ü" * 10_000 + '"',
        '[model]\nname = "' + "x" * 10_000 + '"\nbits = "w9a1"',
        '[rün]\nname = "a"',
        '[run]\n"näme" = "a"',
        "# " + "x" * 300_000,
        "\x00",
    ],
    ids=range(14),
)
def test_hostile_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ü settings.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        resolve(path)
    assert 0 < len(str(caught.value)) < 25_000


@few
@given(st.sampled_from(range(6)), st.integers(0, 2**32))
def test_mutated_settings(preset: int, seed: int) -> None:
    data = bytearray(seeds("toml")[preset])
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.choice(b'[]{}"=.\n0e-x\xff')
    TARGETS["toml"](bytes(data))


# JSON: foldings, results, records

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@few
@given(json_values)
def test_any_json_as_folding_or_results(tmp_path_factory: Any, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value))
    for read in (read_folding, lambda p: validate(read_json(p))):
        assert outcome(read, path)


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"\xff", b"", b'{"a": 1' + b"0" * 5_000 + b"}"]
)
def test_hostile_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (read_json, read_folding):
        with pytest.raises(InputError, match="not valid JSON"):
            read(path)
    for odd in (tmp_path, tmp_path / ("x" * 10_000), Path("a\0b")):
        with pytest.raises(InputError):
            read_json(odd)


# Weights


@few
@given(st.integers(0, 2**32))
def test_altered_weights_are_refused(tmp_path_factory: Any, seed: int) -> None:
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    tensors = {"w": torch.arange(12.0).reshape(3, 4), "n": torch.tensor(3)}
    save_tensors(path, tensors, {"epoch": 1})
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        loaded, record = load_tensors(path)
    except InputError as e:
        assert "corrupt" in str(e)  # noqa: PT017 (what is not refused must be unchanged)
    else:
        assert record == {"epoch": 1}
        assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"divqat": "[" * 50_000}},
        {"__metadata__": {"divqat": '{"record": "' + "[" * 50_000 + '", "digest": ""}'}},
        {"__metadata__": {"divqat": "7"}},
    ],
    ids=range(6),
)
def test_weights_with_a_hostile_header(tmp_path: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(InputError, match="corrupt"):
        load_tensors(path)
    path.write_bytes((2**62).to_bytes(8, "little") + text)
    with pytest.raises(InputError, match="corrupt"):
        load_tensors(path)


# Names of defences, attacks, learners, pools and data sets

words = st.text(st.sampled_from("abdgkmnoprtux:+-@,.0129eé\0/ "), max_size=24)
_KNOWN = (
    "gate:0 dcp:0.7 noise topk:3 rounding:2 smooth:0.1 temperature:2 argmax filtered-argmax "
    "mix:in:0.1,noise dataset:digits:0-4 digits:0,1 knockoff-random"
)
known = st.sampled_from(_KNOWN.split())


@settings(derandomize=True, deadline=None, max_examples=120)
@given(st.lists(words | known, min_size=1, max_size=3).map("+".join) | words | known)
def test_any_name_is_known_or_an_error_for_users(name: str) -> None:
    learner = make_learner("soft")
    for make in (
        make_defence,
        make_learner,
        lambda n: make_attack(n, learner, 0),
        lambda n: query_pool(n, "digits", 2, 0, Path("/nowhere")),
        lambda n: load(n, "test", Path("/nowhere")),
    ):
        assert outcome(make, name)


# Pictures


@few
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"P6 3 3 255\n", b"BM"]))
def test_any_bytes_as_a_picture(tmp_path_factory: Any, tail: bytes, head: bytes) -> None:
    root = tmp_path_factory.mktemp("pictures")
    for part in ("train", "test"):
        (root / part / "á class").mkdir(parents=True)
        (root / part / "á class" / "a.png").write_bytes(head + tail)
    try:
        images, _ = load(f"imagefolder:{root}?size=4", "test")
    except InputError as e:
        assert "a.png" in str(e)  # noqa: PT017 (a tail may be a picture by chance)
    else:
        assert images.shape == (1, 3, 4, 4)


def test_a_picture_of_a_billion_pixels(tmp_path: Path) -> None:
    header = b"P6 60000 60000 255\n"
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        (tmp_path / part / "a" / "a.ppm").write_bytes(header + bytes(30))
    with pytest.raises(InputError, match=r"a\.ppm"):
        load(f"imagefolder:{tmp_path}?size=4", "test")


# What was found by fuzzing once


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_seeds_and_found_inputs_end_well(target: str) -> None:
    inputs = [*seeds(target), *(p.read_bytes() for p in sorted((CORPUS / target).glob("*")))]
    for data in inputs:
        TARGETS[target](data)
        TARGETS[target](data[: len(data) // 2])
    assert inputs


def test_records_survive_a_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "ü.json", {"ü": ["\u2028", "x" * 10_000]})
    assert read_json(tmp_path / "ü.json") == {"ü": ["\u2028", "x" * 10_000]}
