"""A student trained in a loop of your own around Hugging Face's accelerate."""

import torch
from accelerate import Accelerator
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


student = Classifier(build_model("resnet8", num_classes=10))  # any network: torchvision's, timm's
teacher = Classifier(build_model("resnet20", num_classes=10))  # with its trained weights
terms = {"dkd": Term(DKD(beta=2.0), warmup_epochs=2)}
accelerator = Accelerator(gradient_accumulation_steps=2)
distiller = Distiller(student, teacher, terms)
optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9)
loader, test = DataLoader(Images(), 4, shuffle=True), DataLoader(Images(), 8)
# Of the models only the distiller is prepared: the teacher follows it to its device.
distiller, optimizer, loader, test = accelerator.prepare(distiller, optimizer, loader, test)
inner = accelerator.unwrap_model(distiller)
inner.begin(len(loader) // 2)  # optimizer steps of an epoch, for warm-ups
for epoch in range(2):
    distiller.train()
    for batch in loader:
        with accelerator.accumulate(distiller):
            losses = distiller(batch)  # {"ce": ..., "dkd": ...}
            accelerator.backward(sum(losses.values()))
            optimizer.step()
            optimizer.zero_grad()
            if accelerator.sync_gradients:
                inner.advance()
    distiller.eval()
    right = []
    for batch in test:
        with torch.no_grad():
            logits = distiller(batch)  # in evaluation: logits
        right += accelerator.gather_for_metrics(logits.argmax(1) == batch["label"]).tolist()
    accelerator.print(f"epoch {epoch}: top1 {100 * sum(right) / len(right):.1f}")
    accelerator.save_state(f"epoch_{epoch}")  # the student, criteria and optimizer
if accelerator.is_main_process:
    torch.save(inner.deploy().state_dict(), "student.pth")  # the plain network
