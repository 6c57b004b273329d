"""Experiment: the one place where a parameter of a run exists, with its type, its limits and what it is for."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from alkit.config.own_module import import_own, look_in
from alkit.config.study_yaml import EXAMPLES
from alkit.errors import ConfigError, nearest
from alkit.errors.words import shown
from alkit.methods import METHODS, Method, get_method
from alkit.quirks import quirk_states

_NUMERAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def _numeral(value: object) -> object:
    """YAML 1.1 reads `1e-4` as text; it is a number to everybody else."""
    return float(value) if isinstance(value, str) and _NUMERAL.fullmatch(value) else value


def _plain(value: object) -> object:
    """What Python's own code has at hand, as a study file would say it: numpy's numbers, paths, tuples and arrays."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(each) for each in value]
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


Real = Annotated[float, BeforeValidator(_numeral), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Divisor = Annotated[Real, Field(ge=1e-6)]  # divided by, also squared: not so small that a result overflows
Fraction = Annotated[Real, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
NAME, DEVICE = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}$", r"^(auto|cpu|cuda(:\d+)?)$"
IN_WORDS = {NAME: "letters, digits and _ . + - (first a letter or digit; at most 100)",
            DEVICE: "auto, cpu, cuda or cuda:NUMBER"}  # fmt: skip
Name = Annotated[str, Field(pattern=NAME)]
Device = Annotated[str, Field(pattern=DEVICE)]

DATA_OPTIONS = (
    "image_size", "pool_size", "test_size", "class_balance", "test_class_balance", "imbalance_factor", "label_noise",
    "skip_broken", "test_fraction", "dataset_seed",
)  # fmt: skip
"""The fields of Experiment that, with `dataset` and `data_root`, decide which images and labels there are."""

PATHS = ("data_root", "pretext_losses", "features", "first_labelled")
"""The fields that name a file or folder; in a study file a relative one counts from the file."""

ECE_BINS = {"corrected": 15, "released": 100}
"""Bins of ECE and OE by the protocol, where `calibration_bins` does not say."""

FREE_PARAMETERS = {"checkpoint_seconds", "keep_models", "data_root", "features", "device", "eval_batch_size",
                   "pretext_supervised", "strategies"}  # fmt: skip
"""Parameters that cannot change a run's numbers, so that a run may go on with others."""


class Checked(BaseModel):
    """A model that refuses unknown keys and reports the first mistake in one line."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**{key: _plain(value) for key, value in values.items()})
        except ValidationError as error:
            raise ConfigError(_one_line(error, type(self))) from None


class Experiment(Checked):
    """Every parameter of one run: data, model, training, query, evaluation, device. The defaults are the digits demo.

    Unknown keys, wrong types and impossible values raise `ConfigError`, a `ValueError` of one line that names the key.
    """

    # data
    dataset: str = Field("digits", description="name of the data set (`alkit datasets`)")
    data_root: str | None = Field(None, description="folder that holds the data set; null: the usual cache folder")
    image_size: Count | None = Field(None, description="resize images to this many pixels a side; null: as they are")
    pool_size: Count | None = Field(None, description="keep a stratified part of the training images as the pool")
    test_size: Count | None = Field(None, description="keep a stratified part of the test images")
    class_balance: list[Positive] | None = Field(None, description="fraction of each class kept in the pool")
    test_class_balance: list[Positive] | None = Field(None, description="fraction of each class kept for the test")
    imbalance_factor: Annotated[Real, Field(ge=1)] | None = Field(
        None, description="largest over smallest class of an exponential profile; null: the data set's own"
    )
    label_noise: Fraction = Field(0.0, description="fraction of training labels replaced at random")
    skip_broken: bool = Field(False, description="skip and count files that are not images instead of refusing")
    test_fraction: Annotated[Real, Field(gt=0, lt=1)] = Field(0.2, description="split of a folder without test images")
    dataset_seed: Seed = Field(0, description="seed of every choice that makes the data set")
    features: str | None = Field(
        None, description="file of fixed features, a row an image: from `alkit features`, or one's own NAME_train.npy"
    )
    augmentation: Literal["auto", "none", "crop_flip", "crop", "resized_crop_flip"] = Field(
        "auto", description="auto: what the data set's entry names"
    )

    # the cycle
    strategies: str | None = Field(
        None, description="module of your own that adds strategies and methods, e.g. my_package.my_module"
    )
    method: str = Field("random", description="row of the methods table (`alkit methods`)")
    label: Name | None = Field(None, description="what this run is called in its study; null: the method's id")
    seed: Seed = Field(0, description="what all random numbers of the run begin with")
    initial: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        20, description="images in the first labelled set; 0: the strategy makes the first query, of `budget` images"
    )
    first_labelled: str | None = Field(
        None, description="file of the first labelled images' places in the pool, one a line: alike for all methods"
    )
    initial_balanced: bool = Field(False, description="the first labelled set holds every class equally often")
    budget: Count = Field(20, description="labels bought each cycle")
    subset: Count | None = Field(None, description="candidates drawn from the pool each cycle; null: all of it")
    cycles: Count = Field(5, description="times the model is trained; the first uses the initial labels")

    # model
    model: Literal[
        "resnet18", "resnet10", "mc_dropout_cnn", "consistent_dropout_cnn", "radial_cnn", "linear", "mlp"
    ] = Field("resnet10", description="linear and mlp are trained on `features`")
    width: Count = Field(16, description="channels of the first stage; of mlp, the hidden layer")
    stem: Literal["cifar", "imagenet"] = Field("cifar", description="3×3 convolution, or 7×7 with max-pooling")
    dropout: Annotated[Real, Field(ge=0, lt=1)] | None = Field(
        None, description="dropout on the penultimate features; null: 0.5 where a posterior is needed, else 0"
    )

    # training
    epochs: Count = Field(60, description="passes over the labelled images a cycle")
    epoch_images: Count | None = Field(
        None,
        description="images that an epoch draws from the labelled ones, each as often as the others or once "
        "more, however few there are (statistical bias: 1000); null: each once",
    )
    batch_size: Count = Field(64, description="images a step")
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Positive = Field(0.05, description="learning rate")
    momentum: Annotated[Real, Field(ge=0, lt=1)] = Field(0.9, description="of SGD")
    weight_decay: NonNegative = Field(5e-4, description="L2 penalty of the weights")
    milestones: list[Count] = Field([48], description="epochs after which the learning rate is multiplied by lr_gamma")
    lr_gamma: Positive = Field(0.1, description="what the rate is multiplied by at each milestone")
    early_stopping: Count | None = Field(
        None, description="stop after this many epochs without a better validation loss"
    )
    validation_size: Annotated[int, Field(ge=0)] = Field(
        0, description="pool images held out with labels to stop early"
    )
    alpha: Positive = Field(0.4, description="mixup and CMaM draw λ from Beta(alpha, alpha)")
    cmam_layer: Annotated[int, Field(ge=0, le=4)] = Field(1, description="stage after which CMaM fuses the features")
    cmam_pairing: Literal["permutation", "involution"] = Field(
        "permutation",
        description="involution: x2 = x1[π], so the lower stages run once; faster, and worse where labels are few",
    )
    ll_weight: NonNegative = Field(1.0, description="weight of the ranking loss (LL4AL, TA-VAAL)")
    ll_margin: NonNegative = Field(1.0, description="margin of the ranking loss")
    ll_detach: Annotated[int, Field(ge=0)] | None = Field(
        None, description="epoch from which the loss module no longer shapes the backbone; null: 60% of the epochs"
    )

    # query
    query_features: Literal["fixed", "model"] | None = Field(
        None, description="what strategies select on: the fixed features, or the model's; null: fixed if there are some"
    )
    gcn_hidden: Count = Field(128, description="graph network: hidden features")
    gcn_dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(0.3, description="graph network: dropout")
    gcn_steps: Count = Field(200, description="graph network: steps")
    gcn_lr: Positive = Field(1e-3, description="graph network: learning rate")
    gcn_weight_decay: NonNegative = Field(5e-4, description="graph network: weight decay")
    gcn_lambda: NonNegative = Field(1.2, description="weight of the unlabelled term")
    gcn_margin: Fraction = Field(0.1, description="score nearest which UncertainGCN queries")
    vae_epochs: Count = Field(100, description="VAAL's autoencoder: epochs")
    vae_latent: Count = Field(32, description="VAAL's autoencoder: size of its code")
    vae_width: Count = Field(128, description="channels of the encoder's first convolution")
    vae_lr: Positive = Field(5e-4, description="VAAL's autoencoder: learning rate")
    vae_beta: NonNegative = Field(1.0, description="weight of the KL term")
    vae_adversarial: NonNegative = Field(1.0, description="weight of the adversarial term")
    posterior_samples: Count = Field(100, description="samples of the model's posterior to score with")
    training_samples: Count = Field(8, description="posterior samples a training step averages over (radial networks)")
    sbias_score: Literal["mutual_information", "entropy", "random"] = "mutual_information"
    sbias_proposal: Literal["softmax", "proportional"] = Field("softmax", description="how scores become probabilities")
    sbias_temperature: Positive = Field(15_000.0, description="temperature of the softmax proposal")
    sbias_estimator: Literal["lure", "pure", "none"] = Field("lure", description="weights that take the bias away")
    ts_selection: Literal["random", "least_confidence", "margin", "entropy", "ranked_margin"] = "random"
    ts_holdout: Annotated[Real, Field(gt=0, lt=1)] = Field(
        0.1, description="part of the labelled set held out to fit the temperature"
    )
    typiclust_neighbours: Count = Field(20, description="neighbours that say how typical an image is")
    typiclust_max_clusters: Count = Field(500, description="at most so many clusters")
    probcover_purity: Fraction = Field(0.95, description="ball purity that chooses ProbCover's radius (also DCoM's)")
    herding_delta: Divisor = Field(1.0, description="width of MaxHerding's kernel, on features of length 1")
    tcm_switch: Count = Field(3, description="queries by TypiClust before TCM goes over to margin")
    dropquery_passes: Count = Field(3, description="passes of the last layer under dropout")
    dropquery_dropout: Annotated[Real, Field(gt=0, lt=1)] = Field(0.75, description="part of the features dropped")
    alfa_strength: Positive = Field(0.2, description="how far ALFA-Mix mixes: its ε is this / √D")
    bait_form: Literal["binary", "full"] = Field(
        "binary", description="full: all classes, for small classes × features"
    )
    bait_ridge: Divisor = Field(1.0, description="what is added to the Fisher information, so that it can be inverted")
    pretext: Literal["rotation", "colorization", "jigsaw", "simsiam"] = "rotation"
    pretext_epochs: Count = Field(15, description="epochs of the pretext task")
    pretext_batch_size: Count = Field(256, description="images a step of the pretext task")
    pretext_lr: Positive = Field(0.1, description="learning rate of the pretext task")
    pretext_losses: str | None = Field(
        None, description="file of pretext losses to use: pretext.npz, or LOSS_PATH lines"
    )
    pretext_supervised: bool = Field(
        True, description="pretext.ipynb also trains on all labels, to compare its losses with the pretext task's"
    )
    pt4al_order: Literal["numeric", "text"] = Field("numeric", description="how losses are sorted into batches")
    pt4al_sampler: Literal["confidence", "entropy", "class_balanced"] = "confidence"

    # evaluation, device, record
    calibration_bins: Count | None = Field(
        None, description="bins of ECE and OE; null: 15, or the papers' 100 under `protocol: released`"
    )
    eval_batch_size: Count | None = Field(None, description="null: chosen by memory")
    device: Device = Field("auto", description="auto: a free NVIDIA GPU, else the processor")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of training and evaluation")
    threads: Count | None = Field(None, description="CPU threads of the run; null: all")
    checkpoint_seconds: NonNegative = Field(60.0, description="least time between two checkpoints within a cycle")
    keep_models: bool = Field(False, description="keep every cycle's weights in the papers' checkpoint layout")
    protocol: Literal["corrected", "released"] = "corrected"
    program: str | None = Field(
        None, description="with `protocol: released`: only the quirks seen in this program; null: those of any"
    )
    quirks: dict[str, bool] = Field({}, description="state of single quirks (`alkit quirks`)")

    @field_validator("strategies")
    @classmethod
    def _imported(cls, value: str | None) -> str | None:
        if value is not None:
            import_own(value)  # before `method` is looked at, which may be one of its
        return value

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        return get_method(value).id

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)):
            raise ValueError("expected epochs in ascending order, each once")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        quirk_states(self.protocol, self.quirks, get_method(self.method), self.dataset, self.program)
        if self.subset is not None and self.subset < self.budget:
            raise ValueError(f"subset: {self.subset} candidates cannot give a budget of {self.budget}")
        self._check_features()
        if self.early_stopping is not None and not self.validation_size:
            raise ValueError("early_stopping: needs validation_size, the number of images to stop by")
        return self

    def _check_features(self) -> None:
        """Refuse what fixed features, or a model that is trained on them, cannot give."""
        if self.features is None:
            for name in ("model", "query_features"):
                if getattr(self, name) in ("linear", "mlp", "fixed"):
                    raise ValueError(f"{name}: '{getattr(self, name)}' needs features (`alkit features` makes a file)")
        if self.on_features:
            needs = {"vae": "images", "pretext": "images", "loss_prediction": "stages for a loss module"}
            lacking = [needs[n] for n in (*self.row.needs, self.row.objective) if n in needs]
            if lacking or self.quirk("ranking_loss_for_all"):
                what = lacking[0] if lacking else needs["loss_prediction"]
                raise ValueError(f"method: '{self.method}' needs {what}, which model '{self.model}' has not")
            if self.augmentation not in ("auto", "none"):
                raise ValueError(
                    f"augmentation: features are no images; expected auto or none, not '{self.augmentation}'"
                )
            layers = int(self.model == "mlp")
            if self.row.objective == "cmam" and self.cmam_layer > layers:
                raise ValueError(f"cmam_layer: model '{self.model}' can fuse after layer 0 to {layers}, "
                                 f"not {self.cmam_layer}")  # fmt: skip
        if self.first_labelled is not None and not self.initial:
            raise ValueError("first_labelled: the first labels are given; expected initial to be their number, not 0")
        if not self.initial and self.initial_balanced:
            raise ValueError("initial_balanced: with initial 0 the strategy makes the first query")

    @property
    def on_features(self) -> bool:
        """Whether the model is trained on fixed features, not on images."""
        return self.model in ("linear", "mlp")

    @property
    def selects_on_features(self) -> bool:
        """Whether strategies see the fixed features."""
        return self.features is not None and self.query_features != "model"

    @property
    def first_count(self) -> int:
        """Labels that the first model is trained on."""
        return self.initial or self.budget

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> Experiment:
        """The experiment of a study file: its shared parameters, its first method and seed, then `overrides`."""
        from alkit.config.study import Study

        look_in(Path(path).parent)
        return Study.from_yaml(path).experiment(**overrides)

    @property
    def row(self) -> Method:
        """The method's row of the table."""
        return METHODS[self.method]

    @property
    def name(self) -> str:
        """What the run is called in its study: its label, or the method's id."""
        return self.label or self.method

    @property
    def quirk_states(self) -> dict[str, bool]:
        """The state of every quirk that applies to this run."""
        return quirk_states(self.protocol, self.quirks, self.row, self.dataset, self.program)

    def quirk(self, name: str) -> bool:
        """Whether the quirk `name` is switched on; one that does not apply is off."""
        return self.quirk_states.get(name, False)

    def data_options(self) -> dict[str, Any]:
        """The fields that decide which images and labels there are."""
        return {name: getattr(self, name) for name in DATA_OPTIONS}

    @property
    def cycle_count(self) -> int:
        """How many times the model is trained."""
        return 1 if self.row.single_cycle else self.cycles

    @property
    def ece_bins(self) -> int:
        """Bins of confidence that ECE and OE are measured in: ECE grows with them where images are few."""
        return self.calibration_bins or ECE_BINS[self.protocol]

    @property
    def quota(self) -> int:
        """Labels bought each cycle: the budget, or 1000 under the quirk `hsamp_fixed_quota`."""
        return 1000 if self.quirk("hsamp_fixed_quota") else self.budget

    def labels_needed(self, pool_size: int, each: int | None = None) -> int:
        """Labels of the last cycle of a pool of `pool_size` images; each cycle buys `each`, by default the budget."""
        return pool_size if self.row.whole_pool else self.first_count + (self.cycle_count - 1) * (each or self.budget)

    def check_pool(self, pool_size: int, num_classes: int) -> None:
        """Refuse a first labelled set or budget that `pool_size` images of `num_classes` classes cannot give."""
        available = pool_size - self.validation_size
        if self.validation_size >= pool_size:
            raise ConfigError(f"validation_size: {self.validation_size} is not smaller than the {pool_size} images")
        if self.initial > available:
            raise ConfigError(f"initial: {self.initial} is larger than the pool of {available} images")
        if self.initial_balanced and self.initial < num_classes:
            raise ConfigError(
                f"initial: {self.initial} images leave a class missing; "
                f"initial_balanced needs at least one of each of {num_classes} classes"
            )
        needed = min(self.labels_needed(available, self.quota), available)
        if self.epoch_images is not None and self.epoch_images < needed:
            raise ConfigError(
                f"epoch_images: {self.epoch_images} draws would leave out some of the last cycle's {needed} labelled "
                f"images; expected at least {needed}, or null"
            )
        if self.budget > available and (self.cycle_count > 1 or not self.initial):
            raise ConfigError(f"budget: {self.budget} is larger than the pool of {available} images")
        if self.labels_needed(available) > available:
            raise ConfigError(
                f"cycles: {self.cycles} cycles need {self.labels_needed(available)} labels (initial "
                f"{self.first_count} + {self.cycles - 1} × budget {self.budget}), the pool has {available}"
            )


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of a validation, as `key: what was expected, not 'what came'`."""
    from alkit.config.study import Study

    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    if first["type"] == "extra_forbidden":
        if model is Experiment and key in Study.own_keys():
            return f"{key}: not a parameter of a run; it belongs at the top of a study file"
        return f"{key}: unknown parameter{nearest(key, [*model.model_fields, *Study.own_keys()])}"
    message = re.sub("^(Input|String) should( be)?", "expected", first["msg"].removeprefix("Value error, "))
    example = EXAMPLES.get(key) if first["type"] in ("list_type", "dict_type") else None
    message = message.replace("valid list", "list").replace("valid dictionary", "mapping")
    message += f", such as {example}" if example else ""
    if first["type"] == "string_pattern_mismatch":
        message = f"expected {IN_WORDS[first['ctx']['pattern']]}"
    if first["type"] == "value_error":
        return message if not key or message.startswith(f"{key}:") else f"{key}: {message}"
    return f"{key}: {message}, not {shown(first['input'])}"
