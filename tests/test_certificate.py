"""Certificates: sums, intervals, JSON and back, and Student's quantile against closed forms and quadrature."""

import dataclasses
import json
import math
import statistics

import numpy as np
import pytest
from scipy import integrate, stats

from jaxdiff.certificate import Certificate, Term
from jaxdiff.intervals import rows_needed, student_quantile, unskewed, with_interval

TERMS = (
    Term("initialisation", 0.01, 0.0, "bound", "from E|X_0|^2"),
    Term("discretisation", 0.2, 0.04, "measured", "16 replicates", degrees=15),
    Term("early stopping W2", 0.3, 0.0, "bound", "coupling", unit="W2"),
)
KNOWN = Certificate("a run", TERMS, 0.95, ("rows are independent",), ("few rows",))
LEARNED = Certificate("a run", (*TERMS, Term("score error", math.nan, 0.0, "unknown", "the data's")), 0.95)


def closed_form(probability, degrees):
    """Student's quantile for 1, 2, 4 and infinitely many degrees of freedom."""
    a = 4 * probability * (1 - probability)
    sign = math.copysign(1, probability - 0.5)
    return {
        1: lambda: math.tan(math.pi * (probability - 0.5)),
        2: lambda: (2 * probability - 1) * math.sqrt(2 / a),
        4: lambda: sign * 2 * math.sqrt(max(math.cos(math.acos(math.sqrt(a)) / 3) / math.sqrt(a) - 1, 0)),
        math.inf: lambda: statistics.NormalDist().inv_cdf(probability),
    }[degrees]()


PROBABILITIES = [0.05, 0.5, 0.9, 0.975, 0.9995, 1 - 1e-6]


