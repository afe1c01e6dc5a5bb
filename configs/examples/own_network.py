"""A network of your own learns a zoo network's logits and last map; see docs/own_network.md.

python tools/cls_train.py configs/examples/own_network.py
"""

data = dict(type="kd_cls.data.digits", batch_size=32)
student = dict(network=dict(type="examples.own_network.SmallNet", width=16))
teacher = dict(config="configs/demo/teacher.py")
distiller = dict(
    terms=dict(
        dkd=dict(criterion=dict(type="kd_core.criteria.dkd.DKD", beta=2.0)),
        hint=dict(
            criterion=dict(type="kd_core.criteria.fitnet.FitNet"),
            student="blocks.2",
            teacher="layer3",
            weight=10.0,
        ),
    )
)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=10)
