"""The papers' claims that the published studies can speak of, each tested on the records, paired by seed.

A claim is data: who should be ahead of whom, by which measure, in which study. The verdict follows from the interval
alone, by one rule, so no sentence of the README is written by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from alkit.analysis import published
from alkit.analysis.summary.study import open_study
from alkit.errors.words import counted, digits_beside_zero
from alkit.statistics import PairedTest, mean_interval, paired_test

SMALLER_IS_BETTER = {"ece", "nll", "brier", "oe"}
POINTS = {"accuracy", "overconfidence"}  # fractions shown as hundredths


@dataclass(frozen=True)
class Claim:
    """`ahead` should be better than `behind` by `measure` at the study's last number of labels (or `labelled`).

    `says` is the paper's claim; `setting` what we ran, `brief` the same in few words; `cannot` what the row cannot say.
    `measure` is a column of the records, or `overconfidence`: mean confidence − accuracy, where it is above 0.
    """

    says: str
    paper: str
    study: str
    ahead: str
    behind: str
    setting: str
    brief: str
    cannot: str
    measure: str = "accuracy"
    labelled: int | None = None


_MIXED = "Training on mixtures (Cross-Mix-and-Mix) raises accuracy"
_FIRST = "PT4AL's first labels are better than random ones"
_SCALED = ("CIFAR-10, ResNet-10, 500 to 1,500 labels, 120 epochs", "CIFAR-10, 1,500 labels, 120 epochs",
           "Larger networks, and the papers' 10,000 labels")  # fmt: skip
_STEP = ("CIFAR-10 with 50 / 5,000 images a class, 1,000 labels, as published",
         "unbalanced CIFAR-10, as published", "Balanced images")  # fmt: skip
_FULL = ("CIFAR-10, ResNet-18, 2,000 labels, as published", "CIFAR-10, 2,000 labels, as published",
         "More labels: the paper goes on to 10,000")  # fmt: skip
_PT4AL = ("CIFAR-10, a pool of 10,000, ResNet-10, 200 to 2,000 labels", "The paper's pool of 50,000, and its network")
_FEATURES = ("CIFAR-10, a pool of 5,000, features of EfficientNet-lite0, linear model, 100 labels",
             "CIFAR-10, fixed features, 100 labels",
             "Features learned on the same images without labels; other pools (all seeds share one)")  # fmt: skip

_ON_FEATURES = ("CIFAR-10, fixed features, linear model, to 1,000 labels", "CIFAR-10, fixed features, 1,000 labels",
                "Networks trained from the images")  # fmt: skip


def _epochs(number: int) -> tuple[str, str, str]:
    return (f"CIFAR-10, ResNet-10, 1,000 labels, {number} epochs", f"CIFAR-10, 1,000 labels, {number} epochs",
            _SCALED[2])  # fmt: skip


CLAIMS = (
    Claim(_MIXED, "OO4AL", "cifar10_scaled", "cmam", "random", *_SCALED),
    *(Claim(_MIXED, "OO4AL", "cifar10_epochs", f"cmam_{n}", f"random_{n}", *_epochs(n)) for n in (30, 60, 120, 240)),
    Claim("Ranked Margin Sampling asks for better images", "OO4AL", "cifar10_scaled", "oo4al", "cmam", *_SCALED),
    Claim("Ranked Margin Sampling asks for better images", "OO4AL", "cifar10_features", "ranked_margin", "random",
          *_ON_FEATURES),
    Claim("Both together beat random", "OO4AL", "cifar10_first", "oo4al", "random", *_FULL),
    Claim("Both together beat random", "OO4AL", "cifar10_step", "oo4al", "random", *_STEP),
    Claim("Both together beat random", "OO4AL", "cifar10_scaled", "oo4al", "random", *_SCALED),
    Claim("The model is less overconfident", "OO4AL", "cifar10_first", "oo4al", "random", *_FULL[:2],
          f"That `oo4al` ends underconfident, which is not counted. {_FULL[2]}", measure="overconfidence"),
    Claim("The model is less overconfident", "OO4AL", "cifar10_step", "oo4al", "random", *_STEP,
          measure="overconfidence"),
    Claim("The model is less overconfident", "OO4AL", "cifar10_scaled", "oo4al", "random", *_SCALED,
          measure="overconfidence"),
    Claim("PT4AL beats random", "PT4AL", "cifar10_pt4al_scaled", "pt4al", "random", _PT4AL[0], "CIFAR-10, 2,000 labels",
          _PT4AL[1]),
    Claim("PT4AL beats random", "PT4AL", "cifar10_pt4al_scaled", "pt4al.string_sorted_losses", "random",
          f"{_PT4AL[0]}; losses sorted as text, as the program does", "CIFAR-10, 2,000 labels, sorted as text",
          _PT4AL[1]),
    Claim("PT4AL beats random", "PT4AL", "fashion_mnist_pt4al", "pt4al", "random",
          "Fashion-MNIST, a pool of 10,000, ResNet-10, 1,000 labels", "Fashion-MNIST, 1,000 labels",
          "Photographs; fewer labels"),
    Claim(_FIRST, "PT4AL", "cifar10_pt4al_scaled", "pt4al_cold_start", "random",
          "CIFAR-10, a pool of 10,000, ResNet-10, 200 labels", "CIFAR-10, 200 labels", "The paper's 1,000 of 50,000",
          labelled=200),
    Claim(_FIRST, "PT4AL", "digits_cold_start", "pt4al_cold_start", "random_first",
          "handwritten digits, ResNet-10, 28 labels", "handwritten digits, 28 labels",
          "Photographs: digits look alike upside down"),
    Claim("TypiClust beats random from no labels", "TypiClust", "cifar10_features_empty", "typiclust", "random",
          *_FEATURES),
    Claim("ProbCover beats random from no labels", "ProbCover", "cifar10_features_empty", "probcover", "random",
          *_FEATURES),
    Claim("Margin beats random", "Scheffer et al.", "cifar10_scaled", "margin", "random", *_SCALED),
    Claim("Margin beats random", "Scheffer et al.", "cifar10_features", "margin", "random", *_ON_FEATURES),
)  # fmt: skip


def tested(claim: Claim, frame: pd.DataFrame) -> PairedTest | None:
    """The claim's test on a study's records (`load_runs`), positive in the claim's favour; None without both arms."""
    frame = frame[frame["label"].isin([claim.ahead, claim.behind])]
    if frame["label"].nunique() < 2:
        return None
    rows = frame.sort_values("cycle").groupby(["label", "seed"])
    rows = rows.last() if claim.labelled is None else frame[frame["labelled"] == claim.labelled].groupby(
        ["label", "seed"]).last()  # fmt: skip
    values = (rows["gap"].clip(lower=0) if claim.measure == "overconfidence" else rows[claim.measure]).dropna()
    sides = [values.loc[name] if name in values.index.get_level_values(0) else None
             for name in (claim.ahead, claim.behind)]  # fmt: skip
    if sides[0] is None or sides[1] is None:
        return None
    smaller = claim.measure in SMALLER_IS_BETTER or claim.measure == "overconfidence"
    return paired_test(*(reversed(sides) if smaller else sides))