@pytest.mark.parametrize("degrees", [1, 2, 4, math.inf])
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_quantiles_are_students_closed_forms(degrees, probability):
    want = closed_form(probability, degrees)
    assert student_quantile(probability, degrees) == pytest.approx(want, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("degrees", [3, 5, 14, 15, 31, 299, 300, 1000])
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_beyond_a_quantile_lies_the_rest_of_students_density(degrees, probability):
    half = (degrees + 1) / 2
    constant = math.exp(math.lgamma(half) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    density = lambda x: constant * math.exp(-half * math.log1p(x**2 / degrees))
    quantile = student_quantile(probability, degrees)
    beyond, _ = integrate.quad(density, quantile, math.inf, epsabs=0, epsrel=1e-11, limit=200)
    assert beyond == pytest.approx(1 - probability, rel=1e-8)


# Published tables: Fisher and Yates, Statistical Tables.
@pytest.mark.parametrize(
    ("probability", "degrees", "want"),
    [(0.975, 1, 12.706), (0.95, 5, 2.015), (0.975, 10, 2.228), (0.995, 30, 2.750), (0.975, 120, 1.980)],
)
def test_quantiles_are_those_of_printed_tables(probability, degrees, want):
    assert student_quantile(probability, degrees) == pytest.approx(want, abs=5.1e-4)


def test_nats_add_up_and_other_units_stand_beside_them():
    assert KNOWN.known == pytest.approx(0.21)
    assert KNOWN.upper == pytest.approx(0.21 + 0.04 * stats.t.ppf(0.95, 15), rel=1e-6)
    low, high = KNOWN.interval("discretisation")
    assert (low, high) == pytest.approx((0.2 - 0.04 * stats.t.ppf(0.975, 15), 0.2 + 0.04 * stats.t.ppf(0.975, 15)))
    assert KNOWN.interval("initialisation") == (0.01, 0.01)


def test_an_unknown_term_leaves_no_upper_bound():
    assert LEARNED.known == pytest.approx(0.21)
    assert LEARNED.upper == math.inf
    assert LEARNED.total_variation == 1
    assert "unknown" in str(LEARNED)
    assert "at most" not in str(LEARNED)


@pytest.mark.parametrize("kl", [0.0, 1e-6, 0.5, 1.5, 3.0, 50.0])
def test_total_variation_is_the_smaller_of_two_bounds(kl):
    certificate = Certificate("a run", (Term("all", kl, 0.0, "exact", ""),), 0.95)
    assert certificate.total_variation == pytest.approx(min(np.sqrt(kl / 2), np.sqrt(1 - np.exp(-kl))), rel=1e-9)


# KL(N(m, 1) || N(0, 1)) = m^2/2 and TV = 2 Phi(m/2) - 1: a case where both sides are known.
@pytest.mark.parametrize("mean", [0.1, 1.0, 2.5, 6.0])
def test_total_variation_of_shifted_normals_is_below_its_bound(mean):
    bound = Certificate("a run", (Term("all", mean**2 / 2, 0.0, "exact", ""),), 0.95).total_variation
    assert 2 * stats.norm.cdf(mean / 2) - 1 <= bound <= 1


def test_a_margin_overrules_the_standard_error():
    term = Term("discretisation", 0.2, 0.04, "measured", "Bernstein", margin=0.5)
    certificate = Certificate("a run", (term,), 0.95)
    assert certificate.interval("discretisation") == pytest.approx((-0.3, 0.7))
    assert certificate.upper == pytest.approx(0.7)


def test_a_bias_widens_both_sides_of_an_interval_and_the_upper_end():
    for margin, width in ((0.5, 0.5), (None, 0.04 * stats.norm.ppf(0.975))):
        term = Term("discretisation", 0.2, 0.04, "measured", "rows", margin=margin, bias=0.03)
        certificate = Certificate("a run", (term,), 0.95)
        assert certificate.interval("discretisation") == pytest.approx((0.2 - width - 0.03, 0.2 + width + 0.03))
        one_sided = 0.5 if margin else 0.04 * stats.norm.ppf(0.95)
        assert certificate.upper == pytest.approx(0.2 + one_sided + 0.03)
        assert Certificate.from_dict(json.loads(json.dumps(certificate.to_dict()))) == certificate


def test_a_margin_may_be_of_two_sides_and_survives_json():
    term = Term("discretisation", 0.2, 0.04, "measured", "betting", margin=(0.1, 0.5))
    certificate = Certificate("a run", (term,), 0.95)
    assert certificate.interval("discretisation") == pytest.approx((0.1, 0.7))
    back = Certificate.from_dict(json.loads(json.dumps(certificate.to_dict())))
    assert back == certificate


# The cubic of Hall 1992: t = T + w T^2/3 + w^2 T^3/27 + w/6, w = skewness/sqrt(n).
@pytest.mark.parametrize("w", [-0.9, -0.1, -1e-9, 0.0, 1e-9, 0.1, 0.9])
def test_unskewed_inverts_halls_cubic(w):
    for x in (-6.0, -1.0, 0.3, 2.5):
        root = unskewed(x, w)
        assert root + w * root**2 / 3 + w**2 * root**3 / 27 + w / 6 == pytest.approx(x, rel=1e-9, abs=1e-9)


def test_an_interval_is_the_union_of_students_and_the_one_corrected_for_skewness():
    skewed = Term("discretisation", 0.2, 0.04, "measured", "", degrees=24, skewness=2.0, allowance=0.01)
    low, high = Certificate("a run", (skewed,), 0.95).interval("discretisation")
    q, w = stats.t.ppf(0.975, 24), 2.0 / 5
    root = 3 * (1 - np.cbrt(1 - w * (q + w / 6))) / w
    assert root > q
    assert (low, high) == pytest.approx((0.2 - 0.04 * q - 0.01, 0.2 + 0.04 * root + 0.01))
    mirrored = Certificate("a run", (dataclasses.replace(skewed, skewness=-2.0),), 0.95).interval("discretisation")
    assert mirrored == pytest.approx((0.4 - high, 0.4 - low))
    plain = dataclasses.replace(skewed, skewness=0.0, allowance=0.0)
    assert plain.half_width_above(0.95) == plain.half_width_below(0.95) == pytest.approx(0.04 * stats.t.ppf(0.95, 24))


def test_a_record_of_an_earlier_version_has_neither_skewness_nor_allowance():
    record = KNOWN.to_dict()
    for term in record["terms"]:
        del term["skewness"], term["allowance"]
    assert Certificate.from_dict(record) == KNOWN


def test_what_is_known_has_an_upper_end_where_another_term_is_unknown():
    assert LEARNED.known_upper == KNOWN.upper < LEARNED.upper


@pytest.mark.parametrize("certificate", [KNOWN, LEARNED], ids=["known", "learned"])
def test_json_and_back_is_the_same_certificate(certificate):
    text = json.dumps(certificate.to_dict(), allow_nan=False)
    back = Certificate.from_dict(json.loads(text))
    assert str(back) == str(certificate)
    assert back.to_dict() == certificate.to_dict()
    assert (back.upper, back.known) == (certificate.upper, certificate.known)


def test_the_table_names_every_term_unit_assumption_and_warning():
    text = str(KNOWN)
    for part in (
        *(term.name for term in TERMS),
        "W2: coupling",
        "95% [0.1147",
        "together",
        "assumed: rows",
        "warning: few",
    ):
        assert part in text
    assert "at most" in text


@pytest.mark.parametrize(
    ("value", "error", "learned", "said"),
    [
        (-0.02, 0.1, True, "discretisation below 0: an estimate from rows can be below 0 by chance"),
        (-0.02, 0.1, False, "discretisation below 0: an estimate from rows can be below 0 by chance"),
        (-0.8, 0.1, True, "discretisation below 0: it is measured against the same network used continuously"),
        (-0.8, 0.1, False, "discretisation below 0: an estimate from rows can be below 0 by chance"),
        (-1e-14, 0.0, True, None),
        (0.2, 0.04, True, None),
    ],
)
def test_a_certificate_explains_nats_below_0(value, error, learned, said):
    terms = (Term("discretisation", value, error, "measured", "rows"),)
    terms += (Term("score error", math.nan if learned else 0.0, 0.0, "unknown" if learned else "assumed", ""),)
    text = str(Certificate("a run", terms, 0.95))
    assert ("below 0" in text) == (said is not None)
    assert said is None or f"  {said}" in text.splitlines()[4]


def test_a_difference_below_0_needs_no_explanation():
    term = Term("difference", -3.0, 0.1, "measured", "", unit="nats, a difference")
    assert "below 0" not in str(Certificate("a run less another", (term,), 0.95))


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        ((41.7, 25.3, 69.8), "42 (25 to 70)"),
        ((35.2, 30.05, 36.8), "35 (30 to 37)"),
        ((682, 498, 756), "680 (490 to 760)"),
        ((0.4893, 0.4851, 0.4948), "0.489 (0.485 to 0.495)"),
        ((12345.6, 12000.4, 13000.2), "12,300 (12,000 to 13,100)"),
        ((107.0, 107.0, 107.0), "107"),
        ((1234.0, 1234.0, 1234.0), "1,234"),
        ((3.14159, 3.14159, 3.14159), "3.14"),
    ],
)
def test_a_number_is_rounded_to_what_its_interval_tells(number, printed):
    assert with_interval(*number) == printed


# A half width falls like 1/sqrt(n): where 50 rows give 1.7, 50 (1.7/0.5)^2 = 578 rows give 0.5.
@pytest.mark.parametrize(
    ("n", "half_width", "wanted", "rows"), [(50, 1.7, 0.5, 580), (4, 1.0, 1.0, 4), (300, 10.0, 1.0, 30000)]
)
def test_the_number_of_rows_needed_is_rounded_up_to_two_digits(n, half_width, wanted, rows):
    assert rows_needed(n, half_width, wanted) == rows
