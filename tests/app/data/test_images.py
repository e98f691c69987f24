"""Images: arrays and folders of files, their scaling and its way back, and every folder that cannot be used."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxdiff import data
from jaxdiff.app.data.scales import PixelScale, pixel_scale

BYTES = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)


def everything(dataset):
    return np.concatenate([np.asarray(getattr(dataset, part)) for part in ("train", "held_out", "test")])


def as_rows(images):
    return sorted(map(tuple, images.reshape(len(images), -1).tolist()))


def test_bytes_become_minus_one_to_one_and_come_back_exactly():
    dataset = data.load(BYTES)
    assert (dataset.event_shape, dataset.dim, dataset.train.dtype) == ((4, 6, 3), 72, np.float32)
    assert [len(part) for part in (dataset.train, dataset.held_out, dataset.test)] == [27, 6, 7]
    rows = everything(dataset)
    assert rows.min() >= -1
    assert rows.max() <= 1
    restored = dataset.restore(rows)
    assert restored.dtype == np.uint8
    assert as_rows(restored) == as_rows(BYTES)
    ends = data.load(np.where(BYTES > 127, 255, 0).astype(np.uint8))
    assert set(np.unique(everything(ends))) == {-1.0, 1.0}


def test_whole_numbers_are_rounded_and_clipped_and_floats_are_not():
    whole = PixelScale(0.0, 255.0, "uint8", False)
    np.testing.assert_array_equal(whole.undo([-1.3, -1.0, 0.0, 0.002, 1.0, 1.7]), [0, 0, 128, 128, 255, 255])
    floats = PixelScale(0.0, 1.0, "float32", True)
    np.testing.assert_allclose(floats.undo([[-1.5], [0.0], [3.0]]), [-0.25, 0.5, 2.0])


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0.0, 1.0, (0, 1)), (-0.9, 1.0, (-1, 1)), (3.0, 250.0, (0, 255)), (0.0, 16.0, (0, 16)), (0.0, 0.2, (0, 0.2))],
)
def test_the_range_of_floats_is_found_and_recorded(low, high, want):
    scale = pixel_scale("x", low, high, np.dtype(np.float64), channel_added=True)
    assert (scale.low, scale.high) == want
    assert PixelScale.from_record(json.loads(json.dumps(scale.record()))) == scale
    x = np.linspace(low, high, 24).reshape(2, 3, 4)
    np.testing.assert_allclose(scale.undo(scale.apply(x)), x, atol=1e-6 * max(1, high))


@pytest.mark.parametrize(
    "change", [{"low": 2.0}, {"high": np.inf}, {"dtype": "bytes of a kind"}, {"low": None}, {"high": np.nan}]
)
def test_a_damaged_record_is_refused(change):
    record = PixelScale(0.0, 1.0, "uint8", False).record() | change
    with pytest.raises(ValueError, match="pixels"):
        PixelScale.from_record(record)


def test_grey_images_get_a_channel_and_lose_it_again():
    grey = BYTES[..., 0]
    dataset = data.load(grey)
    assert dataset.event_shape == (4, 6, 1)
    assert as_rows(dataset.restore(everything(dataset))) == as_rows(grey)


def write(folder, images, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03}.{ending}")


def test_subfolders_are_the_labels_by_sorted_name(tmp_path):
    write(tmp_path / "x" / "zebra", BYTES[:18])
    write(tmp_path / "x" / "ant", BYTES[18:])
    (tmp_path / "x" / "ant" / "notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match=r"1 file.*left out, first notes\.txt"):
        dataset = data.load(tmp_path / "x")
    labels = dataset.labels
    assert labels.names == ("ant", "zebra")
    pixels = dataset.restore(everything(dataset))
    own = {image.tobytes(): int(i < 18) for i, image in enumerate(BYTES)}
    every = np.concatenate([labels.train, labels.held_out, labels.test])
    assert every.dtype == np.int32
    assert [own[image.tobytes()] for image in pixels] == every.tolist()


def test_a_folder_of_grey_jpegs_needs_no_labels(tmp_path):
    write(tmp_path / "x", BYTES[..., 0], "jpeg")
    dataset = data.load(tmp_path / "x")
    assert dataset.event_shape == (4, 6, 1)
    assert dataset.labels is None


def mixed_sizes(folder):
    write(folder, BYTES)
    Image.fromarray(BYTES[0, :3]).save(folder / "odd.png")


def mixed_modes(folder):
    write(folder, BYTES)
    Image.fromarray(BYTES[0, ..., 0]).save(folder / "odd.png")


def palette(folder):
    folder.mkdir()
    Image.fromarray(BYTES[0]).convert("P").save(folder / "odd.png")


def truncated(folder):
    write(folder, np.kron(BYTES, np.ones((1, 9, 9, 1), np.uint8)))
    content = (folder / "007.png").read_bytes()
    (folder / "007.png").write_bytes(content[: len(content) // 2])


def text(folder):
    write(folder, BYTES)
    (folder / "007.png").write_text("no image")


def both(folder):
    write(folder, BYTES)
    write(folder / "cats", BYTES)


def lonely(folder):
    write(folder / "cats", BYTES)
    write(folder / "dogs", BYTES[:1])


BAD = {
    "empty": (lambda folder: folder.mkdir(), r"has no \.png"),
    "sizes": (mixed_sizes, r"000\.png is 6x4 pixels and .*odd\.png is 6x3.*one size"),
    "modes": (mixed_modes, r"000\.png has mode RGB and .*odd\.png has mode L: convert"),
    "palette": (palette, r"odd\.png has mode P.*convert\('RGB'\)"),
    "truncated": (truncated, r"007\.png is no readable image \(.*replace or remove"),
    "text": (text, r"007\.png is no readable image"),
    "both": (both, r"has images, such as 000\.png, and subfolders with images, such as cats"),
    "one row": (lonely, "class 'dogs' has one row, row 40"),
    "few": (lambda folder: write(folder, BYTES[:5]), "has 5 rows"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "x") in str(caught.value)
