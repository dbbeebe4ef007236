"""Logits on disk: the same answers, asked once, and every query counted."""

from pathlib import Path

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import CachedPredictor, Victim
from divqat_brevitas.extraction.defences import GaussianNoise


def test_the_same_answers_asked_once_over_all_runs(spy, images, tmp_path: Path) -> None:
    expected = spy.predict(images)
    spy.asked.clear()
    path = tmp_path / "new" / "answers.sqlite"
    first = CachedPredictor(spy, path, "model")
    assert np.array_equal(first.predict(images), expected)
    assert np.array_equal(first.predict(images[::-1]), expected[::-1])
    again = CachedPredictor(spy, path, "model")
    repeated = np.concatenate([images[:2], 1 - images[:1], images[:2], 1 - images[:1]])
    answers = again.predict(repeated)
    assert np.array_equal(answers[:2], expected[:2])
    assert np.array_equal(answers[2], answers[5])
    assert (first.asked, again.asked) == (len(images), 1)
    assert sum(len(batch) for batch in spy.asked) == len(images) + 1


def test_many_images_are_asked_in_chunks(spy, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((1203, 1, 8, 8), np.float32)
    cached = CachedPredictor(spy, tmp_path / "a.sqlite", "model")
    assert np.array_equal(cached.predict(images), cached.predict(images))
    assert [len(batch) for batch in spy.asked] == [500, 500, 203]


def test_the_cache_hides_no_query_and_no_defence(spy, images, tmp_path: Path) -> None:
    cached = CachedPredictor(spy, tmp_path / "a.sqlite", "model")
    victim = Victim(cached, budget=25, defence=GaussianNoise(0.3, seed=1))
    first, second = victim.query(images), victim.query(images)
    assert not np.array_equal(first, second)
    assert (victim.queries_used, victim.remaining) == (20, 5)
    assert [row.images for row in victim.ledger] == [10, 10]
    assert cached.asked == 10


def test_an_image_of_the_same_bytes_and_another_shape_is_another(spy, tmp_path: Path) -> None:
    cached = CachedPredictor(spy, tmp_path / "a.sqlite", "model")
    cached.predict(np.zeros((1, 1, 8, 8), np.float32))
    cached.predict(np.zeros((1, 1, 4, 16), np.float32))
    assert cached.asked == 2


def test_another_models_answers_are_refused(spy, images, tmp_path: Path) -> None:
    CachedPredictor(spy, tmp_path / "a.sqlite", "model").predict(images)
    with pytest.raises(InputError, match="another model"):
        CachedPredictor(spy, tmp_path / "a.sqlite", "other")


def test_a_damaged_file_is_refused_with_its_name(spy, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"a\.sqlite cannot be used"):
        CachedPredictor(spy, path, "model")
    with pytest.raises(InputError, match="cannot be used"):
        CachedPredictor(spy, tmp_path, "model")


def test_a_failing_model_leaves_nothing_behind(make_spy, images, tmp_path: Path) -> None:
    broken = make_spy(logits=np.full((10, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        CachedPredictor(broken, tmp_path / "a.sqlite", "model").predict(images)
    fine = make_spy(logits=np.ones((10, 3), np.float32))
    assert np.array_equal(
        CachedPredictor(fine, tmp_path / "a.sqlite", "model").predict(images),
        np.ones((10, 3), np.float32),
    )


def test_bad_images_are_refused(spy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float64"):
        CachedPredictor(spy, tmp_path / "a.sqlite", "model").predict(np.zeros((1, 1, 8, 8)))
