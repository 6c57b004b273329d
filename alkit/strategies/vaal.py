"""VAAL (Sinha et al., ICCV 2019) and TA-VAAL (Kim et al., CVPR 2021): query what looks least like the labelled set.

An autoencoder of all images plays against a discriminator of labelled and unlabelled codes. TA-VAAL also shows both
the loss that the loss module predicts for each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alkit.data import ImageSet
from alkit.models import VAE, Discriminator, seeded
from alkit.models.divergence import of_training, require_finite
from alkit.models.steps import Draws, Row, StepLoop, recorder_for
from alkit.models.vaal import begin_kaiming
from alkit.strategies.base import Pool, Query, Strategy, register, top


def vae_loss(images: Tensor, reconstruction: Tensor, mu: Tensor, log_variance: Tensor, beta: float = 1.0) -> Tensor:
    """Squared error, mean over pixels, + β × KL(code ‖ N(0, I)) in nats, mean over images and the code's numbers.

    `images` and `reconstruction` are (B, C, H, W), `mu` and `log_variance` of the code (B, latent). So in
    TA-VAAL's program, which the tables' figures come from. VAAL's own sums the KL over both instead: there β is
    batch × latent times ours. Sinha et al., ICCV 2019.
    """
    divergence = 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance)
    return F.mse_loss(reconstruction.float(), images) + beta * divergence.mean()


def adversarial_loss(labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """What the autoencoder pays for logits (B,) and (B',) of the discriminator that do not call both labelled."""
    return F.softplus(-labelled).mean() + F.softplus(-unlabelled).mean()


def discriminator_loss(labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """Binary cross-entropy of the discriminator's logits: labelled (B,) are 1, unlabelled (B',) are 0."""
    return F.softplus(-labelled).mean() + F.softplus(unlabelled).mean()


def batches_of(count: int, steps: int, size: int, generator: torch.Generator) -> Tensor:
    """Positions (steps, size) below `count`: passes over all of them, each in a random order, one after another."""
    passes = -(-steps * size // count)
    order = [torch.randperm(count, generator=generator) for _ in range(passes)]
    return torch.cat(order)[: steps * size].view(steps, size)


def batches_in_order(count: int, steps: int, size: int) -> list[Tensor]:
    """Positions below `count` for each of `steps` steps: passes in their order, each with its smaller last batch.

    The quirk `vae_sequential_loaders`.
    """
    one = torch.arange(count).split(size)
    return [one[step % len(one)] for step in range(steps)]


def step_count(labelled: int, candidates: int, epochs: int, batch_size: int) -> int:
    """(|L| + |S|)·epochs / batch, at least 1."""
    return max(1, (labelled + candidates) * epochs // batch_size)


def train_vaal(
    vae: VAE,
    discriminator: Discriminator,
    images: ImageSet,
    labelled: Tensor,
    unlabelled: Tensor,
    generator: torch.Generator,
    ranks: tuple[Tensor, Tensor] | None = None,
    *,
    steps: int,
    batch_size: int = 128,
    lr: float = 5e-4,
    beta: float = 1.0,
    adversarial: float = 1.0,
    in_order: bool = False,
) -> None:
    """Train both networks, in turn, for `steps` steps on the images `labelled` (m,) and `unlabelled` (n,) of `images`.

    `ranks` are the predicted losses (m,) and (n,) that condition both. `generator` is on the CPU: batches and the
    noise of the codes come from it. With `in_order` the images come as they stand (`batches_in_order`). Nothing is read
    back from the device before the last step; then `DivergedError` is raised for a loss that is not a number.
    """
    device = images.device
    size = max(2, batch_size)
    places = [
        batches_in_order(len(part), steps, size) if in_order else list(batches_of(len(part), steps, size, generator))
        for part in (labelled, unlabelled)
    ]
    noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    chosen = [[part[batch] for batch in batches] for part, batches in zip((labelled.cpu(), unlabelled.cpu()), places,
              strict=True)]  # fmt: skip
    shown = [[rank.cpu()[batch] for batch in batches] for rank, batches in zip(ranks or (), places, strict=bool(ranks))]
    rows = _rows({"labelled": chosen[0], "unlabelled": chosen[1]}
                 | ({"rank": shown[0], "other rank": shown[1]} if shown else {}), device)  # fmt: skip
    streams = zip(*(images.stream([b.to(device) for b in part]) for part in chosen), strict=True)
    on_cuda = device.type == "cuda"
    optimizers = [torch.optim.Adam(n.parameters(), lr, capturable=on_cuda) for n in (vae, discriminator)]
    vae.train()
    discriminator.train()

    def step(row: Row, _: Tensor | None) -> Tensor:
        pixels = [images.take(row[name]) for name in ("labelled", "unlabelled")] if images.resident else next(streams)
        batches = [images.normalise(part).contiguous(memory_format=torch.channels_last) for part in pixels]
        r = [row.get("rank"), row.get("other rank")]
        loss, codes = torch.zeros((), device=device), []
        for x, condition in zip(batches, r, strict=True):
            reconstruction, mu, log_variance = vae(x, noise, None if condition is None else condition.sigmoid())
            loss = loss + vae_loss(x, reconstruction, mu, log_variance, beta)
            codes.append(discriminator(mu, condition))
        _descend(loss + adversarial * adversarial_loss(*codes), optimizers[0])
        with torch.no_grad():
            means = [vae.encode(x)[0] for x in batches]
        against = discriminator_loss(*map(discriminator, means, r))
        _descend(against, optimizers[1])
        return loss.detach() + against.detach()

    loop = StepLoop(device, recorder_for(device, [noise]) if images.resident else None)
    losses = [loop.run(step, part) for part in rows]
    loop.forget()
    require_finite(torch.cat(losses), "the loss of the autoencoder and its discriminator", "step")


def _rows(steps: dict[str, list[Tensor]], device: torch.device) -> list[Draws]:
    """The batches of all steps as one `Draws`; where they are of several sizes, one a step."""
    alike = all(len({len(batch) for batch in batches}) == 1 for batches in steps.values())
    count = len(next(iter(steps.values())))
    parts = [slice(0, count)] if alike else [slice(i, i + 1) for i in range(count)]
    return [
        Draws([1] * (part.stop - part.start), once={k: torch.stack(v[part]).to(device) for k, v in steps.items()})
        for part in parts
    ]


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of the network that `optimizer` holds; the other gathers no gradient."""
    parameters = optimizer.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def labelled_logits(
    vae: VAE,
    discriminator: Discriminator,
    images: ImageSet,
    indices: Tensor,
    ranks: Tensor | None = None,
    batch_size: int = 128,
    train_mode: bool = False,
) -> Tensor:
    """The discriminator's logits (n,) of μ(x) for the images `indices` (n,): how labelled each looks.

    `train_mode` is the quirk `vae_train_mode_scoring`: batch-norm takes each batch's own statistics.
    """
    vae.train(train_mode)
    discriminator.eval()
    batches: Sequence[Tensor] = torch.split(indices.to(images.device), batch_size)
    conditions: Sequence[Tensor | None] = (
        torch.split(ranks.to(images.device), batch_size) if ranks is not None else [None] * len(batches)
    )
    scores = []
    for pixels, condition in zip(images.stream(batches), conditions, strict=True):
        x = images.normalise(pixels).contiguous(memory_format=torch.channels_last)
        scores.append(discriminator(vae.encode(x)[0], condition).float())
    return torch.cat(scores)


@register("vaal", "ta_vaal")
class Vaal(Strategy):
    """The candidates of highest 1 − D(μ(x)), ranked by the discriminator's logit, which does not saturate.

    A fresh pair of networks is trained at each query; `ta_vaal` shows them the predicted losses.
    """

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        experiment, images = self.experiment, pool.images
        conditional = experiment.row.strategy == "ta_vaal"
        ranks = (pool.labelled_predicted_loss, pool.predicted_loss) if conditional else None
        vae, discriminator = self._networks(images, conditional, generator)
        in_order, train_mode = experiment.quirk("vae_sequential_loaders"), experiment.quirk("vae_train_mode_scoring")
        # the programs shuffle the candidates once: their own order may go by class, and so would a batch's statistics
        shuffles = in_order or train_mode
        order = torch.randperm(len(pool.candidates), generator=generator) if shuffles else None
        candidates, theirs = pool.candidates, ranks[1] if ranks else None
        if order is not None:
            candidates = candidates[order.to(candidates.device)]
            theirs = None if theirs is None else theirs[order.to(theirs.device)]
        with of_training("vae_lr", experiment.vae_lr, cycle=pool.cycle):
            train_vaal(
                vae, discriminator, images, pool.labelled, candidates, generator,
                None if ranks is None or theirs is None else (ranks[0], theirs),
                steps=step_count(
                    len(pool.labelled), len(pool.candidates), experiment.vae_epochs, experiment.batch_size
                ),
                batch_size=experiment.batch_size, lr=experiment.vae_lr, beta=experiment.vae_beta,
                adversarial=experiment.vae_adversarial, in_order=in_order,
            )  # fmt: skip
            logits = labelled_logits(vae, discriminator, images, candidates, theirs, experiment.batch_size, train_mode)
            require_finite(logits, "a score of the discriminator")
        if order is not None:
            logits = logits[order.argsort().to(logits.device)]
        chosen = top(-logits, budget).to(pool.candidates.device)
        return Query(pool.candidates[chosen], torch.sigmoid(-logits.double()))

    def _networks(self, images: ImageSet, conditional: bool, generator: torch.Generator) -> tuple[VAE, Discriminator]:
        experiment = self.experiment

        def make() -> torch.nn.ModuleList:
            vae = VAE(images.shape, experiment.vae_latent, experiment.vae_width, conditional)
            discriminator = Discriminator(experiment.vae_latent, conditional)
            if experiment.quirk("vae_kaiming_weights"):
                begin_kaiming(vae, discriminator)
            return torch.nn.ModuleList([vae, discriminator])

        vae, discriminator = seeded(make, generator).to(images.device)
        assert isinstance(vae, VAE)
        assert isinstance(discriminator, Discriminator)
        return vae.to(memory_format=torch.channels_last), discriminator  # type: ignore[call-overload]
