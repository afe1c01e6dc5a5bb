r"""Your own crops without identities: all below data/crops, flat or in folders; no labels.

It comes after the pair, whose student learns identities, and before the method. With
`data.evaluate_on=SET` a labelled set is searched for rank-1 and mAP.

python tools/reid_train.py configs/reid/pairs/osnet_x1_0_osnet_x0_25.py \
    configs/reid/data/crops.py configs/reid/methods/rkd.py --cfg-options teacher.weights=FILE
"""

data = dict(type="kd_reid.unlabelled.crops", root="data/crops")
student = dict(label_smoothing=0.0, fixed_base_epochs=0, bnneck=False, metric_losses=None)
