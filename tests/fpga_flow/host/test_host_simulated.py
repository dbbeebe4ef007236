"""The chip's SystemVerilog in Verilator, driven on its pins by the host's driver."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_chip import Damaging
from small_core import BEATS, BYTES, expected, label_design, small_design

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction.detection.tripwire import Tripwire
from fpga_flow.engines.chip import SimTransport, build_chip, chip_timeout, simulate_chip
from fpga_flow.engines.engine import load_engine
from fpga_flow.engines.vectors import ReferenceVectors
from fpga_flow.host import protocol
from fpga_flow.host.chip import Chip, write_chip
from fpga_flow.host.driver import ChipDriver
from fpga_flow.host.protocol import Reader, Reply, Status
from fpga_flow.host.tripwire import ChipTripwire
from fpga_flow.rtl.design import Bytes, Design

ANSWER = 15  # bytes


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Design:
    return small_design(tmp_path_factory.mktemp("simulated") / "design")


@pytest.fixture(scope="module", params=["uart", "ft245"])
def chip(request: pytest.FixtureRequest, design: Design) -> Chip:
    folder = design.folder.parent / request.param
    return write_chip(design, folder, interface=request.param, clock_mhz=50.0, baud=None)


@pytest.fixture
def link(design: Design, chip: Chip) -> Iterator[SimTransport]:
    executable = build_chip(design, chip)
    with SimTransport(executable, design.folder, chip_timeout(design, chip)) as transport:
        yield transport
        assert transport.faults == 0


def images(count: int, seed: int = 0) -> Bytes:
    shape = (count, BEATS, BYTES)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def right(driver: ChipDriver, design: Design, beats: Bytes) -> bool:
    return np.array_equal(design.accumulators(driver.run(beats)), expected(beats))


def replies(link: SimTransport) -> list[Reply]:
    """All frames that come until the line is silent."""
    reader, seen = Reader(ANSWER), []
    while received := link.read(1000):
        reader.feed(received)
    while (taken := reader.take()) is not None:
        seen.append(taken)
    return seen


class Hit:
    """A link with damage on both ways."""

    def __init__(self, link: SimTransport, hit: Damaging) -> None:
        self.link, self.hit, self.waiting = link, hit, bytearray()

    def write(self, data: bytes) -> None:
        self.link.write(self.hit(data))

    def read(self, count: int) -> bytes:
        if len(self.waiting) < count:
            self.waiting += self.hit(self.link.read(count - len(self.waiting)))
        given = bytes(self.waiting[:count])
        del self.waiting[:count]
        return given

    def close(self) -> None:
        self.link.close()


@pytest.mark.slow  # simulates a chip
def test_answers_identity_and_counters(design: Design, chip: Chip, link: SimTransport) -> None:
    driver = ChipDriver(link, design)
    identity = driver.identity
    assert (identity.interface, identity.clock_mhz) == (chip.interface, chip.clock_mhz)
    assert (identity.in_beats, identity.in_bytes) == (BEATS, BYTES)
    assert (identity.out_beats, identity.out_bytes, identity.classes) == (5, 3, 5)
    assert identity.window == chip.window
    assert right(driver, design, images(100))
    status = driver.status()
    assert status.images == 100
    assert (status.errors, status.overflow, status.broken) == (0, False, False)
    driver.reset()
    assert driver.status() == Status(0, 0, 0, 0, 0, overflow=False, broken=False)
    assert right(driver, design, images(1))
    # The core pauses for 40 cycles behind its last beat.
    assert driver.status().latency == 41
    assert driver.recoveries == 2


@pytest.mark.slow  # simulates a chip
def test_the_tripwire_locks_the_chip_and_a_reset_of_the_link_leaves_it(tmp_path: Path) -> None:
    design = label_design(tmp_path / "design")
    unit = design.unit
    assert unit is not None
    numbers = Tripwire(add=5, subtract=1, alarm_at=60, start=20, policy="lock")
    tripwire = ChipTripwire(numbers, reject_class=3)
    chip = write_chip(design, tmp_path / "chip", interface="ft245", tripwire=tripwire)
    beats = images(300)
    labels = expected(beats)[:, :1] % 8
    own = beats[labels[:, 0] != 3][:40]
    with SimTransport(
        build_chip(design, chip), design.folder, chip_timeout(design, chip)
    ) as transport:
        driver = ChipDriver(transport, design)
        kept, states = tripwire.answers(unit, labels[labels[:, 0] != 3][:40])
        assert np.array_equal(design.answers(driver.run(own)), kept)
        assert not driver.status().alarm
        rejected = beats[labels[:, 0] == 3]
        again = np.concatenate([rejected, own])
        shown, after = tripwire.answers(unit, expected(again)[:, :1] % 8, states[-1])
        assert after[-1].alarm
        assert np.array_equal(design.answers(driver.run(again)), shown)
        driver.reset()
        assert driver.status().alarm
        assert not design.answers(driver.run(own)).any()


def test_a_tripwire_that_does_not_fit_is_refused(design: Design, tmp_path: Path) -> None:
    numbers = Tripwire(add=5, subtract=1, alarm_at=60)
    labels = label_design(tmp_path / "design")
    for where, wire, message in (
        (design, ChipTripwire(numbers, 0), "accumulators leave"),
        (labels, ChipTripwire(numbers, 8), "none of the 8"),
        (labels, ChipTripwire(replace(numbers, policy="label-only"), 0), "labels only already"),
        (labels, ChipTripwire(numbers, 0, slow_cycles=0), "slow_cycles"),
    ):
        with pytest.raises(InputError, match=message):
            write_chip(where, tmp_path / "chip", tripwire=wire)


def test_commands_are_answered_byte_by_byte(link: SimTransport) -> None:
    sent = [(protocol.IDENTIFY, 5), (protocol.STATUS, 250), (0x7F, 6), (protocol.RESET, 7)]
    for kind, sequence in sent:
        link.write(b"\0\xff" + protocol.command(kind, sequence))
        (reply,) = replies(link)
        wanted = protocol.UNKNOWN if kind == 0x7F else protocol.REPLY | kind
        assert (reply.kind, reply.sequence) == (wanted, sequence)


def test_a_damaged_image_is_refused_and_the_next_one_answered(link: SimTransport) -> None:
    first, second = (image.tobytes() for image in images(2))
    damaged = bytearray(protocol.command(protocol.RUN, 1, first))
    damaged[7] ^= 0x10
    link.write(bytes(damaged) + protocol.command(protocol.RUN, 2, second))
    kinds = [(reply.kind, reply.sequence) for reply in replies(link)]
    assert kinds == [(protocol.DAMAGED, 1), (protocol.REPLY | protocol.RUN, 2)]


@pytest.mark.parametrize("length", [1, 2, 3, 9, 17])
def test_a_reset_in_the_midst_of_a_frame(design: Design, link: SimTransport, length: int) -> None:
    frame = protocol.command(protocol.RUN, 77, images(1, seed=9)[0].tobytes())
    link.write(frame[:length])
    driver = ChipDriver(link, design)
    assert right(driver, design, images(5))


@pytest.mark.parametrize("wait", [1, 20, 23])
def test_a_reset_while_an_answer_is_on_its_way(
    design: Design, link: SimTransport, wait: int
) -> None:
    for image in images(3, seed=3):
        link.write(protocol.command(protocol.RUN, 9, image.tobytes()))
    assert len(link.read(wait)) == wait
    driver = ChipDriver(link, design)
    assert right(driver, design, images(5))
    assert driver.status().images == 5


@pytest.mark.slow  # simulates a chip
@pytest.mark.parametrize("seed", range(4))
def test_damage_on_the_line_never_gives_a_wrong_answer(
    design: Design, link: SimTransport, seed: int
) -> None:
    hit = Damaging(0.004, seed)
    driver = ChipDriver(Hit(link, hit), design)
    assert right(driver, design, images(100, seed))
    assert hit.hits > 0


def test_nothing_is_lost_when_the_host_is_slow(design: Design, link: SimTransport) -> None:
    """Whole windows are sent before one byte is read; FTDI's buffers are full three times in 4."""
    link.line(16.667, stall_percent=75)
    driver = ChipDriver(link, design)
    chance = random.Random(0)
    for _ in range(5):
        frames = images(driver.identity.window, seed=chance.randrange(1000))
        for sequence, image in enumerate(frames):
            link.write(protocol.command(protocol.RUN, sequence, image.tobytes()))
        found = replies(link)
        assert [reply.sequence for reply in found] == list(range(len(frames)))
        beats = np.array([np.frombuffer(reply.payload, np.uint8) for reply in found])
        answers = design.accumulators(beats.reshape(-1, 5, 3))
        assert np.array_equal(answers, expected(frames))


