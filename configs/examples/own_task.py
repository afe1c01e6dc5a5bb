"""A small network learns to find a spot, and how a larger one sees it: see docs/own_task.md."""

data = dict(type="examples.own_task.spots", count=128)
student = dict(network=dict(type="examples.own_task.network", width=4))
teacher = dict(config="configs/examples/own_task_teacher.py")
distiller = dict(
    terms=dict(
        heat=dict(
            criterion=dict(type="kd_core.criteria.cwd.CWD"), student="6", teacher="6", weight=1.0
        )
    )
)
optimizer = dict(type="torch.optim.Adam", lr=0.003)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=20)
