"""What the released programs do that no switch of the kit does: known from reading them, and left as it is.

`alkit quirks` prints it below the register. A difference that becomes a switch moves to `alkit.quirks`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotReproduced:
    """One difference: the programs and methods (none: all) it was read in, what happens there, and why it stays."""

    programs: tuple[str, ...]
    methods: tuple[str, ...]
    released: str
    reason: str

    @property
    def of_methods(self) -> str:
        """Its methods, in words."""
        return ", ".join(self.methods) or "all"


NOT_REPRODUCED = (
    NotReproduced(
        ("OO4AL", "PT4AL"), (),
        "what is random comes from one generator of Python (first labels, the part of the pool that is looked at), one "
        "of torch (weights, batches, crops) and one of numpy (mixing). OO4AL seeds them with the trial's number, and "
        "its unbalanced pool is sorted by class; PT4AL seeds none",
        "here each purpose has a generator of its own, so that runs go on after a stop and methods of one seed share "
        "what they can; the draws are as likely, but seed 0 is not their trial 0",
    ),
    NotReproduced(
        ("OO4AL", "TA-VAAL"), ("ta_vaal",),
        "in the autoencoder's first step the predicted losses are uniform random numbers",
        "one step of thousands",
    ),
    NotReproduced(
        ("Sequential GCN", "VAAL"), ("vaal",),
        "the KL term is summed over images and code, not averaged",
        "`vae_beta` sets it: batch × latent times the default",
    ),
    NotReproduced(
        ("PT4AL",), ("random",),
        "`random` is one training on 1,000 images drawn anew; other numbers of labels are set by hand",
        "here the labelled set grows from cycle to cycle; each cycle starts from fresh weights, as the script does",
    ),
    NotReproduced(
        ("OO4AL",), ("vaal",),
        "the autoencoder is trained beside the classifier, step by step, on augmented labelled images; the main script "
        "that was released does not build it",
        "the released method does not run",
    ),
    NotReproduced(
        ("TA-VAAL",), ("vaal", "coreset"),
        "VAAL is in the list of methods but has no code, and CoreSet's code asks for a model that is not there",
        "neither of the two runs",
    ),
    NotReproduced(
        ("LL4AL", "Sequential GCN", "TA-VAAL"), ("ll4al", "ta_vaal"),
        "a batch of an odd number of images stops the program",
        "here its middle image is left out of the ranking",
    ),
    NotReproduced(
        ("Sequential GCN", "TA-VAAL", "OO4AL"), ("uncertain_gcn", "core_gcn"),
        "a score of exactly 0 or 1 gives an infinite loss",
        "computed from logits here; the same wherever the program's loss is finite",
    ),
)  # fmt: skip
