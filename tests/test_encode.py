"""Encoding."""

import jax
import mock_data
import numpy as np
import pytest

from adsq_jax.encode import Encoder
from adsq_jax.parallel import DataParallel
from adsq_jax.trainer import Trainer


@pytest.mark.parametrize("batch_size", [1, 5, 24, 500])
@pytest.mark.parametrize("devices", [1, 4])
def test_rows_come_in_order_whatever_the_batch(batch_size, devices):
    """Any batch size and number of devices gives what one image at a time gives, in the order asked for."""
    trainer = Trainer(mock_data.small_config(), mock_data.dataset(), parallel=DataParallel("shard_map"))
    net = trainer.init().img_nets["f"]
    source, rows = trainer.dataset.source, np.array([7, 3, 99, 0, 139, 12, 55])
    encoder = Encoder(
        trainer.img_net,
        parallel=DataParallel("shard_map", devices=jax.devices()[:devices]),
        batch_size=batch_size,
        view=trainer.view,
        reading=trainer.reading,
    )
    found = encoder(net, source, rows)
    variables = {"params": net.params, "batch_stats": net.batch_stats}
    alone = [trainer.img_net.apply(variables, source[int(i)]["image"][None], train=False)[1][0] for i in rows]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)
