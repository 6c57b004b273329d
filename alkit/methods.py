"""The papers' tables as data: a method is an objective and a strategy (and, for PT4AL, a pretext task).

To add a method, add a row here, or call `add_method` in a notebook; to add a strategy, see `alkit.strategies`.
This module imports nothing heavy, so that `alkit methods` and the grid can read it at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from alkit.errors import ConfigError, nearest

OO4AL = "Hwang et al., OO4AL (IEEE Access 2024)"
PT4AL = "Yi et al., PT4AL (ECCV 2022)"


@dataclass(frozen=True)
class Method:
    """One row of the table.

    `needs` names what the strategy asks of the model beyond logits: `features`, `posterior` (samples of a
    Bayesian model), `loss_module`, `vae`, `pretext` (losses of a pretext task), `reveals` (labels one by one).
    `single_cycle` methods train once; `calibrated` ones fit a temperature on a held-out part of the labelled set.
    """

    id: str
    title: str
    paper: str
    objective: str
    strategy: str
    summary: str
    needs: tuple[str, ...] = ()
    single_cycle: bool = False
    calibrated: bool = False
    whole_pool: bool = False


_ROWS = [
    Method("random", "Random", "baseline", "cross_entropy", "random",
           "ask for images drawn at random: what the others must beat"),
    Method("least_confidence", "Least confidence", "Lewis & Gale, 1994", "cross_entropy", "least_confidence",
           "ask where the most probable class is least probable"),
    Method("margin", "Margin", "Scheffer et al., 2001", "cross_entropy", "margin",
           "ask where the two most probable classes are closest"),
    Method("entropy", "Entropy", "Shannon, 1948; Settles, 2009", "cross_entropy", "entropy",
           "ask where the whole prediction is most uncertain"),
    Method("ranked_margin", "Ranked margin", OO4AL, "cross_entropy", "ranked_margin",
           "OO4AL's query alone (Ranked Margin Sampling), with plain training"),
    Method("mixup", "Mixup", "Zhang et al., ICLR 2018", "mixup", "random",
           "train on mixtures of two images; ask at random"),
    Method("cmam", "CMaM", OO4AL, "cmam", "random",
           "OO4AL's training alone (Cross-Mix-and-Mix); ask at random"),
    Method("cmam_input", "CMaM at the input", OO4AL, "cmam_input", "random",
           "as `cmam`, but mixing images only"),
    Method("oo4al", "OO4AL", OO4AL, "cmam", "ranked_margin",
           "train on mixed images and features; ask where all class probabilities are close"),
    Method("coreset", "CoreSet", "Sener & Savarese, ICLR 2018", "cross_entropy", "coreset",
           "ask for the image farthest from all labelled ones, again and again", ("features",)),
    Method("uncertain_gcn", "UncertainGCN", "Caramalau et al., CVPR 2021", "cross_entropy", "uncertain_gcn",
           "a graph network tells labelled from unlabelled images; ask where it is unsure", ("features",)),
    Method("core_gcn", "CoreGCN", "Caramalau et al., CVPR 2021", "cross_entropy", "core_gcn",
           "CoreSet on the graph network's hidden features", ("features",)),
    Method("ll4al", "LL4AL", "Yoo & Kweon, CVPR 2019", "loss_prediction", "predicted_loss",
           "a small module learns to predict each image's loss; ask for the highest", ("loss_module",)),
    Method("vaal", "VAAL", "Sinha et al., ICCV 2019", "cross_entropy", "vaal",
           "an adversarial autoencoder; ask for what looks least like the labelled images", ("vae",)),
    Method("ta_vaal", "TA-VAAL", "Kim et al., CVPR 2021", "loss_prediction", "ta_vaal",
           "VAAL that also sees the predicted loss", ("vae", "loss_module")),
    Method("hierarchical", "Hierarchical sampling", "Dasgupta & Hsu, ICML 2008", "cross_entropy", "hierarchical",
           "a tree of clusters, cut finer where labels disagree", ("features", "reveals")),
    Method("temperature_scaling", "Temperature scaling", "Guo et al., ICML 2017", "cross_entropy", "calibrated",
           "correct the confidence on held-out labels, then ask", calibrated=True),
    Method("bald", "BALD", "Houlsby et al., 2011; Gal et al., 2017", "cross_entropy", "bald",
           "ask where samples of a Bayesian model disagree most", ("posterior",)),
    Method("sbias", "Statistical bias", "Farquhar et al., ICLR 2021", "weighted", "sbias",
           "draw with known probabilities; weights take away the bias of the draw", ("posterior",)),
    Method("badge", "BADGE", "Ash et al., ICLR 2020", "cross_entropy", "badge",
           "draw images whose gradients are long and differ from each other", ("features",)),
    Method("typiclust", "TypiClust", "Hacohen et al., ICML 2022", "cross_entropy", "typiclust",
           "the most typical image of each cluster that has no label", ("features",)),
    Method("probcover", "ProbCover", "Yehuda et al., NeurIPS 2022", "cross_entropy", "probcover",
           "cover the most images with balls of one radius", ("features",)),
    Method("pt4al", "PT4AL", PT4AL, "cross_entropy", "pt4al",
           "sort the pool by a task without labels; each cycle asks within one part", ("pretext",)),
    Method("pt4al_cold_start", "PT4AL cold start", PT4AL, "cross_entropy", "pt4al",
           "PT4AL's first labelled images only", ("pretext",),
           single_cycle=True),
    Method("max_herding", "MaxHerding", "Bae et al., ECCV 2024", "cross_entropy", "max_herding",
           "as ProbCover, but cover fades with distance (a kernel)", ("features",)),
    Method("uncertainty_herding", "Uncertainty herding", "Bae et al., ICLR 2025", "cross_entropy",
           "uncertainty_herding", "MaxHerding in which uncertain images count more", ("features",)),
    Method("dropquery", "DropQuery", "Gupte et al., TMLR 2024", "cross_entropy", "dropquery",
           "ask where dropout changes the predicted class, one image a cluster", ("features",)),
    Method("alfa_mix", "ALFA-Mix", "Parvaneh et al., CVPR 2022", "cross_entropy", "alfa_mix",
           "ask where a little of another class changes the prediction, one image a cluster", ("features",)),
    Method("bait", "BAIT", "Ash et al., NeurIPS 2021", "cross_entropy", "bait",
           "ask for what leaves the last layer least uncertain (Fisher information)", ("features",)),
    Method("tcm", "TCM", "Doucet et al., 2024", "cross_entropy", "tcm",
           "TypiClust for the first queries, margin after", ("features",)),
    Method("dcom", "DCoM", "Mishal & Weinshall, 2024", "cross_entropy", "dcom",
           "cover the images while few are covered, margin after", ("features",)),
    Method("whole_dataset", "Whole data set", "upper line", "cross_entropy", "random",
           "train on every label: the upper line of every plot", single_cycle=True, whole_pool=True),
]  # fmt: skip

METHODS: dict[str, Method] = {row.id: row for row in _ROWS}


def get_method(name: str) -> Method:
    """The row `name`; `ConfigError` naming the nearest one if there is none."""
    if name not in METHODS:
        raise ConfigError(
            f"method: no method '{name}'{nearest(name, METHODS)} (`alkit methods` lists them); "
            "one of your own needs `strategies: its_module`"
        )
    return METHODS[name]


_ADDED: list[str] = []


def add_method(method: Method) -> Method:
    """Add a row of one's own to the table, for this process: a cell of a notebook can run its own strategy.

    Asked again, it replaces the row it added before, so that a cell can be run twice. Raises `ConfigError` for an id
    of the kit's own table, and for an objective that no row of the table has.
    """
    if method.id in METHODS and method.id not in _ADDED:
        raise ConfigError(f"method: '{method.id}' is a row of the kit's own table; choose another id")
    objectives = {row.objective for row in METHODS.values()}
    if method.objective not in objectives:
        raise ConfigError(f"objective: no objective '{method.objective}'{nearest(method.objective, objectives)}")
    METHODS[method.id] = method
    if method.id not in _ADDED:
        _ADDED.append(method.id)
    return method


def added_methods() -> tuple[str, ...]:
    """The ids of the rows that `add_method` added, in order."""
    return tuple(_ADDED)
