r"""MAG (arXiv:2108.06681) on embeddings and identity logits: first codes that describe the frozen
teacher, then the student learns them. Compose with data and pair, and another method before it:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_75.py configs/reid/methods/rkd.py \
    configs/reid/methods/mag.py

The authors published neither code nor losses for re-identification: widths, temperatures and recipe
of the codes are theirs for classification.
"""

stages = dict(
    analysis=dict(
        distiller=dict(
            _delete_=True,
            train_student=False,
            task_weight=0,
            terms=dict(
                analysis=dict(
                    criterion=dict(type="kd_core.criteria.granularity.SelfAnalysis"),
                    student=[],
                    teacher=["@logits", "@embedding"],
                )
            ),
        ),
        optimizer=dict(
            _delete_=True, type="torch.optim.SGD", lr=0.01, momentum=0.9, weight_decay=5e-4
        ),
        schedule=dict(_delete_=True, type="kd_core.schedule.multi_step", milestones=[30, 45]),
        trainer=dict(epochs=60, eval_every=60),
    ),
    student=dict(
        distiller=dict(
            terms=dict(
                mag=dict(
                    criterion=dict(type="kd_core.criteria.granularity.MultiGranularity"),
                    student=["@logits", "@embedding"],
                    teacher=["@logits", "@embedding"],
                    weights="stage:analysis/criteria/analysis.pth",
                )
            ),
        ),
    ),
)
