"""A student trained by the Trainer of Hugging Face's transformers."""

from typing import Any

import torch
from kd_cls.classifier import Classifier
from kd_cls.models import build_model
from kd_core import Distiller, Term
from kd_core.criteria import DKD
from torch.utils.data import Dataset, default_collate
from transformers import Trainer, TrainerCallback, TrainingArguments


class Images(Dataset):
    """Random images; yours give the same three entries."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict:
        image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
        return {"image": image, "label": index % 10, "index": index}


class DistillingTrainer(Trainer):
    """The Trainer, for a model that takes a batch: named losses come, in evaluation logits."""

    def compute_loss(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Add the named losses up."""
        return sum(model(inputs).values())

    @torch.no_grad()
    def prediction_step(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> tuple:
        """Return no loss, logits, labels."""
        inputs = self._prepare_inputs(inputs)
        return None, model(inputs), inputs["label"]


class Advance(TrainerCallback):
    """Counts the optimizer steps, for warm-ups."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count one."""
        distiller.advance()


def accuracy(predicted: Any) -> dict[str, float]:
    """Return the share of right answers."""
    right = predicted.predictions.argmax(1) == predicted.label_ids
    return {"top1": float(right.mean())}


student = Classifier(build_model("resnet8", num_classes=10))  # any network: torchvision's, timm's
teacher = Classifier(build_model("resnet20", num_classes=10))  # with its trained weights
distiller = Distiller(student, teacher, {"dkd": Term(DKD(beta=2.0), warmup_epochs=2)})
arguments = TrainingArguments(
    "checkpoints",
    num_train_epochs=2,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    learning_rate=1e-3,
    eval_strategy="epoch",
    save_strategy="epoch",
    remove_unused_columns=False,  # else nothing of the batch is left
    report_to="none",
)
trainer = DistillingTrainer(
    model=distiller,
    args=arguments,
    data_collator=default_collate,  # the Trainer's own renames `label`
    train_dataset=Images(),
    eval_dataset=Images(),
    compute_metrics=accuracy,
    callbacks=[Advance()],
)
distiller.begin(len(trainer.get_train_dataloader()) // 2)  # optimizer steps of an epoch
trainer.train()
if trainer.is_world_process_zero():
    torch.save(distiller.deploy().state_dict(), "student.pth")  # the plain network
