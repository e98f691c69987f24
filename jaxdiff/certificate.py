"""The record of a certificate: terms of a bound, each with its value, error, status and source."""

import dataclasses
import math
from typing import Any

from jaxdiff.intervals import student_quantile, unskewed

NATS, W2 = "nats", "W2"  # units in which terms add up: path KL, and the Wasserstein-2 distance
UNKNOWN = "unknown"  # the status of a term without a value
INITIALISATION, DISCRETISATION, SCORE_ERROR = "initialisation", "discretisation", "score error"
REFERENCE = "reference"
EARLY_STOPPING_W2, EARLY_STOPPING_TV = "early stopping W2", "early stopping TV"
CONFIDENCE = 0.95  # the default confidence of intervals, as is usual
ROUNDING = 1e-13  # nats. Smaller values are printed as 0: the rounding error of a path KL is about as large.
BELOW_ZERO = (
    "An excess below 0 is not a mistake. It is measured against the same network used continuously, and steps with a "
    "variance of their own can do better than that. An estimate from rows also varies by chance. The network's own "
    "error is to be added."
)


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of a bound: its value, how it is known, and where it comes from.

    Attributes:
      name: the error that the term bounds, for example "discretisation".
      value: in `unit`; nan where it is unknown.
      standard_error: that of the value; 0 where the value is not an estimate.
      status: "exact", "measured", "bound", "assumed" or "unknown".
      source: how the value was found.
      unit: terms in the certificate's unit add up. Terms in other units are not part of the sum.
      degrees: degrees of freedom of the standard error.
      margin: an interval at the certificate's confidence that holds at any number of rows, as its half width or as its
        lengths (below, above) the value; or None.
      bias: a bound on the error of interpolation, in `unit`. It is added to both sides of an interval.
      skewness: that of the degrees + 1 samples whose mean is the value. The interval is the union of Student's interval
        and the one that Hall's transformation corrects for skewness. At skewness 0 the two are equal.
      allowance: a bound on another error that is not random, in `unit`. It is added to both sides of an interval.
      root: True where the value is the root of a mean of squares. The standard error, the degrees and the skewness are
        then those of the squares, and the interval has the roots of the ends of theirs.
    """

    name: str
    value: float
    standard_error: float
    status: str
    source: str
    unit: str = NATS
    degrees: float | int = math.inf
    margin: float | tuple[float, float] | None = None
    bias: float = 0.0
    skewness: float = 0.0
    allowance: float = 0.0
    root: bool = False

    def half_width_above(self, probability: float | int) -> float | int:
        """The length of the interval above the value: with this probability the term is at most the value plus it."""
        return self._half_width(probability, above=True)

    def half_width_below(self, probability: float | int) -> float | int:
        """The length of the interval below the value: with this probability the term is at least the value less it."""
        return self._half_width(probability, above=False)

    def _half_width(self, probability, *, above):
        if self.margin is not None:
            return (self.margin[above] if isinstance(self.margin, tuple) else self.margin) + self.bias + self.allowance
        if not self.standard_error > 0:
            return self.bias + self.allowance
        student = student_quantile(probability, self.degrees)
        corrected = student
        if self.skewness != 0 and math.isfinite(self.degrees):
            w = self.skewness / math.sqrt(self.degrees + 1)
            corrected = -unskewed(-student, w) if above else unskewed(student, w)
        half = max(student, corrected) * self.standard_error
        if self.root:
            end = math.sqrt(max(self.value**2 + (half if above else -half), 0.0))
            half = end - self.value if above else self.value - end
        return half + self.bias + self.allowance


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The terms of a bound, the assumptions that it needs, and warnings.

    Attributes:
      subject: what is bounded, as "KL(q_0.001 || ancestral)".
      terms: one for each source of error.
      confidence: that of the intervals.
      assumptions: sentences, without which the bound does not hold.
      warnings: sentences about what makes the bound or its interval doubtful.
      unit: that of the bound, "nats" or "W2".
      dim: d, where a bound in W2 is also given per coordinate; else None.
      joint: the half width of the sum, relative to the half widths of its known terms added up. It is below 1 where the
        terms are measured on the same particles and are not perfectly correlated.
    """

    subject: str
    terms: tuple[Term, ...]
    confidence: float
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unit: str = NATS
    dim: int | None = None
    joint: float = 1.0

    def __getitem__(self, name: str) -> Term:
        """The term of this name; the KeyError for another name lists those that exist."""
        for term in self.terms:
            if term.name == name:
                return term
        raise KeyError(f"no term {name!r}; there are {[term.name for term in self.terms]}")

    @property
    def known(self) -> float | int:
        """The sum of the known terms in the certificate's unit."""
        return sum(term.value for term in self._summed() if term.status != UNKNOWN)

    @property
    def known_upper(self) -> float | int:
        """The upper end of the sum of the known terms in the certificate's unit, at its confidence."""
        known = [term for term in self._summed() if term.status != UNKNOWN]
        return self.known + self.joint * sum(term.half_width_above(self.confidence) for term in known)

    @property
    def upper(self) -> float | int:
        """An upper bound on the sum of all terms in the unit, at the given confidence; inf if one is unknown."""
        if not self._summed() or any(term.status == UNKNOWN for term in self._summed()):
            return math.inf
        return self.known_upper

    @property
    def per_coordinate(self) -> float:
        """`known` over the root of d: the root mean square over coordinates. ValueError where d is not recorded."""
        if self.dim is None:
            raise ValueError(f"a bound per coordinate needs a certificate in W2: this one is in {self.unit}.")
        return self.known / math.sqrt(self.dim)

    @property
    def total_variation(self) -> float:
        """An upper bound on total variation, from `upper`; ValueError where the bound is not in nats."""
        if self.unit != NATS:
            raise ValueError(f"total variation needs a bound in nats, as certify makes it: this one is in {self.unit}.")
        return total_variation(max(self.upper, 0.0))

    def interval(self, name: str) -> tuple[float | int, float | int]:
        """The two-sided interval of a term at the certificate's confidence."""
        term = self[name]
        probability = (1 + self.confidence) / 2
        return term.value - term.half_width_below(probability), term.value + term.half_width_above(probability)

    def to_dict(self) -> dict[str, Any]:
        """The certificate as JSON data; values and degrees that are unknown or infinite are null."""
        record = dataclasses.asdict(self)
        for term in record["terms"]:
            term |= {name: None if not _finite(term[name]) else term[name] for name in ("value", "degrees")}
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Certificate":
        """The certificate from the data of `to_dict`, also after they were written to JSON and read again."""
        absent = lambda term: {"value": math.nan if term["status"] == UNKNOWN else math.inf, "degrees": math.inf}
        terms = [
            term | {name: value for name, value in absent(term).items() if term[name] is None}
            for term in record["terms"]
        ]
        terms = [term | {"margin": tuple(term["margin"])} if _is_pair(term.get("margin")) else term for term in terms]
        texts = {name: tuple(record.get(name, ())) for name in ("assumptions", "warnings")}
        terms = tuple(Term(**term) for term in terms)
        return cls(
            record["subject"],
            terms,
            record["confidence"],
            **texts,
            unit=record.get("unit", NATS),
            dim=record.get("dim"),
            joint=record.get("joint", 1.0),
        )

    def __str__(self):
        """A table with one line for each term."""
        width = max(15, *(len(term.name) for term in self.terms))
        lines = [f"{self.subject}, {self.unit}", *(f"  {self._line(term, width)}".rstrip() for term in self.terms)]
        if self._summed():
            lines.append(f"  {'together':<{width}}{self.known:>12.6g}  of what is known")
        if self.dim is not None and self.dim > 1:
            line = f"  {'per coordinate':<{width}}{self.per_coordinate:>12.6g}"
            lines.append(f"{line}  root mean square over {self.dim} coordinates")
        lines += [f"  {text}" for text in self._below_zero()]
        if self.known < self.upper < math.inf:
            lines.append(f"  {'at most':<{width}}{self.upper:>12.6g}  with {self.confidence:.0%} confidence")
        lines += [f"  assumed: {text}" for text in self.assumptions]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def _line(self, term, width):
        rounding = term.unit == NATS and abs(term.value) <= ROUNDING
        value = UNKNOWN if term.status == UNKNOWN else f"{0 if rounding else term.value + 0.0:.6g}"
        low, high = self.interval(term.name)
        known = f"{self.confidence:.0%} [{low:.6g}, {high:.6g}]" if high > low else ""
        source = term.source if term.unit == self.unit else f"{term.unit}: {term.source}"
        return f"{term.name:<{width}}{value:>12}  {term.status:<9} {known:<27} {source}"

    def _below_zero(self):
        """A sentence for each estimate below 0 nats, which says whether the true value can be below 0."""
        learned = any(term.name == SCORE_ERROR and term.status == UNKNOWN for term in self.terms)
        low = [term for term in self._summed() if term.status != UNKNOWN and term.value < -ROUNDING]
        return [f"{term.name} below 0: {below_zero(self.interval(term.name)[1], learned=learned)}" for term in low]

    def _summed(self):
        return [term for term in self.terms if term.unit == self.unit]


def below_zero(high: float | int, *, learned: bool = True) -> str:
    """Says why an estimate of an excess of path KL is below 0.

    Args:
      high: the upper end of its interval.
      learned: True for the excess of a trained network. The true value of no other excess can be below 0.
    """
    if high < 0 and learned:
        return (
            "it is measured against the same network used continuously, and these steps do better than that; the "
            "network's own error is to be added, and is unknown"
        )
    return "an estimate from rows can be below 0 by chance where the true value is 0 or little more; see its interval"


def _is_pair(margin):
    return isinstance(margin, list | tuple)


def _finite(value):
    return isinstance(value, int | float) and math.isfinite(value)


def total_variation(kl: float | int) -> float:
    """An upper bound on total variation where KL is `kl` nats: the smaller of Pinsker's and Bretagnolle and Huber's."""
    return min(math.sqrt(kl / 2), math.sqrt(-math.expm1(-kl)))
