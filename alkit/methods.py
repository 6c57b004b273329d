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
    Method("random", "Random", "baseline", "cross_entropy", "random", "draw the query uniformly from the pool"),
    Method("least_confidence", "Least confidence", "Lewis & Gale, 1994", "cross_entropy", "least_confidence",
           "query where the most probable class is least probable"),
    Method("margin", "Margin", "Scheffer et al., 2001", "cross_entropy", "margin",
           "query where the two most probable classes are closest"),
    Method("entropy", "Entropy", "Shannon, 1948; Settles, 2009", "cross_entropy", "entropy",
           "query where the predictive distribution is most uncertain"),
    Method("ranked_margin", "Ranked margin", OO4AL, "cross_entropy", "ranked_margin",
           "plain training, RankedMS query: the control that isolates OO4AL's selection"),
    Method("mixup", "Mixup", "Zhang et al., ICLR 2018", "mixup", "random",
           "train on convex pairs of images, query at random"),
    Method("cmam", "CMaM", OO4AL, "cmam", "random",
           "Cross-Mix-and-Mix training, random query: the control that isolates OO4AL's training"),
    Method("cmam_input", "CMaM at the input", OO4AL, "cmam_input", "random",
           "the ablation that fuses the images instead of the features"),
    Method("oo4al", "OO4AL", OO4AL, "cmam", "ranked_margin",
           "Cross-Mix-and-Mix training and Ranked Margin Sampling"),
    Method("coreset", "CoreSet", "Sener & Savarese, ICLR 2018", "cross_entropy", "coreset",
           "cover the feature space: k-center greedy on penultimate features", ("features",)),
    Method("uncertain_gcn", "UncertainGCN", "Caramalau et al., CVPR 2021", "cross_entropy", "uncertain_gcn",
           "a graph network tells labelled from unlabelled; query near its margin", ("features",)),
    Method("core_gcn", "CoreGCN", "Caramalau et al., CVPR 2021", "cross_entropy", "core_gcn",
           "k-center greedy on the graph network's hidden features", ("features",)),
    Method("ll4al", "LL4AL", "Yoo & Kweon, CVPR 2019", "loss_prediction", "predicted_loss",
           "a module beside the backbone predicts each image's loss; query the highest", ("loss_module",)),
    Method("vaal", "VAAL", "Sinha et al., ICCV 2019", "cross_entropy", "vaal",
           "an adversarial autoencoder; query what looks least like the labelled set", ("vae",)),
    Method("ta_vaal", "TA-VAAL", "Kim et al., CVPR 2021", "loss_prediction", "ta_vaal",
           "VAAL conditioned on the predicted loss", ("vae", "loss_module")),
    Method("hierarchical", "Hierarchical sampling", "Dasgupta & Hsu, ICML 2008", "cross_entropy", "hierarchical",
           "prune a cluster tree as its labels are revealed", ("features", "reveals")),
    Method("temperature_scaling", "Temperature scaling", "Guo et al., ICML 2017", "cross_entropy", "calibrated",
           "calibrate on held-out labelled images, then query by `ts_selection`", calibrated=True),
    Method("bald", "BALD", "Houlsby et al., 2011; Gal et al., 2017", "cross_entropy", "bald",
           "query where posterior samples disagree most", ("posterior",)),
    Method("sbias", "Statistical bias", "Farquhar et al., ICLR 2021", "weighted", "sbias",
           "draw from a known proposal and remove the bias it brings by LURE weights", ("posterior",)),
    Method("badge", "BADGE", "Ash et al., ICLR 2020", "cross_entropy", "badge",
           "k-means++ on gradient embeddings", ("features",)),
    Method("typiclust", "TypiClust", "Hacohen et al., ICML 2022", "cross_entropy", "typiclust",
           "the most typical image of each uncovered cluster", ("features",)),
    Method("probcover", "ProbCover", "Yehuda et al., NeurIPS 2022", "cross_entropy", "probcover",
           "cover most of the feature space with balls of one radius", ("features",)),
    Method("pt4al", "PT4AL", PT4AL, "cross_entropy", "pt4al",
           "batches ordered by a pretext loss, then the least confident of each batch", ("pretext",)),
    Method("pt4al_cold_start", "PT4AL cold start", PT4AL, "cross_entropy", "pt4al",
           "the pretext task's first query only, beside a random one of the same size", ("pretext",),
           single_cycle=True),
    Method("max_herding", "MaxHerding", "Bae et al., ECCV 2024", "cross_entropy", "max_herding",
           "cover the candidates by a kernel, greedily", ("features",)),
    Method("uncertainty_herding", "Uncertainty herding", "Bae et al., ICLR 2025", "cross_entropy",
           "uncertainty_herding", "MaxHerding in which uncertain images count more", ("features",)),
    Method("dropquery", "DropQuery", "Gupte et al., TMLR 2024", "cross_entropy", "dropquery",
           "what the last layer changes its mind about under dropout, one image a cluster", ("features",)),
    Method("alfa_mix", "ALFA-Mix", "Parvaneh et al., CVPR 2022", "cross_entropy", "alfa_mix",
           "what changes its class when mixed a little with a labelled class, one image a cluster", ("features",)),
    Method("bait", "BAIT", "Ash et al., NeurIPS 2021", "cross_entropy", "bait",
           "make the Fisher information of the last layer small", ("features",)),
    Method("tcm", "TCM", "Doucet et al., 2024", "cross_entropy", "tcm",
           "TypiClust for the first queries, margin after", ("features",)),
    Method("dcom", "DCoM", "Mishal & Weinshall, 2024", "cross_entropy", "dcom",
           "cover the feature space while little is covered, query by margin after", ("features",)),
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
