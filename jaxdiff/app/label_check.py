"""How many samples a classifier of real rows labels as asked."""

import warnings

import numpy as np

from jaxdiff.app.two_samples import batches_of

MOST_ROWS = 5000  # train rows of the classifier
MOST_ITERATIONS = 2000


def label_check(run, subject, key):
    """The shares of samples and of test rows that a logistic regression labels right, as JSON data.

    The regression is trained on train rows. The samples are BATCHES batches of the planned sampler, which have the
    labels of the test rows.

    Returns:
      A dict: asked, the share of samples that get the label they were asked for; standard_error, over batches;
      test_rows, the share of test rows that get their own label. None where the network takes no labels, or
      scikit-learn is missing.
    """
    if run.classes is None:
        return None
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return None
    own, labels = run.labels("train"), run.labels("test")
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        classifier = LogisticRegression(max_iter=MOST_ITERATIONS).fit(run.dataset.train[:MOST_ROWS], own[:MOST_ROWS])
    batches, _ = batches_of(subject, subject.of_plan(), key)
    right = [float(np.mean(classifier.predict(batch) == labels)) for batch in batches]
    return {
        "asked": float(np.mean(right)),
        "standard_error": float(np.std(right, ddof=1) / np.sqrt(len(right))),
        "test_rows": float(np.mean(classifier.predict(run.dataset.test) == labels)),
    }


def in_words(found):
    """A sentence on the result of `label_check`; none if there is no result."""
    if found is None:
        return []
    return [
        f"A logistic regression of train rows gives {found['asked']:.1%} ± {found['standard_error']:.1%} of the "
        f"samples the label that was asked for, and {found['test_rows']:.1%} of the test rows their own label."
    ]