@pytest.mark.parametrize("chip", ["uart"], indirect=True)
@pytest.mark.parametrize("bit_cycles", [16.6, 17.4])
def test_a_serial_line_off_by_2_percent(
    design: Design, link: SimTransport, bit_cycles: float
) -> None:
    # 3 Mbaud at 50 MHz: the chip counts 17 cycles a bit.
    link.line(bit_cycles)
    driver = ChipDriver(link, design)
    assert right(driver, design, images(50))
    assert driver.recoveries == 1


@pytest.mark.parametrize("chip", ["uart"], indirect=True)
def test_a_serial_line_at_the_wrong_speed_is_told(design: Design, link: SimTransport) -> None:
    link.line(28.0)
    with pytest.raises(CheckFailedError, match="port and its speed"):
        ChipDriver(link, design)
    link.faults = 0  # the host reads stop bits where there are none


@pytest.mark.slow  # simulates a chip
def test_bytes_faster_than_the_core_are_lost_and_told(tmp_path: Path) -> None:
    """A buffer that is too short loses bytes: images are refused then, never answered wrongly."""
    slow = small_design(tmp_path / "design", pause=1000)
    chip = write_chip(slow, tmp_path / "chip", clock_mhz=50.0)
    top = chip.folder / "divqat_chip.sv"
    text = top.read_text()
    assert ".RX_DEPTH(512)" in text
    top.write_text(text.replace("DEPTH(512)", "DEPTH(16)"))
    with SimTransport(build_chip(slow, chip), slow.folder, chip_timeout(slow, chip)) as link:
        driver = ChipDriver(link, slow)
        frames = images(chip.window)
        for sequence, image in enumerate(frames):
            link.write(protocol.command(protocol.RUN, sequence, image.tobytes()))
        answers = [reply for reply in replies(link) if reply.kind == protocol.REPLY | protocol.RUN]
        assert len(answers) < len(frames)
        for reply in answers:
            found = np.frombuffer(reply.payload, np.uint8).reshape(1, 5, 3)
            wanted = expected(frames[reply.sequence][None])
            assert np.array_equal(slow.accumulators(found), wanted)
        link.write(bytes(30))  # completes a frame that lost its end
        replies(link)
        assert driver.status().overflow
        driver.reset()
        assert not driver.status().overflow
        for seed in range(5):  # one at a time fits
            assert right(driver, slow, images(1, seed))


