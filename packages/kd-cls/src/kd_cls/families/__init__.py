"""Roles of families of networks: of the zoo, timm and torchvision; `kd_cls.roles` asks them."""
