"""The criteria of `criterion_cases.py` for large teachers, without labels or of other kinds."""

import plain_features
from criterion_methods import Method, Size, both

# A small student of a ViT-Base of 224 pixels.
VECTOR_PAIR = {"student_shapes": ((512,),), "teacher_shapes": ((768,),)}
TOKEN_PAIR = {"student_shapes": ((196, 384),), "teacher_shapes": ((196, 768),)}
MAP_PAIR = {"student_shapes": ((512, 7, 7),), "teacher_shapes": ((768, 14, 14),)}
THREE = {side: shapes * 3 for side, shapes in TOKEN_PAIR.items()}
QUEUED = {**VECTOR_PAIR, "num_samples": 50_000}
MIXED = {side: (*VECTOR_PAIR[side], *MAP_PAIR[side]) for side in VECTOR_PAIR}
CLASS = {side: (*VECTOR_PAIR[side], *TOKEN_PAIR[side]) for side in VECTOR_PAIR}
STAGE_PAIR = {"student_shapes": ((256, 14, 14),), "teacher_shapes": ((1000,),), "num_classes": 1000}
FEW_QUEUED = Size(4, {"num_samples": 40})

FEATURES = {
    "queue kl": Method(
        "QueueKL",
        plain_features.PlainQueueKL,
        (Size(64, QUEUED),),
        {"queue_size": None},
        small=FEW_QUEUED,
    ),
    "queue token kl": Method(
        "QueueTokenKL",
        plain_features.PlainQueueTokenKL,
        (Size(16, {**MIXED, "num_samples": 50_000}),),
        {"queue_size": None},
        small=FEW_QUEUED,
    ),
    "seed": Method(
        "SEED",
        plain_features.seed,
        (Size(64, QUEUED),),
        {"queue_size": None, "teacher_temperature": 0.07},
        small=FEW_QUEUED,
    ),
    "dense mse": Method(
        "DenseMSE", plain_features.dense_mse, (Size(64, MAP_PAIR),), small=both(2, (4, 3, 3))
    ),
    "theia": Method("Theia", plain_features.theia, (Size(16, MAP_PAIR),)),
    "unic": Method("UNIC", plain_features.unic, (Size(16, CLASS),)),
    "unic, vectors": Method("UNICVectors", plain_features.unic_vectors, (Size(64, VECTOR_PAIR),)),
    "unic, tokens": Method("UNICTokens", plain_features.unic_tokens, (Size(16, TOKEN_PAIR),)),
    "vkd": Method("VkD", plain_features.vkd, (Size(64, VECTOR_PAIR),)),
    "vitkd": Method("ViTKD", plain_features.vitkd, (Size(16, THREE),)),
    "ofa": Method("OFA", plain_features.ofa, (Size(64, {"num_classes": 1000}),)),
    "ofa, stage": Method(
        "OFAStage", plain_features.ofa_stage, (Size(64, STAGE_PAIR),), {"width": 512}
    ),
}