def test_the_same_bytes_give_the_same_cycles(design: Design, chip: Chip) -> None:
    cycles = []
    for _ in range(2):
        engine = simulate_chip(design, chip)
        assert right(engine.driver, design, images(20))
        link = engine.driver._link
        assert isinstance(link, SimTransport)
        cycles.append(link.cycles)
        engine.driver.close()
    assert cycles[0] == cycles[1]


def test_a_chip_of_another_design_is_refused(design: Design, chip: Chip, tmp_path: Path) -> None:
    other = small_design(tmp_path / "other", pause=5)
    with pytest.raises(InputError, match="another design"):
        simulate_chip(other, chip)


@pytest.mark.finn
@pytest.mark.slow
@pytest.mark.parametrize(("seed", "interface", "divider"), [(1, "uart", 6), (2, "ft245", None)])
def test_a_random_network_on_a_chip(tmp_path, seed, interface, divider):
    import hardware_networks

    case = hardware_networks.random_case(tmp_path, seed)
    design = hardware_networks.random_design(case, tmp_path, "portable")
    images = case.images(12)
    vectors = ReferenceVectors.of(case.onnx, design)
    chip = write_chip(design, tmp_path / "chip", interface=interface, clock_mhz=60.0)
    engine = simulate_chip(design, chip, divider=divider)
    (found,) = engine.accumulators(images).values()
    *_, last = load_engine(case.onnx).accumulators(images).values()
    assert np.array_equal(found, last.reshape(found.shape))
    assert engine.driver.status().images == len(images)
    assert engine.driver.recoveries == 1
    assert np.array_equal(engine.answers(vectors.images), vectors.responses)
    engine.driver.close()
