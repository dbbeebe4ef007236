import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_sets import random_set
from PIL import Image, ImageFont

from divqat_brevitas.data import POOLS, QueryPool, load, query_pool
from divqat_brevitas.data.cache import staging, store
from divqat_brevitas.data.drawings import letters
from divqat_brevitas.data.pools import check_unseen, fit, places
from divqat_brevitas.errors import InputError, ToolMissingError

MADE = ["letters", "photos", "noise"]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(
    ("dataset", "shape"),
    [("digits", (1, 8, 8)), ("mnist5k", (1, 28, 28)), ("cifar10", (3, 32, 32))],
)
def test_pools_in_every_shape(name: str, dataset: str, shape: tuple[int, int, int]) -> None:
    pool = query_pool(name, dataset, 60, seed=1)
    assert (pool.name, pool.kind) == (name, POOLS[name])
    assert pool.images.shape == (60, *shape)
    assert pool.images.dtype == np.uint8
    assert pool.images.flags.c_contiguous
    assert len({image.tobytes() for image in pool.images}) == 60, "images repeat"
    assert (pool.images.std(axis=(1, 2, 3)) > 5).mean() > 0.9, "images are blank"


@pytest.mark.parametrize("name", [*MADE, "in"])
def test_a_pool_is_fixed_by_its_seed_and_grows_from_its_beginning(name: str) -> None:
    first, again, other = (query_pool(name, "digits", 40, seed).images for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(query_pool(name, "digits", 15, 3).images, first[:15])


def test_the_noise_pool_grows_over_a_chunk() -> None:
    long = query_pool("noise", "digits", 300, 0).images
    assert np.array_equal(query_pool("noise", "digits", 257, 0).images, long[:257])


def test_in_is_the_pool_split_and_no_more() -> None:
    pool = query_pool("in", "digits", 200, seed=0)
    assert pool.kind == "in"
    held, _ = load("digits", "pool")
    assert sorted(i.tobytes() for i in pool.images) == sorted(i.tobytes() for i in held)
    with pytest.raises(InputError, match="'in' has 200 images, 201 were asked for"):
        query_pool("in", "digits", 201, seed=0)


def test_grey_letters_are_mostly_light_on_black() -> None:
    images = query_pool("letters", "mnist5k", 400, seed=0).images
    corners = images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    black = (corners == 0).all(axis=1)
    white = (corners == 255).all(axis=1)
    assert black.sum() > 300
    assert white.sum() > 10
    assert images[black].max(axis=(1, 2, 3)).min() > 60


def test_another_set_is_fitted_and_keeps_its_test_images_out() -> None:
    pool = query_pool("dataset:digits", "cifar10", 1397, seed=0)
    assert pool.kind == "out"
    assert pool.images.shape == (1397, 3, 32, 32)
    with pytest.raises(InputError, match="has 1397 images"):
        query_pool("dataset:digits", "cifar10", 1398, seed=0)


def test_the_other_classes_are_a_pool_but_shared_ones_are_not() -> None:
    pool = query_pool("dataset:digits:5-9", "digits:0-4", 50, seed=0)
    known = {i.tobytes() for split in ("train", "test") for i in load("digits:0-4", split)[0]}
    assert not known & {i.tobytes() for i in pool.images}
    for other, victim in (("digits:4-9", "digits:0-4"), ("mnist5k", "mnist"), ("mnist", "mnist")):
        with pytest.raises(InputError, match="shares images"):
            query_pool(f"dataset:{other}", victim, 5, seed=0)


def test_own_photos(tmp_path: Path) -> None:
    images, _ = random_set(2, (3, 50, 70), 1)
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    pool = query_pool(f"photos:{tmp_path}", "cifar10", 30, seed=0)
    assert pool.images.shape == (30, 3, 32, 32)
    assert len({i.tobytes() for i in pool.images}) > 20
    (tmp_path / "bad.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.jpg cannot be read"):
        query_pool(f"photos:{tmp_path}", "cifar10", 3, seed=0)
    with pytest.raises(InputError, match="holds no pictures"):
        query_pool(f"photos:{tmp_path}/none", "cifar10", 3, seed=0)


def test_photos_smaller_than_a_patch_or_flat_still_give_patches(tmp_path: Path) -> None:
    Image.new("RGB", (5, 9), (10, 20, 30)).save(tmp_path / "small.png")
    images = query_pool(f"photos:{tmp_path}", "cifar10", 3, seed=0).images
    assert np.array_equal(images[:, :, 0, 0], np.tile([10, 20, 30], (3, 1)))


def test_fetched_material(tmp_path: Path) -> None:
    for name in ("wallpapers", "fonts"):
        with pytest.raises(InputError, match=f"divqat data fetch {name}"):
            query_pool(name, "digits", 3, seed=0, root=tmp_path)
    picture = tmp_path / "p.jpg"
    Image.fromarray(random_set(1, (3, 80, 90), 1)[0][0].transpose(1, 2, 0)).save(picture)
    with staging(tmp_path, "wallpapers") as work:
        store(tmp_path, "wallpapers", {"p.jpg": picture.read_bytes()}, work)
    pool = query_pool("wallpapers", "mnist5k", 9, seed=0, root=tmp_path)
    assert pool.images.shape == (9, 1, 28, 28)
    (tmp_path / "wallpapers/p.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="divqat data fetch wallpapers"):
        query_pool("wallpapers", "mnist5k", 9, seed=0, root=tmp_path)


def store_emoji(root: Path, plain: int, tones: int) -> np.ndarray:
    """Flat drawings of as many colours; the last row of pixels is transparent."""
    shades = np.random.default_rng(0).permutation(plain + tones).astype(np.uint8)
    pictures = np.full((plain + tones, 64, 64, 4), 255, dtype=np.uint8)
    pictures[..., 0] = shades[:, None, None]
    pictures[:, -1, :, 3] = 0
    content = {"google-plain.npy": pictures[:plain], "google-tones.npy": pictures[plain:]}
    with staging(root, "emoji") as work:
        store(root, "emoji", content, work)
    return shades


def test_emoji_come_once_each_before_any_comes_again(tmp_path: Path) -> None:
    shades = store_emoji(tmp_path, plain=20, tones=30)
    pool = query_pool("emoji", "cifar10", 120, seed=1, root=tmp_path)
    assert (pool.kind, pool.relation, pool.images.shape) == ("out", "foreign", (120, 3, 32, 32))
    red = pool.images[:, 0, 16, 16]  # the middle is always drawing, never paper
    assert sorted(red[:20]) == sorted(shades[:20])
    assert sorted(red[20:50]) == sorted(shades[20:])
    assert sorted(red[50:70]) == sorted(shades[:20])
    assert red[:20].tolist() != red[50:70].tolist()
    assert len({image.tobytes() for image in pool.images}) == 120
    again = query_pool("emoji", "cifar10", 33, seed=1, root=tmp_path).images
    assert np.array_equal(again, pool.images[:33])
    assert query_pool("emoji", "digits", 3, seed=1, root=tmp_path).images.shape == (3, 1, 8, 8)
    with pytest.raises(InputError, match="divqat data fetch emoji"):
        query_pool("emoji", "cifar10", 3, seed=1, root=tmp_path / "none")


def test_more_photos(tmp_path: Path) -> None:
    for name, value in (("wallpapers", 40), ("landscapes", 200)):
        picture = tmp_path / f"{name}.png"
        Image.new("RGB", (90, 80), (value, 0, 0)).save(picture)
        with staging(tmp_path, name) as work:
            store(tmp_path, name, {"p.png": picture.read_bytes()}, work)
    red = query_pool("photos+", "cifar10", 40, seed=0, root=tmp_path).images[:, 0]
    assert set(np.unique(red)) == {40, 200}


def test_a_pool_that_a_victim_was_trained_on_is_no_test() -> None:
    for trained, pool in (("wallpapers", "backgrounds"), ("dataset:mnist", "fonts")):
        check_unseen(trained, pool)
    with pytest.raises(InputError, match=r"shares \(in, landscapes\)"):
        check_unseen("mix:in:0.1,photos+", "mix:in:0.2,backgrounds")
    check_unseen("backgrounds", "emoji")
    with pytest.raises(InputError, match=r"'mix:in:0.1,photos\+' shares \(landscapes\)"):
        check_unseen("backgrounds", "mix:in:0.1,photos+")


def test_relations_are_finer_than_kinds() -> None:
    asked = {"in": "same", "letters": "foreign", "noise": "none", "dataset:mnist5k:0-4": "foreign"}
    for name, relation in asked.items():
        assert query_pool(name, "digits:0-4", 5, seed=0).relation == relation
    pool = query_pool("dataset:digits:5-9", "digits:0-4", 5, seed=0)
    assert (pool.kind, pool.relation) == ("out", "disjoint")
    assert QueryPool("mine", "in", pool.images).relation == "same"


def test_a_mixture_scatters_its_share() -> None:
    pool = query_pool("mix:in:0.05,letters", "digits", 1000, seed=3)
    assert (pool.kind, pool.relation) == ("in", "mixed")
    inside = query_pool("in", "digits", 50, seed=3).images
    outside = query_pool("letters", "digits", 950, seed=3).images
    place = {image.tobytes(): i for i, image in enumerate(pool.images)}
    at = [place[image.tobytes()] for image in inside]
    assert [p // 20 for p in at] == list(range(50)), "one in every 20"
    assert len({p % 20 for p in at}) > 10, "at random places"
    assert np.array_equal(np.delete(pool.images, at, axis=0), outside)
    assert np.array_equal(
        query_pool("mix:in:0.05,letters", "digits", 77, 3).images, pool.images[:77]
    )


@pytest.mark.parametrize("share", [0.003, 0.3, 0.5, 0.77, 0.999])
def test_any_beginning_of_a_mixture_holds_its_share(share: float) -> None:
    mask = places(500, share, seed=0)
    held = np.cumsum(mask) - share * np.arange(1, 501)
    assert abs(held).max() <= 1
    assert np.array_equal(places(123, share, seed=0), mask[:123])


def test_mixtures_of_mixtures_and_kinds() -> None:
    three = query_pool("mix:in:0.1,mix:letters:0.5,noise", "digits", 60, seed=0)
    assert (len(three.images), three.kind) == (60, "in")
    assert query_pool("mix:letters:.2,noise", "digits", 9, seed=0).kind == "out"
    assert query_pool("mix:noise:0.9,dataset:mnist5k:0,1", "digits", 9, seed=0).kind == "out"
    assert query_pool("mix:in:0.5,noise", "digits", 1, seed=0).images.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "name", ["mix:", "mix:in,noise", "mix:in:1.5,noise", "mix:in:0.0,noise", "mix:in:0.5,in"]
)
def test_what_is_no_mixture_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Write mix:POOL:SHARE,POOL"):
        query_pool(name, "digits", 5, seed=0)


def test_the_pools_of_a_mixture_are_checked() -> None:
    with pytest.raises(InputError, match="did you mean 'letters'"):
        query_pool("mix:in:0.05,leters", "digits", 1, seed=0)
    with pytest.raises(InputError, match="'in' has 200 images, 250 were asked for"):
        query_pool("mix:in:0.5,noise", "digits", 500, seed=0)


def test_fonts_that_cannot_draw_letters(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    with pytest.raises(InputError, match="none of the 1 font files"):
        letters(3, (1, 28, 28), 0, [tmp_path / "broken.ttf"])
    good = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    shutil.copy(good, tmp_path / "good.ttf")
    images = letters(3, (1, 28, 28), 0, [tmp_path / "broken.ttf", tmp_path / "good.ttf"])
    assert images.any(axis=(1, 2, 3)).all()


def test_letters_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert isinstance(ImageFont.load_default(20), ImageFont.FreeTypeFont)
    assert letters(5, (1, 28, 28), 0).any(axis=(1, 2, 3)).all()


def test_bad_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean 'letters'"):
        query_pool("leters", "digits", 5, 0)
    with pytest.raises(InputError, match="count >= 1"):
        query_pool("noise", "digits", 0, 0)
    with pytest.raises(InputError, match="unknown data set"):
        query_pool("noise", "digit", 5, 0)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ToolMissingError, match="PIL"):
        query_pool("letters", "digits", 5, 0)


def test_fit_leaves_a_fitting_image_alone_and_averages_colour() -> None:
    images, _ = random_set(4, (3, 32, 32), 1)
    assert np.array_equal(fit(images, (3, 32, 32)), images)
    grey = np.full((2, 3, 16, 16), 90, dtype=np.uint8)
    assert np.array_equal(fit(grey, (1, 8, 8)), np.full((2, 1, 8, 8), 90))
    assert np.array_equal(fit(grey[:, :1], (3, 16, 16)), grey)
