from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_core import small_design, stand_in

from divqat_brevitas.errors import InputError
from fpga_flow.devices.ecp5 import ECP5
from fpga_flow.devices.family import Family
from fpga_flow.devices.gowin import GOWIN
from fpga_flow.engines.netlist import NetlistEngine
from fpga_flow.host.boards import BOARDS, fastest_baud, pll, uart_divider
from fpga_flow.host.chip import Chip, write_chip
from fpga_flow.report.schema import HardwareRow, parse
from fpga_flow.rtl.design import Design, Stream
from fpga_flow.synthesis import BitstreamReport, build_bitstream, hardware_rows
from fpga_flow.targets import open_target


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Design:
    return small_design(tmp_path_factory.mktemp("chip") / "design")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([12.0, 25.0, 48.0, 100.0]), st.floats(10, 200))
def test_pll_stays_within_the_device_and_below_what_was_asked(mhz: float, wanted: float) -> None:
    found = pll(ECP5.pll, mhz, wanted)
    assert found.mhz == pytest.approx(mhz / found.input_divider * found.feedback_divider)
    assert found.vco_mhz == pytest.approx(found.mhz * found.output_divider)
    assert 400 <= found.vco_mhz <= 800
    assert mhz / found.input_divider >= 3.125
    # The phase detector runs at 3.125 MHz or more: at most two such steps are lost.
    assert wanted - 6.3 <= found.mhz <= wanted + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.floats(10, 200))
def test_gowins_pll_stays_within_the_device(wanted: float) -> None:
    found = pll(GOWIN.pll, 27.0, wanted)
    assert found.mhz == pytest.approx(27.0 / found.input_divider * found.feedback_divider)
    assert found.vco_mhz == pytest.approx(found.mhz * found.output_divider)
    assert found.output_divider in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)  # rPLL has no others
    assert 500 <= found.vco_mhz <= 1250
    assert 27.0 / found.input_divider >= 3
    # Nine input dividers from 27 MHz: the rate of the phase detector at most is lost at the ends.
    assert wanted - 27.0 < found.mhz <= wanted + 1e-6


@pytest.mark.parametrize(("mhz_in", "wanted"), [(25.0, 3.0), (25.0, 700.0), (2.0, 50.0)])
@pytest.mark.parametrize("family", [ECP5, GOWIN], ids=lambda family: family.name)
def test_clocks_out_of_range_are_refused(family: Family, mhz_in: float, wanted: float) -> None:
    with pytest.raises(InputError, match="PLL"):
        pll(family.pll, mhz_in, wanted)


@pytest.mark.parametrize("mhz", [10.0, 25.0, 33.3, 50.0, 75.0, 87.5, 120.0])
def test_the_fastest_baud_rate_is_near_a_whole_number_of_cycles(mhz: float) -> None:
    baud = fastest_baud(mhz)
    assert uart_divider(mhz, baud) * baud == pytest.approx(mhz * 1e6, rel=0.03)


def test_a_baud_rate_the_clock_cannot_make_is_refused() -> None:
    with pytest.raises(InputError, match="1500000 baud"):
        uart_divider(25.0, 3_000_000)


def test_a_chip_is_read_back(design: Design, tmp_path: Path) -> None:
    chip = write_chip(design, tmp_path, clock_mhz=75.0)
    assert (chip.clock_mhz, chip.baud, chip.divider) == (75.0, 3_000_000, 25)
    assert Chip.load(tmp_path) == chip
    for name in chip.all_sources(design):
        assert (design.folder / name).is_file()
    assert chip.for_synthesis().name == "uart, ulx3s-85f"


@pytest.mark.parametrize(
    ("interface", "window", "depth"),
    [
        ("ft245", 46, 16),  # FTDI holds 1024 bytes: 46 answers of 22; it can be held up
        ("uart", 23, 512),  # 512 bytes; answers are longer than images: 23 x 19 bytes wait
    ],
)
def test_buffers_hold_what_may_pile_up(
    design: Design, tmp_path: Path, interface: str, window: int, depth: int
) -> None:
    chip = write_chip(design, tmp_path, interface=interface)
    assert chip.window == window
    assert f".RX_DEPTH({depth})" in (chip.folder / "divqat_chip.sv").read_text()


@pytest.mark.parametrize(
    ("cycles", "window", "depth"),
    [
        (1_000, 23, 16),  # a line of 170 cycles a byte brings 5 bytes meanwhile, and some
        (6_000, 23, 64),
        (30_000, 15, 2048),  # slower than the line: 15 images of 135 bytes fill a block RAM
    ],
)
def test_a_slow_core_gets_a_buffer(
    design: Design, tmp_path: Path, cycles: int, window: int, depth: int
) -> None:
    image = Stream(lanes=1, bits=8, signed=False, beats=128)
    node = replace(design.nodes[0], input=image, cycles=cycles)
    slow = replace(design, input=image, nodes=(node,))
    chip = write_chip(slow, tmp_path, clock_mhz=50.0)
    assert chip.window == window
    assert f".RX_DEPTH({depth})" in (chip.folder / "divqat_chip.sv").read_text()


