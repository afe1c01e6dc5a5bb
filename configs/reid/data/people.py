r"""Your own images in data/people: a folder for each identity, or parts; or data.source=FILE.csv.

`data.camera` finds the camera in a path; leave it out where none is known. Other forms and options
are in packages/kd-reid/README.md.

python tools/reid_train.py configs/reid/data/people.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py --cfg-options data.source=data/people \
    "data.camera=cam(\d+)"
"""

data = dict(type="kd_reid.data.people", source="data/people")
