"""The large network that finds spots; the teacher of own_task.py."""

data = dict(type="examples.own_task.spots", count=2048)
student = dict(network=dict(type="examples.own_task.network", width=32))
optimizer = dict(type="torch.optim.Adam", lr=0.003)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=4)
