r"""ViTKD (arXiv:2209.02432) between vision transformers. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_deit3_small_deit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/nkd.py configs/cls/methods/vitkd.py

Both have as many patches. Its authors' best numbers are with NKD, as here; it may be left out. A
convolutional network takes part with maps of that size as tokens: for a ResNet18 and 14x14 patches
distiller.terms.vitkd.student=["@blocks[-4]:tokens","@blocks[-3]:tokens","@stages[-2]:tokens"].
"""

distiller = dict(
    terms=dict(
        vitkd=dict(
            criterion=dict(type="kd_core.criteria.vitkd.ViTKD"),
            student=["@blocks[0]", "@blocks[1]", "@tokens"],
            teacher=["@blocks[0]", "@blocks[1]", "@tokens"],
        )
    ),
)