def verdict(test: PairedTest | None) -> str:
    """`holds`, `does not`, `not shown`, `not run`: by the 95% interval alone, and never with fewer than three seeds."""
    if test is None or not test.n:
        return "not run"
    low, high = test.interval
    if test.n < 3 or np.isnan(low):
        return "not shown"
    return "holds" if low > 0 else "does not" if high < 0 else "not shown"


def signed(value: float, digits: int = 1) -> str:
    """`+2.4` or `−0.3`."""
    return f"{value:+.{digits}f}".replace("-", "−")


def difference(claim: Claim, test: PairedTest | None) -> str:
    """`+2.4 points (+1.0 to +3.8; 3 seeds)`, positive in the claim's favour."""
    if test is None or not test.n:
        return ""
    scale, unit, digits = (100, " points", 1) if claim.measure in POINTS else (1, "", 3)

    seeds = f"{test.n} seed{'' if test.n == 1 else 's'}"
    if np.isnan(test.interval[0]):
        return f"{signed(scale * test.mean_difference, digits)}{unit} ({seeds})"
    mean, low, high = (scale * value for value in (test.mean_difference, *test.interval))
    digits = digits_beside_zero((low, high), digits)
    return f"{signed(mean, digits)}{unit} ({signed(low, digits)} to {signed(high, digits)}; {seeds})"


def _verdicts(frames: dict[str, pd.DataFrame]) -> list[tuple[Claim, PairedTest | None, str]]:
    tests = [(claim, tested(claim, frames[claim.study]) if claim.study in frames else None) for claim in CLAIMS]
    return [(claim, test, verdict(test)) for claim, test in tests]


def verdicts_sentence(frames: dict[str, pd.DataFrame], own: pd.DataFrame) -> str:
    """What stands at the top of the README: how many claims hold, how many do not, and the papers' own numbers."""
    counts = Counter(said for _, _, said in _verdicts(frames))
    told = f"{counts['holds']} hold, {counts['does not']} do not, {counts['not shown']} show neither"
    waiting = f", {counts['not run']} were not run yet" if counts["not run"] else ""
    claims = len({claim.says for claim in CLAIMS})
    return (
        f"**{claims} claims of papers, in {len(CLAIMS)} tests, most in smaller studies than theirs: {told}{waiting}** "
        f"([which](#what-we-reproduced-and-what-not)). {_met(own)}."
    )


