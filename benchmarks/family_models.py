"""One model of every family (module) of timm, as small as its constructor makes it."""

from typing import Any, NamedTuple


class Small(NamedTuple):
    """A model with arguments that shrink it, and the side of images that it takes."""

    model: str
    arguments: dict[str, Any]
    size: int


def _small(model: str, size: int = 64, **arguments: Any) -> Small:
    return Small(model, arguments, size)


_VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
_PYRAMID = {"depths": (1, 1, 1, 1)}

FAMILIES = {
    "beit": _small("beit_base_patch16_224", img_size=64, **_VIT),
    "byoanet": _small("lambda_resnet26t"),
    "byobnet": _small("test_byobnet"),
    "cait": _small("cait_xxs24_224", img_size=64, **_VIT),
    "coat": _small("coat_lite_tiny", img_size=64),
    "convit": _small("convit_tiny", img_size=64, embed_dim=48, depth=2, local_up_to_layer=1),
    "convmixer": _small("convmixer_768_32"),
    "convnext": _small("test_convnext"),
    "cpubone": _small("cpubone_nano"),
    "crossvit": _small("crossvit_tiny_240", 240),
    "csatv2": _small(
        "csatv2", dims=(16, 24, 32, 48), depths=(1, 1, 2, 2), transformer_depths=(0, 0, 1, 1)
    ),
    "cspnet": _small("cs3darknet_focus_s"),
    "cspnext": _small("cspnext_tiny"),
    "davit": _small("davit_tiny", depths=(1, 1, 1, 1), embed_dims=(24, 48, 96, 192)),
    "deepseek_vit": _small("deepseek_vit_412m", 84, **_VIT),
    "deit": _small("deit_tiny_distilled_patch16_224", img_size=64, depth=2),
    "densenet": _small("densenet121", block_config=(1, 1, 1, 1)),
    "dla": _small("dla46x_c"),
    "dpn": _small("dpn48b"),
    "edgenext": _small("edgenext_xx_small"),
    "efficientformer": _small("efficientformer_l1", 224, depths=(1, 1, 1, 1)),
    "efficientformer_v2": _small("efficientformerv2_s0", img_size=64),
    "efficientnet": _small("test_efficientnet"),
    "efficientvim": _small("efficientvim_m1_dist"),
    "efficientvit_mit": _small("efficientvit_b0"),
    "efficientvit_msra": _small("efficientvit_m0", img_size=64),
    "eva": _small("eva02_tiny_patch14_224", 56, img_size=56, depth=2),
    "fasternet": _small("fasternet_t0"),
    "fastvit": _small("fastvit_t8"),
    "focalnet": _small("focalnet_tiny_srf"),
    "gcvit": _small("gcvit_xxtiny", img_size=64, window_size=None, window_ratio=(32, 32, 16, 32)),
    "gemma4_vit": _small("gemma4_vit_167m", 96, **_VIT),
    "ghostnet": _small("ghostnet_050"),
    "hardcorenas": _small("hardcorenas_a"),
    "hgnet": _small("hgnetv2_b0"),
    "hiera": _small("hiera_tiny_224", img_size=64, embed_dim=24),
    "hieradet_sam2": _small("sam2_hiera_tiny", embed_dim=24),
    "hrnet": _small("hrnet_w18_small"),
    "iformer": _small("iformer_t"),
    "inception_next": _small("inception_next_atto"),
    "inception_resnet_v2": _small("inception_resnet_v2", 80),
    "inception_v3": _small("inception_v3", 96),
    "inception_v4": _small("inception_v4", 80),
    "lcnetv2": _small("lcnetv2_small"),
    "levit": _small("levit_128s", img_size=64),
    "lowformer": _small("lowformer_b0"),
    "mambaout": _small("test_mambaout"),
    "maxxvit": _small("test_maxvit", img_size=64),
    "metaformer": _small("poolformer_s12"),
    "mlp_mixer": _small("gmlp_ti16_224", img_size=64),
    "mobilenetv3": _small("mobilenetv3_small_050"),
    "mobilenetv5": _small("mobilenetv5_base", channel_multiplier=0.25),
    "mobilevit": _small("mobilevit_xxs"),
    "mvitv2": _small("mvitv2_tiny", img_size=64),
    "naflexvit": _small("naflexvit_base_patch16_gap", **_VIT),
    "nasnet": _small("nasnetalarge", 96, stem_size=16, num_features=96),
    "nest": _small("nest_tiny", img_size=64),
    "nextvit": _small("nextvit_small"),
    "nfnet": _small("test_nfnet"),
    "pit": _small("pit_ti_distilled_224", img_size=64),
    "pnasnet": _small("pnasnet5large", 32),
    "pvt_v2": _small("pvt_v2_b0"),
    "qwen3_vit": _small("qwen3_vit_88m", 96, **_VIT),
    "rdnet": _small("rdnet_tiny"),
    "regnet": _small("regnetx_002"),
    "repghost": _small("repghostnet_050"),
    "repvit": _small("repvit_m0_9"),
    "res2net": _small("res2next50", layers=(1, 1, 1, 1)),
    "resnest": _small("resnest14d"),
    "resnet": _small("test_resnet"),
    "resnetv2": _small("resnetv2_18"),
    "rexnet": _small("rexnet_100"),
    "selecsls": _small("selecsls42"),
    "senet": _small("legacy_seresnet18"),
    "sequencer": _small("sequencer2d_s", img_size=64, layers=(1, 1, 1, 1)),
    "shvit": _small("shvit_s1"),
    "sknet": _small("skresnet18"),
    "starnet": _small("starnet_s050"),
    "swiftformer": _small("swiftformer_xs"),
    "swin_transformer": _small(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=24, **_PYRAMID
    ),
    "swin_transformer_v2": _small(
        "swinv2_tiny_window8_256", img_size=64, window_size=2, embed_dim=24, **_PYRAMID
    ),
    "swin_transformer_v2_cr": _small(
        "swinv2_cr_tiny_224", img_size=64, window_size=2, embed_dim=24, **_PYRAMID
    ),
    "tiny_vit": _small("tiny_vit_5m_224"),
    "tnt": _small("tnt_s_patch16_224", img_size=64, depth=2),
    "tresnet": _small("tresnet_m", layers=(1, 1, 1, 1)),
    "twins": _small(
        "twins_svt_small", img_size=64, depths=(2, 2, 2, 2), embed_dims=(32, 64, 96, 128)
    ),
    "vgg": _small("vgg11", 32),
    "visformer": _small("visformer_tiny", img_size=64),
    "vision_transformer": _small("test_vit", img_size=64),
    "vision_transformer_hybrid": _small("vit_tiny_r_s16_p8_224", img_size=64, depth=2),
    "vision_transformer_relpos": _small("test_vit_relpos", img_size=64),
    "vision_transformer_sam": _small(
        "samvit_base_patch16_224", img_size=64, global_attn_indexes=(1,), **_VIT
    ),
    "vitamin": _small("vitamin_small_224", img_size=64),
    "volo": _small("volo_d1_224", img_size=64),
    "vovnet": _small("ese_vovnet19b_slim_dw"),
    "xception": _small("xception"),
    "xception_aligned": _small("xception41p"),
    "xcit": _small("xcit_nano_12_p8_224", img_size=64, depth=2),
}
