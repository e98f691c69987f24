"""The pictures: files of the right size that show what they are given."""

import numpy as np
import pytest
from matplotlib import image

from jaxdiff import plots
from jaxdiff.app import sample_plots
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


@pytest.fixture
def figures(monkeypatch):
    """The figures as they are drawn, instead of files."""
    kept = []
    monkeypatch.setattr(sample_plots, "saved", lambda figure, path: kept.append(figure))
    return kept


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def test_images_are_shown_generated_left_and_real_right(tmp_path):
    real = np.tile(np.linspace(0.0, 16.0, 16), (30, 1))
    plots.samples(tmp_path / "full.png", np.full((100, 16), 16.0), real, real, image_shape=(4, 4))
    plots.samples(tmp_path / "empty.png", np.zeros((100, 16)), real, real, image_shape=(4, 4))
    full, empty = (halves(read(tmp_path / name, (9.2, 4.9))) for name in ("full.png", "empty.png"))
    assert empty[0].mean() > 0.97
    assert full[0].mean() < empty[0].mean() - 0.3
    assert 0.2 < full[1].mean() < 0.9
    assert np.array_equal(full[1], empty[1])


def test_images_need_not_be_square_nor_many(figures):
    rows = np.random.default_rng(0).uniform(size=(2, 6))
    plots.samples("few.png", rows[:1], rows, rows, image_shape=(2, 3))
    assert titles(figures[-1]) == ["generated: 1 of 1", "real (test rows): 1 of 2"]
    assert figures[-1].axes[0].images[0].get_array().shape == (4, 5)  # with a margin of one
    many = np.tile(rows, (40, 1))
    plots.samples("many.png", many[:30], many, rows, image_shape=(2, 3))
    assert titles(figures[-1]) == ["generated: 25 of 30", "real (test rows): 25 of 80"]
    plots.samples("most.png", many, many, rows, image_shape=(2, 3))
    assert titles(figures[-1]) == ["generated: 64 of 80", "real (test rows): 64 of 80"]
    assert figures[-1].axes[0].images[0].get_array().shape == (8 * 4, 8 * 5)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_tables_of_any_width_are_shown_as_points(tmp_path, dim):
    train, rows = np.random.default_rng(0).normal(size=(2, 300, dim)) @ np.triu(np.ones((dim, dim)))
    plots.samples(tmp_path / "near.png", rows + 0.1, rows, train)
    plots.samples(tmp_path / "far.png", rows + 1000.0, rows, train)
    near, far = (halves(read(tmp_path / name, (9.2, 4.9))) for name in ("near.png", "far.png"))
    assert min(close_to(BLUE, half) for half in near) > 500
    assert close_to(BLUE, far[0]) == 0
    assert close_to(BLUE, far[1]) > 500


@pytest.mark.parametrize("dim", [2, 3])
def test_a_table_with_a_constant_column_is_shown_without_a_warning(tmp_path, dim):
    rows = np.random.default_rng(1).normal(size=(200, dim))
    rows[:, 1] = 7.0
    plots.samples(tmp_path / "constant.png", rows, rows, rows)
    assert min(close_to(BLUE, half) for half in halves(read(tmp_path / "constant.png", (9.2, 4.9)))) > 100


# Rows of N(0, I) have deviation 1 along any axis that they did not make. Along the first principal component of 50 rows
# of 2,000 columns these rows themselves have the deviation 1 + sqrt(2000/50) = 7.3.
@pytest.mark.parametrize(("dim", "n_train", "n_real"), [(2000, 300, 50), (20, 5000, 300), (2, 300, 100), (1, 300, 100)])
def test_generated_and_real_rows_of_one_law_are_drawn_alike(figures, dim, n_train, n_real):
    rng = np.random.default_rng(2)
    generated, real, train = (rng.normal(size=(n, dim)).astype(np.float32) for n in (1000, n_real, n_train))
    plots.samples("same.png", generated, real, train)
    left, right = figures[0].axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert titles(figures[0]) == [f"generated: {n_real} of 1,000", f"real (test rows): {n_real} of {n_real}"]
    assert 4 < left.get_xlim()[1] - left.get_xlim()[0] < 11  # +-2.6 deviations and a quarter of it: 7.7
    if dim == 1:
        shares = [sum(bar.get_height() for bar in ax.patches) for ax in (left, right)]
        assert shares == pytest.approx([1, 1])
        return
    for ax in (left, right):
        points = np.transpose(ax.lines[0].get_data())
        assert points.shape == (n_real, 2)
        assert (np.abs(points.std(0) - 1) < 5 / np.sqrt(2 * n_real)).all()
        assert (np.abs(points.mean(0)) < 5 * np.sqrt(1 / n_real + 1 / n_train)).all()


def test_the_axes_are_the_principal_components_of_standardised_training_rows(figures):
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    train = rng.normal(size=(4000, 4)) * [3.0, 2.0, 0.1, 0.1] @ axes.T * [1.0, 100.0, 1.0, 1e-3] + 5
    some = train[::4]  # 1,000 evenly spaced rows determine the axes
    scaled = lambda rows: (rows - some.mean(0)) / some.std(0)
    turn = np.linalg.eigh(np.corrcoef(some, rowvar=False))[1]
    plots.samples("axes.png", train[:200], train[200:400], train)
    for ax, rows in zip(figures[0].axes, (train[:200], train[200:400]), strict=True):
        points, expected = np.transpose(ax.lines[0].get_data()), scaled(rows) @ turn[:, :-3:-1]
        assert np.corrcoef(points.T, expected.T)[[0, 1], [2, 3]] ** 2 == pytest.approx([1, 1], abs=1e-9)
        assert points.std(0) == pytest.approx(expected.std(0), rel=1e-9)
    assert figures[0].axes[0].get_xlabel() == "first principal component of training rows"


def test_at_most_a_thousand_rows_are_drawn_and_wider_samples_within_limits(figures):
    rng = np.random.default_rng(4)
    real = rng.normal(size=(1500, 3))
    plots.samples("wide.png", 2 * rng.normal(size=(1300, 3)), real, real)
    left, right = figures[0].axes
    assert titles(figures[0])[1] == "real (test rows): 1,000 of 1,500"
    assert len(left.lines[0].get_xdata()) == len(right.lines[0].get_xdata()) == 1000
    assert "outside" not in titles(figures[0])[0]  # twice as wide: the limits make room for them
    plots.samples("wider.png", 20 * rng.normal(size=(1300, 3)), real, real)
    (said, _), (low, high) = titles(figures[1]), figures[1].axes[0].get_xlim()
    points = np.transpose(figures[1].axes[0].lines[0].get_data())
    bottom, top = figures[1].axes[0].get_ylim()
    inside = (points[:, 0] >= low) & (points[:, 0] <= high) & (points[:, 1] >= bottom) & (points[:, 1] <= top)
    assert said == f"generated: 1,000 of 1,300, {np.sum(~inside)} of them outside"
    assert 500 < np.sum(~inside) < 1000
    assert 12 < high - low < 30  # three widths of the real rows, 5.2 each, and a quarter


def test_rows_that_are_not_finite_or_far_away_are_counted(figures):
    rows = np.random.default_rng(5).normal(size=(100, 3))
    broken = rows.copy()
    broken[:7] = np.nan
    plots.samples("broken.png", broken, rows, rows)
    plots.samples("far.png", rows + 1000, rows, rows)
    for figure, outside in zip(figures, (7, 100), strict=True):
        assert titles(figure)[0] == f"generated: 100 of 100, {outside} of them outside"


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
