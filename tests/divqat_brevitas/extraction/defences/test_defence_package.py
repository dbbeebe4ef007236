from divqat_brevitas.extraction import defences


def test_public_names_exist_and_are_sorted() -> None:
    assert all(hasattr(defences, name) for name in defences.__all__)
    assert defences.__all__ == sorted(defences.__all__, key=lambda n: (not n.isupper(), n))
