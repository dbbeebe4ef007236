"""The report stage on a real, tiny run: what it asks the victims, and the files it leaves."""

import base64
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import build

from divqat_brevitas.data import load
from fpga_flow import load_engine
from fpga_flow.cli import main
from fpga_flow.report import collect, write_figures

SETTINGS = {
    "run.threads": "1",
    "data.name": "digits",
    "train.variants": "float,qat,divqat",
    "train.float_epochs": "2",
    "train.quant_epochs": "1",
    "compile.variants": "qat",
    "attack.victims": "divqat",
    "attack.pools": "in,noise",
    "attack.oracles": "soft,top1",
    "attack.learners": "soft",
    "attack.defences": "none,rounding:1",
    "attack.budgets": "30",
    "attack.epochs": "1",
}


def divqat(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained, exported, attacked and reported; hardware is not asked for."""
    folder = tmp_path_factory.mktemp("stage") / "run"
    given = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    divqat("run", "--preset", "smoke", *given, "--out", str(folder), "--until", "export")
    for stage in ("attack", "report"):
        divqat(stage, str(folder))
    return folder


def test_the_victims_confusion_is_that_of_their_engine(finished_run: Path) -> None:
    results = collect(finished_run)
    labels = load("digits", "test")[1]
    victims = {
        row.victim: np.array(row.counts) for row in results.confusions if row.kind == "victim"
    }
    assert list(victims) == ["float", "qat", "divqat"]
    for counts in victims.values():
        assert (counts.sum(axis=1) == np.bincount(labels)).all()
    images = load("digits", "test")[0].astype(np.float32) / 255
    engine = load_engine(finished_run / "export" / "divqat.onnx", engine="integer")
    own = (engine.predict(images).argmax(axis=1) == labels).sum()
    assert victims["divqat"].trace() == own


def test_a_clones_confusion_gives_its_accuracy(finished_run: Path) -> None:
    results = collect(finished_run)
    clones = [row for row in results.confusions if row.kind == "clone"]
    assert [(row.victim, row.seed) for row in clones] == [("divqat", 0)] * 2, "a kind of queries"
    reached = {row.clone_accuracy for row in results.attacks}
    for row in clones:
        counts = np.array(row.counts)
        assert any(counts.trace() / counts.sum() == pytest.approx(r, abs=1e-12) for r in reached)


def test_examples_are_the_first_images_with_each_interfaces_answers(finished_run: Path) -> None:
    from PIL import Image

    results = collect(finished_run)
    images, labels = load("digits", "test")
    first = results.examples[0]
    assert (first.source, first.label) == ("test image 1", str(labels[0]))
    assert first.png is not None
    drawn = Image.open(BytesIO(base64.b64decode(first.png)))
    assert (np.asarray(drawn) == images[0, 0]).all()
    who = ["qat", "divqat", "divqat behind rounding:1", "divqat, label only"]
    for row in results.examples:
        assert [answer.who for answer in row.answers] == who
        for answer in row.answers:
            assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
        assert max(row.answers[3].probabilities) == 1
    sources = [row.source for row in results.examples]
    assert sources[3].endswith("on which qat and divqat differ most")
    assert [name.rpartition(" of ")[2] for name in sources[4:]] == ["noise"] * 3


def test_a_second_report_asks_nothing_again(finished_run: Path) -> None:
    file = finished_run / "report" / "evidence.json"
    before = file.stat().st_mtime_ns
    divqat("report", str(finished_run), "--set", "simulate.inputs=7")  # the page shows all settings
    assert "inputs = 7" in (finished_run / "config.toml").read_text()
    assert file.stat().st_mtime_ns == before


@pytest.mark.slow  # trains and attacks for its page
def test_figure_files_stand_alone_and_are_the_same_each_time(tmp_path: Path) -> None:
    from PIL import Image

    made = build(tmp_path / "run", attacked=False, finn=False)
    results = collect(made)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old.svg").write_text("of an earlier report")
    paths = write_figures(results, tmp_path / "a")
    assert sorted(paths) == sorted((tmp_path / "a").iterdir())
    again = write_figures(results, tmp_path / "b")
    for path, other in zip(paths, again, strict=True):
        assert path.read_bytes() == other.read_bytes()
    for path in paths:
        if path.suffix == ".svg":
            root = ET.fromstring(path.read_text(encoding="utf-8"))
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert Image.open(path).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