def test_constraints_name_every_port_and_what_they_are_worth(
    design: Design, tmp_path: Path
) -> None:
    for interface, ports in {"uart": ["uart_rx", "uart_tx"], "ft245": ["ft_data[7]"]}.items():
        chip = write_chip(design, tmp_path / interface, interface=interface)
        text = (chip.folder / chip.constraints).read_text()
        assert "not verified on hardware" in text
        sites = [line.split('"')[3] for line in text.splitlines() if line.startswith("LOCATE")]
        assert len(set(sites)) == len(sites)
        for port in ["clk_in", "led[0]", *ports]:
            assert f'LOCATE COMP "{port}"' in text


def test_a_gowin_board_gets_its_own_pins_clock_and_lights(design: Design, tmp_path: Path) -> None:
    chip = write_chip(design, tmp_path, board="tang-nano-20k", clock_mhz=66.0)
    assert (chip.clock_mhz, chip.constraints) == (66.0, "divqat_chip.cst")
    text = (chip.folder / chip.constraints).read_text()
    sites = dict(line[:-1].split('"')[1:] for line in text.splitlines() if "IO_LOC" in line)
    assert {port: site.strip() for port, site in sites.items()} == {
        "clk_in": "4",
        "uart_tx": "69",
        "uart_rx": "70",
        **{f"led[{i}]": str(15 + i) for i in range(6)},
    }
    assert "not verified on hardware" in text
    top = (chip.folder / "divqat_chip.sv").read_text()
    assert "output logic [5:0] led" in top
    assert "assign led = ~{" in top  # a 0 lights them
    assert "wifi_gpio0" not in top
    assert '.INPUT_MHZ("27")' in top
    assert "divqat_pll_gowin.sv" in chip.sources
    assert "divqat_pll.sv" not in chip.sources


def test_an_interface_without_pins_is_refused(design: Design, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tang-nano-20k has no pins for the interface ft245"):
        write_chip(design, tmp_path, board="tang-nano-20k", interface="ft245")


@pytest.mark.parametrize("name", ["ecp5-85f", "tang-nano-20k"])
def test_a_devices_board_is_of_its_family(name: str) -> None:
    device = open_target(name)
    assert BOARDS[device.board].family is device.family


def test_pins_of_another_family_are_refused(design: Design, tmp_path: Path) -> None:
    chip = write_chip(design, tmp_path / "chip").for_synthesis()
    with pytest.raises(InputError, match=r"not of tang-nano-20k, whose tools read \.cst"):
        build_bitstream(design, open_target("tang-nano-20k"), tmp_path / "bits", chip=chip)


def test_own_constraints_replace_the_boards(design: Design, tmp_path: Path) -> None:
    own = tmp_path / "own.lpf"
    own.write_text("# mine\n")
    chip = write_chip(design, tmp_path / "chip", pins=own)
    assert (chip.folder / chip.constraints).read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"interface": "usb"}, "unknown interface"),
        ({"board": "ulx4s"}, "did you mean"),
        ({"clock_mhz": 25.0, "baud": 3_000_000}, "baud"),
        ({"pins": Path("/nowhere/pins.lpf")}, "cannot read"),
    ],
)
def test_wrong_settings_are_refused(
    design: Design, tmp_path: Path, settings_: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_chip(design, tmp_path, **settings_)  # type: ignore[arg-type]


def test_no_chip_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no chip"):
        Chip.load(tmp_path)
    (tmp_path / "chip.json").write_text("{}")
    with pytest.raises(InputError, match="not of this version"):
        Chip.load(tmp_path)


@pytest.mark.slow  # the whole flow, once: yosys, nextpnr in WebAssembly, Apicula's packer
def test_a_small_chip_for_the_tang_nano_20k(tmp_path):
    device = open_target("tang-nano-20k")
    design = small_design(tmp_path / "design")
    chip = write_chip(design, tmp_path / "chip", board=device.board, clock_mhz=54.0)
    built = build_bitstream(design, device, tmp_path / "bits", chip=chip.for_synthesis())
    assert BitstreamReport.load(built.folder) == built
    assert built.bitstream.name == "chip.fs"
    # Apicula writes the frames as lines of zeros and ones, behind comments.
    lines = built.bitstream.read_text().split()
    assert sum(set(line) == {"0", "1"} for line in lines) > 1000
    assert (built.part, built.chip) == ("GW2AR-LV18QN88C8/I7", "uart, tang-nano-20k")
    assert built.fmax_mhz >= 54.0
    assert built.cells.lut <= built.comb
    assert sum(layer.cells.ff for layer in built.layers) == built.cells.ff <= built.placed_ff
    assert 0 < built.utilisation["lut"] < 0.1
    rows = hardware_rows(built, "tiny", cycles_per_image=100)
    assert [parse(HardwareRow, row, "row").stage for row in rows][-1] == "bitstream"
    assert rows[-1]["tool"].startswith("gowin_pack, nextpnr-himbaechel-gowin 0.")


def test_a_netlist_without_models_of_its_cells_is_refused(tmp_path):
    design = small_design(tmp_path / "design")
    report = stand_in(design, tmp_path / "bitstream", "tang-nano-20k")
    assert report.needed == ("netlist.v", "synth.json", "chip.fs")
    with pytest.raises(InputError, match="no models of the cells of tang-nano-20k"):
        NetlistEngine(design, report.folder)
