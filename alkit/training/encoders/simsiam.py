"""`simsiam`: the pretext task SimSiam of this kit, trained on the set's own images without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alkit.config import Experiment
from alkit.data import ImageSet
from alkit.errors import ConfigError
from alkit.storage.checkpoint import load_checkpoint, save_checkpoint
from alkit.training.encoders.base import Encoder, register
from alkit.training.pretext import make_task

DEFAULTS: dict[str, Any] = {
    "model": "resnet10", "width": 32, "pretext_epochs": 100, "pretext_batch_size": 256, "pretext_lr": 0.05,
    "weight_decay": 5e-4, "momentum": 0.9, "seed": 0,
}  # fmt: skip


@register("simsiam")
class SimSiamEncoder(Encoder):
    """Penultimate features of the backbone after its pretext task (Chen & He, CVPR 2021).

    `-p NAME VALUE` sets model, width, seed and the pretext task's parameters; `DEFAULTS` are its own.
    """

    takes = tuple(DEFAULTS)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.model or self.weights:
            what = "weights" if self.weights else "encoder"
            raise ConfigError(f"{what}: simsiam learns by itself; expected only -p with one of {', '.join(DEFAULTS)}")
        self.experiment = Experiment.model_validate(
            {"method": "pt4al", "pretext": "simsiam", **DEFAULTS, **self.options}
        )
        self.backbone: nn.Module | None = None

    def fit(self, train: ImageSet, folder: Path) -> None:
        from tqdm.auto import tqdm

        task = make_task(self.experiment, train.to(self.device))
        kept, done, epochs = folder / "simsiam.pt", 0, self.experiment.pretext_epochs
        if (saved := load_checkpoint(kept)) is not None:
            task.network.load_state_dict(saved["network"])
            task.optimizer.load_state_dict(saved["optimizer"])
            done = saved["epoch"]
        with tqdm(total=epochs, initial=done, desc=f"{train.name}, simsiam", unit="epoch") as bar:
            for epoch in range(done, epochs):
                bar.set_postfix(loss=f"{task.train_epoch(epoch):.3f}")
                bar.update()
                if epoch % 5 == 4 or epoch + 1 == epochs:
                    save_checkpoint(kept, {"network": task.network.state_dict(), "epoch": epoch + 1,
                                           "optimizer": task.optimizer.state_dict()})  # fmt: skip
        network: Any = task.network.eval()
        self.backbone, self.normalised = network.backbone, task.normalised

    def embed(self, images: Tensor) -> Tensor:
        assert self.backbone is not None
        rows: Tensor = self.backbone.embed(self.normalised(images))  # type: ignore[operator]
        return rows

    @property
    def about(self) -> dict[str, Any]:
        return {name: getattr(self.experiment, name) for name in DEFAULTS}
