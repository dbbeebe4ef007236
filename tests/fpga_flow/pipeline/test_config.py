import json
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from engine_models import small_network
from hypothesis import given
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from fpga_flow.console import Progress
from fpga_flow.pipeline.config import CompileSection, Config
from fpga_flow.pipeline.resolve import presets, resolve, to_toml
from fpga_flow.pipeline.stages import compile as stage
from fpga_flow.pipeline.stages import hardware
from fpga_flow.pipeline.sweep_grid import read_sweep
from fpga_flow.serve.limits import read_clients

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4, unique=True)
NAMES = st.lists(NAME, min_size=1, max_size=3, unique=True)


def write(folder: Path, text: str) -> Path:
    file = folder / "my.toml"
    file.write_text(text, encoding="utf-8")
    return file


@st.composite
def configs(draw: st.DrawFn) -> Config:
    values = {
        "run": {"seeds": draw(SEEDS)},
        "data": {"name": draw(NAME)},
        "model": {
            "first_bits": draw(st.sampled_from([None, 2, 8])),
            "per_channel": draw(st.booleans()),
        },
        "train": {
            "learning_rate": draw(POSITIVE),
            "augment": draw(st.sampled_from(["none", "shift"])),
        },
        "divqat": {"weight": draw(st.none() | POSITIVE), "cap": draw(st.none() | POSITIVE)},
        "attack": {"pools": draw(NAMES), "seeds": draw(SEEDS)},
        "compile": {"target": draw(NAME), "target_fps": draw(st.integers(1, 10**9))},
    }
    return Config.model_validate_json(json.dumps(values))


@given(configs())
def test_saved_settings_read_back_equal(tmp_path_factory, config):
    file = write(tmp_path_factory.mktemp("config"), to_toml(config))
    assert resolve(file) == config


@pytest.mark.parametrize("preset", presets())
def test_presets_are_valid_and_read_back_equal(tmp_path, preset):
    config = resolve(preset=preset)
    assert config.run.name == preset
    assert resolve(write(tmp_path, to_toml(config))) == config


def test_every_key_is_saved_except_none(tmp_path):
    config = resolve(overrides=["divqat.cap=2"])
    saved = tomllib.loads(to_toml(config))
    dump = config.model_dump(mode="json", exclude_none=True)
    assert saved == dump
    assert saved["divqat"] == {"preset": "nasty", "cap": 2.0, "guard": 0.02}


def test_later_layers_win(tmp_path):
    file = write(tmp_path, "[train]\nfloat_epochs = 7\nquant_epochs = 8\n")
    config = resolve(file, "smoke", ["train.quant_epochs=9"])
    assert (config.train.float_epochs, config.train.quant_epochs) == (7, 9)
    assert config.attack.budgets == (100,)  # from the preset


def test_overrides_need_no_quotes_and_take_lists():
    config = resolve(
        overrides=[
            "data.name=cifar10:0-4",
            "attack.oracles=soft, top1",
            "run.seeds=3",
            "attack.budgets=[10, 20]",
            "model.power_of_two=true",
            "divqat.weight=0.5",
        ]
    )
    assert config.data.name == "cifar10:0-4"
    assert config.attack.oracles == ("soft", "top1")
    assert config.run.seeds == (3,)
    assert config.attack.budgets == (10, 20)
    assert config.model.power_of_two is True
    assert config.divqat.weight == 0.5


def test_none_takes_an_optional_setting_back(tmp_path):
    file = write(tmp_path, "[divqat]\ncap = 5.0\n")
    assert resolve(file).divqat.cap == 5.0
    assert resolve(file, None, ["divqat.cap=none"]).divqat.cap is None


def test_a_relative_path_is_meant_from_its_file(tmp_path, monkeypatch):
    file = write(tmp_path, '[compile]\nfolding = "folding.json"\n')
    monkeypatch.chdir(tmp_path.parent)
    assert resolve(file).compile.folding == tmp_path / "folding.json"
    assert resolve(overrides=["data.root=here"]).data.root == tmp_path.parent / "here"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[trian]\nx = 1", ["section 'trian'", "'train'"]),
        ("[train]\nbatch_sise = 1", ["[train]", "'batch_sise'", "did you mean 'batch_size'"]),
        ("[train]\nbudgets = [1]", ["[train] has no key 'budgets'", "[attack]"]),
        ("float_epochs = 1", ["'float_epochs' belongs below [train]"]),
        ("train = 1", ["[train]", "table"]),
        ("[train]\nvariants = ['qat', 'divqta']", ["train.variants", "did you mean 'divqat'"]),
        ("[divqat]\norder = 'foward'", ["divqat.order", "did you mean 'forward'"]),
        ("[train]\nbatch_size = '8'", ["train.batch_size = '8'", "integer"]),
        ("[train]\nbatch_size = 0", ["train.batch_size = 0", "greater than 0"]),
        ("[train]\nbatch_size = true", ["train.batch_size", "integer"]),
        ("[train]\nlearning_rate = nan", ["train.learning_rate", "finite"]),
        ("[train]\nlearning_rate = 1979-05-27", ["train.learning_rate", "number"]),
        ("[model]\nbits = 'w5a4'", ["model.bits = 'w5a4'"]),
        ("[model]\nfirst_bits = 5", ["model.first_bits", "Known: 2, 3, 4, 8"]),
        ("[run]\nseeds = [1, 1]", ["run.seeds", "twice"]),
        ("[run]\nname = '../x'", ["run.name"]),
        ("[attack]\nbudgets = [0]", ["attack.budgets", "greater than 0"]),
        ("[attack]\npools = []", ["attack.pools", "at least 1"]),
        ("[attack]\nseeds = [-1]", ["attack.seeds"]),
        ("[train\n", ["not valid TOML", "line 1"]),
    ],
)
def test_a_mistake_names_file_key_and_remedy(tmp_path, text, parts):
    file = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        resolve(file)
    for part in ["my.toml", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_is_no_key(tmp_path, mark):
    assert resolve(write(tmp_path, f"{mark}[run]\nname = 'x'\n")).run.name == "x"
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f"{mark}preset = 'smoke'\n[[task]]\nmodel.bits = 'w2a2'\n", encoding="utf-8")
    assert [task.config.run.threads for task in read_sweep(sweep)] == [1]
    clients = tmp_path / "clients.toml"
    clients.write_text(f"{mark}[red]\ntoken = '0123456789abcdef'\n", encoding="utf-8")
    assert [client.name for client in read_clients(clients)] == ["red"]
    folding = tmp_path / "folding.json"
    folding.write_text(f"{mark}{{}}", encoding="utf-8")
    assert read_json(folding) == {}


