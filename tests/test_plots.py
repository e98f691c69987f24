"""The pictures: files of the right size that show what they are given."""

import numpy as np
import pytest
from matplotlib import image

from jaxdiff import plots
from jaxdiff.curves import measured_curve
from jaxdiff.grids import exponential_then_uniform, log_snr

BLUE = np.array([0x1F, 0x4E, 0x79]) / 255


@pytest.fixture(scope="module")
def curve():
    """The mmse of N(0, I) in three dimensions, V = 3/(1 + snr), as if measured: a 95 % band of +-20 %."""
    u = np.linspace(-10.0, 6.0, 81)
    losses = 3 * np.exp(u) / (1 + np.exp(u))
    return measured_curve(u, fifty_rows(losses, 0.1), dim=3)


def fifty_rows(losses, error):
    """Rows whose mean is (losses, losses), with a relative standard error of the mean."""
    spread = np.where(np.arange(50) % 2, 1, -1) * error * np.sqrt(49)
    return np.concatenate([losses * (1 + spread[:, None]), np.tile(losses, (50, 1))], axis=1)


def read(path, inches):
    """The pixels, once the file is a PNG of this size at 130 dots an inch."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[:2] == (round(inches[1] * 130), round(inches[0] * 130))
    return pixels


def close_to(colour, pixels):
    """How many pixels have the hue of a colour, at any opacity on white."""
    ink, given = 1 - colour, 1 - pixels
    opacity = (given @ ink) / (ink @ ink)
    return int(((opacity > 0.3) & (np.abs(given - opacity[..., None] * ink).max(-1) < 0.02)).sum())


def halves(pixels):
    middle = pixels.shape[1] // 2
    return pixels[:, :middle], pixels[:, middle:]


def test_images_are_shown_generated_left_and_real_right(tmp_path):
    real = np.tile(np.linspace(0.0, 16.0, 16), (30, 1))
    plots.samples(tmp_path / "full.png", np.full((100, 16), 16.0), real, image_shape=(4, 4))
    plots.samples(tmp_path / "empty.png", np.zeros((100, 16)), real, image_shape=(4, 4))
    full, empty = (halves(read(tmp_path / name, (9.2, 4.9))) for name in ("full.png", "empty.png"))
    assert empty[0].mean() > 0.97
    assert full[0].mean() < empty[0].mean() - 0.3
    assert 0.2 < full[1].mean() < 0.9
    assert np.array_equal(full[1], empty[1])


def test_images_need_not_be_square_nor_many(tmp_path):
    rows = np.random.default_rng(0).uniform(size=(2, 6))
    plots.samples(tmp_path / "few.png", rows[:1], rows, image_shape=(2, 3))
    assert halves(read(tmp_path / "few.png", (9.2, 4.9)))[0].min() < 0.1


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_tables_of_any_width_are_shown_as_points_on_the_axes_of_the_real_rows(tmp_path, dim):
    rows = np.random.default_rng(0).normal(size=(300, dim)) @ np.triu(np.ones((dim, dim)))
    plots.samples(tmp_path / "near.png", rows + 0.1, rows)
    plots.samples(tmp_path / "far.png", rows + 1000.0, rows)
    near, far = (halves(read(tmp_path / name, (9.2, 4.9))) for name in ("near.png", "far.png"))
    assert min(close_to(BLUE, half) for half in near) > 500
    assert close_to(BLUE, far[0]) == 0
    assert close_to(BLUE, far[1]) > 500


@pytest.mark.parametrize("dim", [2, 3])
def test_a_table_with_a_constant_column_is_shown_without_a_warning(tmp_path, dim):
    rows = np.random.default_rng(1).normal(size=(200, dim))
    rows[:, 1] = 7.0
    plots.samples(tmp_path / "constant.png", rows, rows)
    assert min(close_to(BLUE, half) for half in halves(read(tmp_path / "constant.png", (9.2, 4.9)))) > 100


def test_the_loss_curve_is_drawn_with_its_band(tmp_path, curve):
    plots.loss_curve(tmp_path / "loss.png", curve, train_variance=3.0)
    exact = measured_curve(curve.spline.u, fifty_rows(curve.losses, 0.0), dim=3)
    plots.loss_curve(tmp_path / "exact.png", exact, train_variance=3.0)
    band, line = (close_to(BLUE, read(tmp_path / name, (7.2, 4.4))) for name in ("loss.png", "exact.png"))
    assert line > 500
    # the band has opacity 0.25, below what counts as blue: count everything that is not white
    painted = [(read(tmp_path / name, (7.2, 4.4)).min(-1) < 0.99).sum() for name in ("loss.png", "exact.png")]
    assert painted[0] > painted[1] + 2000
    assert band > 500


def test_every_sampler_has_its_grid_and_its_costs_in_its_colour(tmp_path, curve):
    samplers = {
        ("exponential_euler", "Benton"): exponential_then_uniform(5.0, 2e-3, 12),
        ("ancestral", "planned"): log_snr(5.0, 2e-3, 12),
    }
    plots.grids(tmp_path / "grids.png", curve, samplers)
    left, right = halves(read(tmp_path / "grids.png", (10.4, 4.4)))
    for sampler in samplers:
        colour = np.array([int(plots.COLOURS[sampler][i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert min(close_to(colour, left), close_to(colour, right)) > 200
    unused = np.array([int(plots.COLOURS["ancestral", "Benton"][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert close_to(unused, left) + close_to(unused, right) < 50


def test_labels_read_as_words():
    assert plots.label("moment_matched", "planned") == "moment matched, planned"
