"""What several test modules build."""

import pytest
from kd_core.experiment import curves, report  # noqa: F401 - a fixture of all tests finds them


def osnet_tiny(num_classes, pretrained, loss, use_gpu):
    """Return torchreid's OSNet with 51 tensors, where `osnet_x0_25` has 567: files cost little."""
    from kd_reid import torchreid

    osnet = torchreid.models.osnet

    class Plain(osnet.ConvLayer):
        """Stands where OSNet has a block: one layer instead of 24."""

        def __init__(self, in_channels, out_channels, IN=False):  # noqa: N803
            super().__init__(in_channels, out_channels, 3, padding=1, IN=IN)

    assert not pretrained
    return osnet.OSNet(num_classes, 3 * [Plain], 3 * [1], [16, 16, 24, 32], loss=loss)


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    """Give torchreid, where it is installed, a network `osnet_tiny`: for tests that need any."""
    try:
        from kd_reid import torchreid
    except ImportError:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(torchreid.models)["__model_factory"], "osnet_tiny", osnet_tiny)
        yield
