import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import write_text
from fpga_flow.pipeline.resolve import resolve, to_toml
from fpga_flow.pipeline.rundir import RunDirectory, StageRecord, versions


def test_the_lock_is_released_after_an_error(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock():
        assert run.records() == {}


def test_the_next_owner_sweeps_what_a_killed_process_left(tmp_path):
    keep = [
        tmp_path / "train" / "a.txt",
        tmp_path / ".tasks" / "train" / "a.json",
        tmp_path / "train" / ".gitignore",
        tmp_path / "train" / ".git" / "config",
        tmp_path / "notes" / ".a.txt.x1_b2c3d.txt",
        tmp_path / ".config.toml.swp",
    ]
    leave = [
        tmp_path / "train" / ".a.txt.x1_b2c3d.txt",
        tmp_path / "compile" / ".qat.building" / "deep" / "b.v",
        tmp_path / "compile" / ".qat.0123abcd" / "deep" / "b.v",
        tmp_path / ".manifest.json.x1_b2c3d.json",
        tmp_path / ".tasks" / "train" / ".a.json.x1_b2c3d.json",
    ]
    for file in keep + leave:
        write_text(file, "x")
    with RunDirectory(tmp_path).lock():
        assert [file for file in keep + leave if file.exists()] == keep


def test_in_a_folder_without_a_run_nothing_is_swept(tmp_path):
    theirs = [tmp_path / "report" / ".a.txt.x1_b2c3d.txt", tmp_path / "src" / ".git" / "config"]
    for file in theirs:
        write_text(file, "x")
    with RunDirectory(tmp_path).lock():
        assert all(file.exists() for file in theirs)


def test_somebody_elses_settings_are_not_overwritten(tmp_path):
    run = RunDirectory(tmp_path)
    config = resolve(preset="smoke")
    for theirs in ("[tool]\nx = 1\n", '# my notes\n[run]\nname = "mine"\n'):
        run.config_file.write_text(theirs)
        with pytest.raises(InputError, match=r"holds other settings.*Move it away"):
            run.save_config(config)
        assert run.config_file.read_text() == theirs
    run.config_file.write_text(same := "# smoke, by hand\n" + to_toml(config))
    run.save_config(config)
    assert run.config_file.read_text() == same
    # A run that was killed before its manifest was written goes on, whatever its settings.
    run.config_file.write_text(to_toml(config))
    run.save_config(resolve(preset="demo"))
    assert run.config() == resolve(preset="demo")


def test_records_are_kept_beside_each_other(tmp_path):
    run = RunDirectory(tmp_path)
    first = StageRecord("done", {"[train]": "1"}, {"train/a": "2"}, versions(), 1.5)
    second = StageRecord("missing-tool", {}, reason="no finn")
    run.write_record("train", first)
    run.write_record("compile", second)
    assert run.records() == {"train": first, "compile": second}
    assert run.record("attack") is None
    assert "numpy" in first.versions


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"stages": {"train": {"status": "finished"}}}', '{"stages": 3}', "\x00"]
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    run = RunDirectory(tmp_path)
    run.manifest_file.write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json.*Delete it"):
        run.records()


def test_damage_names_the_file(tmp_path):
    run = RunDirectory(tmp_path)
    write_text(tmp_path / "train" / "sub" / "a", "1")
    write_text(tmp_path / "train" / "b", "2")
    made = run.hashes({"train"})
    assert list(made) == ["train/b", "train/sub/a"]
    assert run.damage(made) == ""
    (tmp_path / "train" / "b").write_text("3")
    assert run.damage(made) == "train/b was changed"
    (tmp_path / "train" / "b").unlink()
    assert run.damage(made) == "train/b is gone"


def test_settings_are_saved_whole(tmp_path):
    run = RunDirectory(tmp_path / "new" / "run")
    config = resolve(preset="smoke")
    run.save_config(config)
    assert run.config() == config
    assert RunDirectory.existing(run.path).config() == config
    with pytest.raises(InputError, match=r"no config\.toml.*divqat run"):
        RunDirectory.existing(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to the run directory .*--out"):
        RunDirectory(tmp_path / "file" / "run").lock().__enter__()
