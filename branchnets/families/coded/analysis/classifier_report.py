"""The section on binary classifiers: Figs. 2b (2c, 8), 3 and 7, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from branchnets.families.coded.analysis import classifiers, parts, passes
from branchnets.families.coded.analysis.classifier_figures import histograms, scatter
from branchnets.families.coded.analysis.classifiers import METRICS, Classifiers
from branchnets.families.coded.negatives import RATIO
from branchnets.families.coded.zoo import BUILDERS
from branchnets.families.study import Subject
from branchnets.report.content import Section, Table
from branchnets.report.stats import bootstrap

if TYPE_CHECKING:
    from branchnets.families.coded.family import CodedFamily

#: ImageNet's network and training images, for what a thousand classes cost.
_IMAGENET, _IMAGENET_IMAGES, _IMAGENET_SHAPE = (
    "coded_resnext50_32x4d_imagenet", 1_281_167, (160, 160, 3),
)  # fmt: skip


def section(family: CodedFamily, subject: Subject) -> Section | None:
    """All binary classifiers; None without coded blocks, a sentence without examples."""
    if not family.schemes:
        return None
    if not len(classifiers.classes_to_judge(subject)):
        return Section(
            "Binary classifiers",
            "No class has examples both among the training images, to choose the threshold of its "
            "binary classifier, and among the images that are studied, to judge it: there is "
            "nothing to show here.",
        )
    found = classifiers.measure(family, subject)
    figures: dict[str, dict[str, float]] = {}
    for name, judged in (("in_distribution", found.inside), ("out_of_distribution", found.beyond)):
        if judged is not None:
            figures[name] = classifiers.means(judged)
            figures[f"{name}_9_negatives"] = classifiers.means(judged, nine=True)
    costs, estimate = _costs(family, subject, found)
    return Section(
        "Binary classifiers",
        _text(found, subject, figures, estimate),
        (
            scatter(found, subject),
            histograms(found, subject, 1, "fig3_score_distribution"),
            histograms(found, subject, 10, "fig7_score_distributions"),
        ),
        (_summary(found), _classes(found, subject), costs),
        {**figures.pop("in_distribution"), **figures},
    )


def _text(
    found: Classifiers, subject: Subject, figures: dict[str, dict[str, float]], estimate: str
) -> str:
    inside = figures["in_distribution"]
    f1 = found.inside.natural["f1"]
    seen = np.flatnonzero(np.isfinite(f1))
    worst = seen[np.argmin(f1[seen])]
    low, high = bootstrap(f1[seen])
    ratio = found.ratio[seen]
    drawn = "all others" if found.drawn is None else f"{found.drawn} random ones a positive"
    tested = f"{len(found.test.labels):,}"
    if found.test.classes is not None:
        tested += f", each as a negative of {found.test.classes.shape[1] - 1} random classes"
    many = f"{ratio.min():.1f}"
    if ratio.max() > 1.01 * ratio.min():
        many += f" to {ratio.max():.1f}"
    method = (
        "The binary classifier of class a is the network without the branches that the code does "
        "not assign to a, in every coded block; its score is logit a, without softmax, and it says "
        "yes from a threshold up. The threshold has the best F1 on the training images, not "
        "augmented, each negative weighted so that their ratio to the positives is the test's "
        f"({many} negatives a positive). Training negatives of a class: {drawn}, of "
        f"{len(found.train.labels):,} images; tested on {tested}. Precision = "
        "TP / (TP + FP), recall = TP / (TP + FN)."
    )
    seenwords = (
        f"Mean over {len(seen)} classes on test images: precision {inside['precision']:.3f}, "
        f"recall {inside['recall']:.3f}, F1 {inside['f1']:.3f} (95 % interval {low:.3f} to "
        f"{high:.3f}, bootstrap over classes), average precision "
        f"{inside['average_precision']:.3f}. The weakest is {subject.class_names[worst]!r} "
        f"(F1 {f1[worst]:.3f}). {_outside(found, figures, subject)}"
    )
    if len(seen) < len(f1):
        seenwords += f" {len(f1) - len(seen)} classes have no examples and are left out."
    return f"{method}\n\n{seenwords}\n\n{estimate}"


def _outside(found: Classifiers, figures: dict[str, dict[str, float]], subject: Subject) -> str:
    if found.beyond is None or found.outside is None:
        return "No out-of-distribution images were given (--ood)."
    inside, beyond = figures["in_distribution"], figures["out_of_distribution"]
    fewer = int(np.nansum(found.beyond.natural["precision"] < found.inside.natural["precision"]))
    change = beyond["precision"] - inside["precision"]
    return (
        f"With the {len(found.outside.labels):,} images of {subject.outside_name} as negatives, "
        "weighted to the same ratio, the same thresholds give a mean precision of "
        f"{beyond['precision']:.3f} ({change:+.3f}; lower for {fewer} classes). The paper sees a "
        "clear drop on CIFAR-10 and none on CIFAR-100. Recall cannot change: the positives are the "
        "same."
    )


def _summary(found: Classifiers) -> Table:
    rows = []
    judged = [("other classes", found.inside), ("out of distribution", found.beyond)]
    for name, one in judged:
        if one is None:
            continue
        for m in METRICS:
            natural, nine = one.natural[m], one.nine[m]
            seen = natural[np.isfinite(natural)]
            low, high = bootstrap(seen)
            repeated = np.nanmean(nine, axis=0)
            rows.append(
                (name, m.replace("_", " "), float(seen.mean()), low, high,
                 float(repeated.mean()), _spread(repeated))
            )  # fmt: skip
    return Table(
        "binary_classifiers_mean",
        "Mean over classes: with the test's own ratio of negatives and a bootstrap interval over "
        f"classes (95 %); and with {RATIO} random negatives a positive (all, where there are no "
        "more), mean and standard deviation over repeated draws.",
        ("negatives", "figure", "mean", "from", "to", f"{RATIO} negatives", "std over draws"),
        tuple(rows),
    )


def _spread(values: np.ndarray) -> float:
    """Standard deviation; exactly 0 where all are equal."""
    return float(values.std(ddof=1)) if np.ptp(values) > 0 else 0.0


def _classes(found: Classifiers, subject: Subject) -> Table:
    own = np.bincount(found.test.labels, minlength=len(found.ratio))
    judged = {"": found.inside} | ({} if found.beyond is None else {"ood ": found.beyond})
    headers = ["class", "positives", "negatives", "threshold"]
    headers += [f"{prefix}{m.replace('_', ' ')}" for prefix in judged for m in METRICS]
    headers += [f"threshold at {RATIO}"]
    headers += [
        f"{prefix}{m.replace('_', ' ')} at {RATIO}{what}"
        for prefix in judged
        for m in METRICS
        for what in ("", " std")
    ]
    rows = []
    for a, name in enumerate(subject.class_names):
        values = [one.natural[m][a] for one in judged.values() for m in METRICS]
        repeats = [one.nine[m][a] for one in judged.values() for m in METRICS]
        values.append(found.thresholds_nine[a])
        values += [v for r in repeats for v in (r.mean(), _spread(r))]
        cells = [float(v) if np.isfinite(v) else None for v in (found.thresholds[a], *values)]
        rows.append((name, int(own[a]), int(len(found.test.labels) - own[a]), *cells))
    return Table(
        "binary_classifiers",
        "Every binary classifier on test images: threshold from training images, then precision, "
        f"recall, F1 and average precision with the test's ratio of negatives and with {RATIO} "
        "random ones a positive (mean and standard deviation of repeated draws; all, where there "
        "are no more).",
        tuple(headers),
        tuple(rows),
    )


def _costs(family: CodedFamily, subject: Subject, found: Classifiers) -> tuple[Table, str]:
    """The table of what scoring all training images costs, and a sentence."""
    active = {block: scheme.active for block, scheme in family.schemes.items()}
    own = passes.shares(family.model, active, subject.image_shape)
    classes, images = family.model.num_classes, len(found.train.labels)
    mine = passes.ways(own, classes, images, found.drawn or RATIO)
    measured = mine[1] if found.drawn is None else mine[3]
    rate = found.seconds / measured.macs
    builder = BUILDERS[_IMAGENET]
    large = builder(num_classes=1000)
    kept = {
        f"stage{s + 2}/block{b}": n
        for s, stage in enumerate(builder.active)
        for b, n in enumerate(stage)
        if n < builder.branches
    }
    parts_of_large = passes.shares(large, kept, _IMAGENET_SHAPE)
    theirs = passes.ways(parts_of_large, 1000, _IMAGENET_IMAGES, RATIO)
    rows = []
    for name, k, n, all_ways in (
        ("this one", classes, images, mine),
        ("ResNeXt-50 on ImageNet", 1000, _IMAGENET_IMAGES, theirs),
    ):
        for way in all_ways:
            timed = found.seconds if way is measured else None
            rows.append((name, k, n, way.name, way.passes, way.macs, timed, way.macs * rate / 3600))
    table = Table(
        "binary_classifiers_cost",
        "What the training scores of all binary classifiers cost, for choosing thresholds: passes "
        "through a classifier, multiply-adds, seconds measured here (without compiling) and "
        "hours that the same speed per multiply-add would take.",
        ("network", "classes", "images", "way", "passes", "MACs", "seconds here", "hours at that "
         "speed"),
        tuple(rows),
    )  # fmt: skip
    drawn_way = theirs[2]
    return table, (
        f"The blocks before the first coded one are {parts.percent(own.prefix / own.small)} of a "
        "classifier's multiply-adds and are computed once for all classes; the training scores "
        f"took {found.seconds:.1f} s here, without compiling. A thousand classes of ImageNet would "
        f"need {theirs[0].passes / 1e9:.2f} billion passes over its training images; with "
        f"{RATIO} random negatives a positive, as the paper does, "
        f"{drawn_way.passes / 1e6:.1f} million, about "
        f"{theirs[3].macs * rate / 3600:,.0f} hours at the multiply-adds a second measured here."
    )