def test_victims_must_be_trained():
    with pytest.raises(InputError, match=r"attack\.victims has 'qat'.*train\.variants"):
        resolve(overrides=["train.variants=float", "attack.victims=qat"])


@pytest.mark.parametrize("override", ["train.batch_size", "batch_size=3", "=3", "train.=3"])
def test_an_override_has_a_section_and_a_value(override):
    with pytest.raises(InputError, match=r"section\.key=value"):
        resolve(overrides=[override])


def test_the_override_itself_is_named():
    with pytest.raises(InputError, match=r"--set train\.batch_size=x"):
        resolve(preset="smoke", overrides=["train.batch_size=x"])


def test_missing_file_folder_and_preset(tmp_path):
    with pytest.raises(InputError, match=r"no settings file .*nowhere\.toml.*smoke"):
        resolve(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match=r"is a folder.*--out"):
        resolve(tmp_path)
    with pytest.raises(InputError, match="did you mean 'smoke'"):
        resolve(preset="smok")
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"b\.toml"):
        resolve(binary)


@given(st.text(max_size=40))
def test_no_text_as_override_is_a_crash(text):
    for prefix in ("", "train.", "attack.oracles=", "data.name="):
        with suppress(InputError):
            assert isinstance(resolve(overrides=[prefix + text]), Config)


def test_fingerprint_sees_its_part_alone():
    plain = resolve()
    named = resolve(overrides=["run.name=other"])
    seeded = resolve(overrides=["run.seeds=1"])
    assert plain.fingerprint("run.seeds") == named.fingerprint("run.seeds")
    assert plain.fingerprint("run.seeds") != seeded.fingerprint("run.seeds")
    assert plain.fingerprint("train") == seeded.fingerprint("train")


@pytest.mark.parametrize(
    "answer", ["logits", "top1", "topk:3", "rounded:1", "posterior:8", "gated:9:4"]
)
def test_answers_that_can_be_had(answer: str) -> None:
    config = resolve(preset="smoke", overrides=[f"compile.answer={answer}"])
    assert config.compile.answer == answer
    stage.check(config)


@pytest.mark.parametrize(
    "answer", ["label", "topk", "topk:0", "rounded:9", "rounded:", "top1:2", "gated:x"]
)
def test_others_are_refused_by_name(answer: str) -> None:
    with pytest.raises(InputError, match=r"compile\.answer.*rounded:BITS or posterior:BITS"):
        resolve(overrides=[f"compile.answer={answer}"])


def test_what_cannot_be_built_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more classes than the 10"):
        stage.check(resolve(preset="smoke", overrides=["compile.answer=topk:11"]))
    with pytest.raises(InputError, match="classes 0 to 9 only"):
        stage.check(resolve(preset="smoke", overrides=["compile.answer=gated:10"]))
    keyed = ["compile.answer=reject:keyed", "divqat.preset=reject", "train.variants=qat,divqat"]
    with pytest.raises(InputError, match=r"qat has none. Compile only divqat"):
        stage.check(resolve(preset="smoke", overrides=keyed))
    stage.check(resolve(preset="smoke", overrides=[*keyed, "compile.variants=divqat"]))
    (empty := tmp_path / "key").touch()
    for file, fault in ((empty, "is empty"), (tmp_path / "none", "cannot read")):
        with pytest.raises(InputError, match=f"compile.answer_key.*{fault}|{fault}.*answer_key"):
            stage.check(resolve(preset="smoke", overrides=[*keyed, f"compile.answer_key={file}"]))
    vendor = ["compile.answer=top1", "compile.target=pynq-z1"]
    with pytest.raises(InputError, match="for devices of the open flow"):
        stage.check(resolve(preset="smoke", overrides=vendor))


def test_a_file_alone_has_no_images_to_choose_a_step_from(tmp_path: Path) -> None:
    onnx = small_network(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="needs calibration images"):
        hardware.build_all(
            onnx, tmp_path / "out", CompileSection(answer="rounded:3"), Progress(sys.stderr)
        )
    assert not (tmp_path / "out").exists()
