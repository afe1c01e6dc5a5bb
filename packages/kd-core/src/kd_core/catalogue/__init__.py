"""Short names of configs on the command line: `cifar100 resnet32x4,resnet8x4 dkd`."""
