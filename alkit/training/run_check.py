"""What is refused before a run starts: all that its parameters and its data set decide, without decoding an image.

`alkit run`, its dry run, a notebook and the learner ask the same functions; a rule stands with what it is about: in
`Experiment.check_pool`, the model, the pretext task or the strategy (`Strategy.check`).
"""

from __future__ import annotations

from alkit.config import Experiment
from alkit.data import Facts
from alkit.data.first import available_of, first_labelled
from alkit.errors import ConfigError
from alkit.models import check_network
from alkit.strategies.base import check_start, make_strategy
from alkit.training.pretext.base import check_task


def check_run(experiment: Experiment, facts: Facts) -> None:
    """Refuse, by a `ConfigError` or `DataError` of one line, a run that its images cannot give."""
    experiment.check_pool(facts.pool, facts.classes)
    check_start(experiment)
    if experiment.row.calibrated and not experiment.quirk("ts_fit_on_train") and experiment.first_count < 2:
        raise ConfigError(
            f"initial: method '{experiment.method}' holds out a part of the first labels to fit the temperature; "
            "expected at least 2"
        )
    if experiment.first_labelled is not None and not experiment.row.whole_pool:
        first_labelled(experiment, available_of(experiment, facts.pool)[1])
    check_network(experiment, facts)
    if "pretext" in experiment.row.needs and experiment.pretext_losses is None:
        check_task(experiment, facts.shape)
    make_strategy(experiment).check(facts)
