"""A student trained by PyTorch Lightning: any of its strategies, precisions and callbacks."""

import lightning
import torch
from kd_cls.classifier import Classifier
from kd_cls.models import build_model
from kd_core import Distiller, Term
from kd_core.criteria import DKD
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    """Random images; yours give the same three entries."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
        return {"image": image, "label": index % 10, "index": index}


class Distillation(lightning.LightningModule):
    """The distiller as a module of Lightning; the teacher is in no parameter and no checkpoint."""

    def __init__(self, distiller: Distiller) -> None:
        super().__init__()
        self.distiller = distiller

    def training_step(self, batch: dict, number: int) -> torch.Tensor:
        """Log the named losses and add them up."""
        losses = self.distiller(batch)  # {"ce": ..., "dkd": ...}
        self.log_dict(losses)
        return sum(losses.values())

    def optimizer_step(self, *args, **kwargs) -> None:
        """Count the step."""
        super().optimizer_step(*args, **kwargs)
        self.distiller.advance()  # warm-ups count optimizer steps

    def validation_step(self, batch: dict, number: int) -> None:
        """Measure the student."""
        right = self.distiller(batch).argmax(1) == batch["label"]  # in evaluation: logits
        self.log("top1", right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train what the distiller trains."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


student = Classifier(build_model("resnet8", num_classes=10))  # any network: torchvision's, timm's
teacher = Classifier(build_model("resnet20", num_classes=10))  # with its trained weights
distiller = Distiller(student, teacher, {"dkd": Term(DKD(beta=2.0), warmup_epochs=2)})
trainer = lightning.Trainer(
    max_epochs=2, accumulate_grad_batches=2, accelerator="auto", devices=1, log_every_n_steps=1
)
loader = DataLoader(Images(), 4, shuffle=True)
distiller.begin(len(loader) // 2)  # optimizer steps of an epoch, for warm-ups
trainer.fit(Distillation(distiller), loader, DataLoader(Images(), 8))
if trainer.is_global_zero:
    torch.save(distiller.deploy().state_dict(), "student.pth")  # the plain network