def _met(own: pd.DataFrame) -> str:
    judged = own[own["verdict"] != published.FEW_SEEDS]
    few = len(own) - len(judged)
    rest = f"; {few} more {'has' if few == 1 else 'have'} too few seeds" if few else ""
    if not len(judged):
        return f"No number of a paper's own table or figure was run as published yet{rest}"
    agree, of, how_far = published.how_many_agree(judged)
    methods = list(dict.fromkeys(judged["method"]))
    named = " and ".join(f"`{name}`" for name in methods) if len(methods) < 3 else f"{len(methods)} methods"
    runs = counted(int(judged.groupby(["study", "label"])["seeds"].max().sum()), "run")
    return (
        f"Of the papers' own numbers {of} were run by their protocol ({named}, {runs}): {agree} agree; {how_far}{rest}"
    )


def claims_table(frames: dict[str, pd.DataFrame]) -> str:
    """The README's table of what was run, our difference with its interval, the verdict; then what was not run."""
    head = "| the paper says | we ran | points (95% interval; seeds) | verdict |"
    lines, missing, before = [head, "| --- | --- | --- | --- |"], 0, ""
    for claim, test, said in _verdicts(frames):
        if said == "not run":
            missing += 1
        else:
            gap = difference(claim, test).replace(" points", "").replace(" seeds)", ")")
            says = "the same" if claim.says == before else f"{claim.says} ({claim.paper})"
            lines.append(f"| {says} | {claim.brief} | {gap} | **{said}** |")
            before = claim.says
    waiting = ["", f"Not run yet: {counted(missing, 'more claim')} ([results.md](docs/results.md))."] if missing else []
    return "\n".join([*lines, *waiting])


def results_table(frames: dict[str, pd.DataFrame], published: Path) -> str:
    """The page's table: also the two arms, the study's folder, and what the row cannot say."""
    head = "| the paper says | arms | measure | study | difference (95% interval) | verdict | it cannot speak of |"
    lines = [head, "|" + " --- |" * 7]
    for claim, test, said in _verdicts(frames):
        link = f"[`{claim.study}`](../outputs/published/{claim.study})"
        study = link if (published / claim.study).is_dir() else f"`{claim.study}`"
        lines.append(
            f"| {claim.says} ({claim.paper}) | `{claim.ahead}`, `{claim.behind}` | {claim.measure} | {study}: "
            f"{claim.setting} | {difference(claim, test)} | **{said}** | {claim.cannot} |"
        )
    return "\n".join(lines)


# --- the papers' own numbers ---


def cells(folders: list[Path]) -> pd.DataFrame:
    """Every published accuracy that a study in `folders` ran as it was published: `published.compare`'s rows.

    One that several studies ran is told by the study with the most seeds.
    """
    found = []
    for folder in folders:
        study = open_study(folder)
        if len(study.frame):
            table = published.compare(study.frame, study.params, study.dataset, study.image_records)
            alike = table["verdict"].str.startswith(("agrees", "differs", published.FEW_SEEDS))
            found.append(table[alike].assign(study=folder.name, dataset=study.dataset))
    if not found:
        return pd.DataFrame(columns=[*published.COLUMNS, "study", "dataset"])
    most = pd.concat(found, ignore_index=True).sort_values("seeds", ascending=False, kind="stable")
    return most.drop_duplicates(["source", "dataset", "method", "labelled"]).sort_index(ignore_index=True)


def cells_sentence(table: pd.DataFrame) -> str:
    """What the README says of the papers' own numbers."""
    if not len(table):
        return f"**{_met(table)}.** That needs a GPU ([plan](docs/gpu.md))."
    return "The papers' own numbers: [how near](docs/results.md#the-papers-own-tables), [the rest](docs/gpu.md)."


def cells_table(table: pd.DataFrame) -> str:
    """Each published accuracy beside ours, for docs/results.md; accuracies in percent."""
    if not len(table):
        return "None was run as it was published yet."
    lines = ["| study | method | labels | published | ours, mean ± sd (seeds) | difference | verdict |",
             "|" + " --- |" * 7]  # fmt: skip
    for row in table.itertuples(index=False):
        spread = "" if row.seeds == 1 else f" ± {100 * row.deviation:.1f}"
        ours = f"{100 * row.ours:.1f}{spread} ({row.seeds})"
        lines.append(f"| `{row.study}` | `{row.method}` | {row.labelled} | {100 * row.published:.1f} | {ours} "
                     f"| {signed(100 * row.difference)} | {row.verdict} |")  # fmt: skip
    return "\n".join(lines)


