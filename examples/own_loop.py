"""Two torchvision models and your own training loop."""

import torch
from kd_cls.classifier import Classifier
from kd_core import Distiller, Term
from kd_core.criteria import DKD, FitNet
from torchvision.models import resnet18, resnet34

student, teacher = Classifier(resnet18(num_classes=10)), Classifier(resnet34(num_classes=10))
terms = {
    "dkd": Term(DKD(beta=2.0)),
    "hint": Term(FitNet([(128, 8, 8)], [(128, 8, 8)]), "layer2", "layer2", weight=100.0),
}
distiller = Distiller(student, teacher, terms)
optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9)
for step in range(3):
    batch = {"image": torch.rand(4, 3, 64, 64), "label": torch.randint(10, (4,))}
    losses = distiller(batch)  # {"ce": ..., "dkd": ..., "hint": ...}
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    print(step, {name: round(loss.item(), 3) for name, loss in losses.items()})
torch.save(student.network.state_dict(), "student.pth")  # a plain resnet18
