"""The self-test of a chip, on chips in Python behind a serial port, and in Verilator."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_chip import FakeChip, filled, serial_port
from small_core import BEATS, BYTES, CLASSES, expected, small_design, stand_in

import fpga_flow
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import read_json, sha256_file, write_json
from fpga_flow.cli import main
from fpga_flow.engines import selftest
from fpga_flow.engines.chip import SimTransport, build_chip, chip_timeout
from fpga_flow.engines.selftest import BuiltChip, Mismatch, measure
from fpga_flow.engines.vectors import ReferenceVectors
from fpga_flow.host.chip import write_chip
from fpga_flow.host.driver import ChipDriver
from fpga_flow.host.protocol import Identity
from fpga_flow.rtl.design import Bytes, Design, Stream

VECTORS, IMAGES = 9, 40
Divqat = Callable[..., tuple[int, str, str]]


@pytest.fixture
def divqat(capsys: pytest.CaptureFixture[str]) -> Divqat:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["board", *map(str, arguments)])
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


def write_build(folder: Path) -> Path:
    """What the compile stage leaves of a chip, of a core small enough to simulate in seconds."""
    design = small_design(folder / "design")
    chip = write_chip(design, folder / "chip", clock_mhz=50.0)
    images = np.random.default_rng(0).random((VECTORS, BEATS * BYTES), np.float32)
    responses = expected(design.beats(images))
    ReferenceVectors(images, responses, design.digest).save(chip.folder)
    write_json(folder / "speed.json", {"cycles_per_image": 50.0, "latency_cycles": 60})
    stand_in(design, folder / "bitstream", "ecp5-85f", "uart, ulx3s-85f")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_build(tmp_path_factory.mktemp("board") / "build")


@pytest.fixture
def built(shared: Path, tmp_path: Path) -> Path:
    """A copy, with its records and files free to be changed."""
    folder = tmp_path / "build"
    shutil.copytree(shared, folder)
    return folder


def board(built: Path, change: Callable[[int, Bytes], None] = lambda image, sums: None) -> FakeChip:
    """A chip that holds the design; ``change`` alters the responses, by number of the vector."""
    chip = BuiltChip.load(built)
    sent = [beats.tobytes() for beats in chip.design.beats(chip.vectors.images)]

    def answer(image: bytes) -> bytes:
        sums = chip.vectors.responses[sent.index(image)].copy()
        change(sent.index(image), sums)
        return chip.design.output.pack(sums[:, None]).tobytes()

    digest = bytes.fromhex(chip.design.digest)[:8]
    return FakeChip(Identity(1, "uart", digest, BEATS, BYTES, 5, 3, CLASSES, 4, 50.0), answer)


def one_wrong_class(image: int, sums: Bytes) -> None:
    if image == 2:
        sums[3] += 1


def test_an_equal_chip_passes_and_is_recorded(built: Path, divqat: Divqat) -> None:
    chip = BuiltChip.load(built)
    arguments = ("selftest", built, "--board", "ULX3S 85F", "--images", IMAGES)
    with serial_port(board(built)) as port:
        code, out, err = divqat(*arguments, "--port", port, "--json")
    assert code == 0, err
    assert "Warning" not in err
    record = read_json(built / "selftest.json")
    assert json.loads(out) == record | {"record": str(built / "selftest.json")}
    assert (record["passed"], record["board"], record["power"]) == (True, "ULX3S 85F", None)
    images = VECTORS + IMAGES
    assert record["responses"] == {
        "vectors": VECTORS,
        "images": images,
        "integers": images * CLASSES,
        "wrong_images": 0,
        "wrong_integers": 0,
        "mismatches": [],
    }
    assert record["design"]["digest"] == chip.design.digest
    assert record["design"]["digest_reported_by_chip"] == chip.design.digest[:16]
    assert record["bitstream"]["sha256"] == sha256_file(built / "bitstream" / "chip.bit")
    link = record["link"]
    assert (link["interface"], link["baud"], link["timed_by"]) == ("uart", chip.chip.baud, "host")
    assert 0 < link["latency_median_s"] <= link["latency_p95_s"]
    assert link["images_per_s"] > 0
    assert record["core"]["simulated_images_per_s"] == 1e6
    with serial_port(board(built)) as port:
        code, out, _ = divqat(*arguments, "--port", port)
    assert code == 0
    assert f"{images} of {images} images equal" in out
    assert " W" not in out


def test_a_wrong_response_names_image_and_class(built: Path, divqat: Divqat) -> None:
    out_file = built.parent / "record.json"
    sha256 = sha256_file(built / "bitstream" / "chip.bit")
    reading = filled(built.parent / "meter.toml", sha256)
    with serial_port(board(built, one_wrong_class)) as port:
        code, out, _ = divqat(
            *("selftest", built, "--port", port, "--board", "mine", "--images", VECTORS),
            *("--power", reading, "--out", out_file),
        )
    right = int(BuiltChip.load(built).vectors.responses[2, 3])
    assert code == 1
    assert f"image 2, class 3: {right + 1} instead of {right}\n" in out
    record = read_json(out_file)
    assert not record["passed"]
    assert record["responses"]["wrong_integers"] == record["responses"]["wrong_images"] == 2
    assert record["responses"]["mismatches"] == [
        {"image": 2, "class_index": 3, "expected": right, "received": right + 1}
    ]
    assert record["power"]["joules_per_image"] is None
    assert not (built / "selftest.json").exists()


def test_a_wrong_label_is_named(shared: Path) -> None:
    chip = BuiltChip.load(shared)
    labels = chip.vectors.responses.argmax(axis=1)[:, None]
    stream = Stream(lanes=1, bits=3, signed=False, beats=1)
    design = replace(chip.design, output=stream, answer="top1")
    vectors = replace(chip.vectors, responses=labels)
    sent = [beats.tobytes() for beats in design.beats(vectors.images)]

    def answer(image: bytes) -> bytes:
        number = sent.index(image)
        return bytes([int(labels[number, 0]) ^ (number == 4)])

    digest = bytes.fromhex(design.digest)[:8]
    link = FakeChip(Identity(1, "uart", digest, BEATS, BYTES, 1, 1, CLASSES, 4, 50.0), answer)
    found = measure(ChipDriver(link, design), design, vectors, images=VECTORS)
    right = int(labels[4, 0])
    assert [str(one) for one in found.mismatches] == [
        f"image 4, label: {right ^ 1} instead of {right}"
    ]
    assert found.wrong_images == 2


def test_a_reading_is_quoted_with_the_energy(built: Path, divqat: Divqat) -> None:
    assert divqat("meter", built, "--out", built.parent / "empty.toml")[0] == 0
    sha256 = sha256_file(built / "bitstream" / "chip.bit")
    assert sha256 in (built.parent / "empty.toml").read_text()
    reading = filled(built.parent / "meter.toml", sha256)
    with serial_port(board(built)) as port:
        code, out, err = divqat(
            "selftest", built, "--port", port, "--board", "mine", "--power", reading
        )
    assert code == 0, err
    record = read_json(built / "selftest.json")
    power = record["power"]
    assert (power["reading"]["meter"], power["reading"]["load_w"]) == ("FNB58", 1.25)
    assert power["joules_per_image"] == 1.25 / record["link"]["images_per_s"]
    assert "1.25 W under load, 0.75 W idle" in out


def test_a_reading_of_another_bitstream_is_refused(built: Path, divqat: Divqat) -> None:
    reading = filled(built.parent / "meter.toml")
    more = ("--board", "mine", "--power", reading)
    code, _, err = divqat("selftest", built, "--port", "none", *more)
    assert code == 2
    assert "another bitstream" in err


def test_a_chip_that_stops_is_told_with_what_was_compared(shared: Path) -> None:
    chip = BuiltChip.load(shared)
    link = board(shared)
    driver = ChipDriver(link, chip.design)

    def stop(done: int) -> None:
        link.hit = lambda data: b""

    with pytest.raises(CheckFailedError, match=f"stopped after {VECTORS + IMAGES} compared images"):
        measure(driver, chip.design, chip.vectors, IMAGES, show=stop)


def test_no_board_on_the_port_is_told(
    built: Path, divqat: Divqat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_PATIENCE", 0.01)
    silent = board(built)
    silent.hit = lambda data: b""
    with serial_port(silent) as port:
        code, _, err = divqat("selftest", built, "--port", port, "--board", "mine")
    assert code == 1
    assert "Is the bitstream loaded" in err
    assert not (built / "selftest.json").exists()


def test_another_design_on_the_board_is_refused(
    built: Path, tmp_path: Path, divqat: Divqat
) -> None:
    link = board(built)
    other = Identity(1, "uart", bytes(8), BEATS, BYTES, 5, 3, CLASSES, 4, 50.0)
    link.identity = other
    with serial_port(link) as port:
        code, _, err = divqat("selftest", built, "--port", port, "--board", "mine")
    assert code == 2
    assert "the chip holds design 0000000000000000" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "/dev/nowhere", "--board", "mine"), "cannot open the serial port"),
        (("--port", "/dev/nowhere"), "name the board"),
        (("--port", "simulation", "--board", "mine"), "has no board"),
        (("--port", "x", "--board", "mine", "--power", "no.toml"), "no power reading"),
        (("--board", "mine"), "--port"),
    ],
)
def test_wrong_arguments_are_refused(
    shared: Path, divqat: Divqat, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = divqat("selftest", shared, *arguments)
    assert code == 2
    assert message in err


def _no_vectors(built: Path) -> None:
    (built / "chip" / "vectors.safetensors").unlink()


def _damaged_vectors(built: Path) -> None:
    file = built / "chip" / "vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _another_core(built: Path) -> None:
    with (built / "design" / "small_core.sv").open("a") as file:
        file.write("// changed\n")


def _vectors_of_another(built: Path) -> None:
    vectors = BuiltChip.load(built).vectors
    ReferenceVectors(vectors.images, vectors.responses, "0" * 64).save(built / "chip")


def _bitstream_of_another(built: Path) -> None:
    record: dict[str, Any] = read_json(built / "bitstream" / "report.json")
    write_json(built / "bitstream" / "report.json", record | {"design_sha256": "0" * 64})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no hardware design"),
        (lambda built: shutil.rmtree(built / "chip"), "holds no chip"),
        (_no_vectors, "no reference vectors"),
        (_damaged_vectors, "corrupt"),
        (_another_core, "written for another design"),
        (_vectors_of_another, "is of another design"),
        (_bitstream_of_another, "made from another design"),
    ],
)
def test_a_wrong_folder_is_told(
    built: Path, divqat: Divqat, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(built)
    code, _, err = divqat("selftest", built, "--port", "simulation")
    assert code == 2
    assert message in err


@pytest.mark.slow  # simulates a chip
def test_the_simulated_chip_passes_in_simulated_time(built: Path, tmp_path: Path) -> None:
    tests = [
        fpga_flow.board_selftest(built, "simulation", out=tmp_path / f"{k}.json") for k in range(2)
    ]
    assert [test.passed for test in tests] == [True, True]
    first, second = (test.document() for test in tests)
    assert first["responses"]["images"] == 2 * VECTORS
    assert (first["board"], first["link"]["timed_by"]) == (None, "simulated clock, no board")
    # The core pauses for 40 cycles behind an image's last beat.
    assert first["core"]["counted_latency_cycles"] == 41
    assert first["link"] == second["link"]  # no machine's speed is in it
    assert read_json(tests[0].file) == first
    baud = tests[0].built.chip.baud
    assert baud is not None
    # 10 bits a byte, 19 bytes an image and 22 a response: no line is faster.
    assert first["link"]["latency_median_s"] > 10 * (19 + 22) / baud


@pytest.mark.slow  # simulates a chip
def test_one_wrong_weight_in_the_simulated_chip_is_found(built: Path, tmp_path: Path) -> None:
    chip = BuiltChip.load(built)
    wrong = tmp_path / "wrong"
    shutil.copytree(built / "design", wrong)
    core = (wrong / "small_core.sv").read_text()
    assert "16'd259 *" in core
    weight = "(klass == 3 ? 16'd258 : 16'd259) *"
    (wrong / "small_core.sv").write_text(core.replace("16'd259 *", weight))
    simulated = build_chip(Design.load(wrong), chip.chip)
    timeout = chip_timeout(chip.design, chip.chip)
    with SimTransport(simulated, wrong, timeout) as link:
        found = measure(ChipDriver(link, chip.design), chip.design, chip.vectors, 1)
    sums = chip.vectors.responses[:, 3].tolist()
    assert found.mismatches == tuple(
        Mismatch(number, 3, total, (total - 3) % 65536) for number, total in enumerate(sums)
    )
    assert found.wrong_images == found.wrong_integers == VECTORS + 1