def curves_list(own: pd.DataFrame, frames: dict[str, pd.DataFrame]) -> str:
    """How far a whole curve is from the published one: the mean over its numbers, each seed's on its own.

    The numbers of a curve come from the same runs, so one that agrees says nearly as much as all. Then, of a study
    with several curves, how far all of them are off together, and by how much a method's lead over `random` is.
    """
    lines: list[str] = []
    off: dict[str, dict[str, pd.Series]] = {}
    judged = own[own["verdict"] != published.FEW_SEEDS]
    for (study, label), part in judged.groupby(["study", "label"]):
        by = "cycle" if str(part["labelled"].iloc[0]).startswith("cycle") else "labelled"
        places = part["labelled"].str.split().str[-1].astype(int)  # `1000`, or `cycle 3`
        theirs = part["published"].set_axis(places)
        frame = frames[str(study)]
        runs = frame[frame["label"] == label].pivot(index="seed", columns=by, values="accuracy")
        per_seed = off.setdefault(str(study), {})[str(label)] = (runs[theirs.index] - theirs).dropna().mean(axis=1)
        lines.append(f"- `{study}`, `{label}`, {counted(len(theirs), 'number')}: {_off(per_seed)}")
    if not lines:
        return "None was run as it was published yet."
    for study, curves in off.items():
        if len(curves) > 1:
            together = pd.concat(curves.values(), axis=1).dropna().mean(axis=1)
            lines.append(f"- `{study}`, its {len(curves)} curves together: {_off(together)}")
        for label in curves if "random" in curves else ():
            if label != "random":
                lead = (curves[label] - curves["random"]).dropna()
                lines.append(f"- `{study}`, the lead of `{label}` over `random`: {_off(lead)}")
    above = [f"{(part['difference'] > 0).sum()} of {len(part)} (`{study}`)" for study, part in judged.groupby("study")]
    return "\n".join([*lines, "", f"Ours is above theirs in {', '.join(above)} numbers."])


def _off(per_seed: pd.Series) -> str:
    """`+0.8 points (−0.3 to +1.8; 5 seeds)`."""
    mean, low, high = (signed(100 * value) for value in (per_seed.mean(), *mean_interval(per_seed.to_numpy())))
    return f"{mean} points ({low} to {high}; {counted(len(per_seed), 'seed')})"


_CALIBRATED = ("cifar10_scaled", "cifar10_first", "cifar10_step")


def calibration_table(frames: dict[str, pd.DataFrame], names: Sequence[str] = _CALIBRATED) -> str:
    """Accuracy and calibration at the last number of labels, a row a study and method: mean ± deviation over seeds."""
    lines = ["| study | method | labels | seeds | accuracy, % | gap, points | ECE | NLL |", "|" + " --- |" * 8]
    for name in [name for name in names if name in frames]:
        for label, runs in frames[name].groupby("label"):
            last = runs.sort_values("cycle").groupby("seed").last()
            cells = [f"`{name}`", f"`{label}`", f"{int(last['labelled'].max()):,}", str(len(last)),
                     _spread(100 * last["accuracy"], 1), _spread(100 * last["gap"], 1),
                     f"{_spread(last['ece'], 3)} ({int(last['bins'].max())} bins)",
                     _spread(last["nll"], 2)]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "Not run yet."


def _spread(values: pd.Series, digits: int) -> str:
    """`59.8 ± 2.1`."""
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}".replace("-", "−")


_AFTER = ("pt4al", "pt4al.string_sorted_losses")


def along_table(frame: pd.DataFrame | None, ahead: Sequence[str] = _AFTER, behind: str = "random") -> str:
    """How far each of `ahead` is from `behind` at every number of labels: points, with a 95% interval over seeds.

    Bold where the whole interval is on one side of 0.
    """
    if frame is None:
        return "Not run yet."
    labelled = sorted(frame.loc[frame["label"].isin([*ahead, behind]), "labelled"].unique())
    lines = [f"| labels | {' | '.join(f'`{name}`' for name in ahead)} |", "|" + " --- |" * (1 + len(ahead))]
    for count in labelled:
        told = []
        for name in ahead:
            claim = Claim("", "", "", name, behind, "", "", "", labelled=int(count))
            test = tested(claim, frame)
            mark = "**" if verdict(test) in ("holds", "does not") else ""
            told.append(f"{mark}{difference(claim, test).replace(' points', '').split(';')[0]}){mark}")
        lines.append(f"| {count:,} | {' | '.join(told)} |")
    return "\n".join(lines)
