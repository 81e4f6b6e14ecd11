"""Encoding."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support import mock_data
from support.runs import make_setup

from adsq_jax.devices.data_parallel import LocalDevices
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.training import init


@pytest.mark.parametrize("batch_size", [1, 5, 24, 500])
@pytest.mark.parametrize("devices", [1, 4])
def test_rows_come_in_order_whatever_the_batch(batch_size, devices):
    """Any batch size and number of devices gives what one image at a time gives, in the order asked for."""
    setup = make_setup(mock_data.small_config(), devices=4)
    net = init(setup).img_nets["f"]
    source, rows = setup.data.source, np.array([7, 3, 99, 0, 139, 12, 55])
    encoder = Encoder(
        setup.img_net,
        source,
        local=LocalDevices(jax.devices()[:devices]),
        batch_size=batch_size,
        preprocessing=setup.data.preprocessing,
        read_options=setup.read_options,
    )
    variables = net.variables
    found = encoder(variables, rows)
    alone = [setup.img_net.apply(variables, source[int(i)]["image"][None], train=False)[1][0] for i in rows]
    assert found.dtype == np.float32
    assert encoder(variables, rows[:0]).shape == (0, 12)
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 500])
@pytest.mark.parametrize("devices", [1, 4])
def test_a_frozen_trunks_heads_give_what_the_whole_network_gives(batch_size, devices):
    """From features looked up by row, whatever the batch and the devices; the features come in order, from any place on."""
    whole, heads, net, found = networks(batch_size, devices)
    rows = np.array([7, 3, 99, 0, 139, 12, 55])
    assert heads(net["heads"], rows).dtype == np.float32
    np.testing.assert_allclose(heads(net["heads"], rows), whole(net["whole"], rows), rtol=1e-5, atol=1e-6)
    assert len(heads(net["heads"], rows[:1])) == 1
    for start in (0, 3, 6):
        features = np.concatenate(list(whole.features(net["trunk"], rows, seed=None, start=start)))
        np.testing.assert_allclose(features, found(rows[start:]), rtol=1e-5, atol=1e-6)


def networks(batch_size, devices):
    """Encoders of one network, as a whole and as heads on a frozen trunk; their states; and features of rows, one by one."""
    config = mock_data.small_config()
    config.optim.trunk_lr_scale = 0.0
    setup = make_setup(config, devices=devices)
    state, source = init(setup), setup.data.source
    heads = state.img_nets["f"]
    net = replace(heads, params={**state.trunk["params"], **heads.params}, batch_stats=state.trunk["batch_stats"])
    trunk = jax.jit(lambda x: setup.img_net.apply(state.trunk, x[None], train=False, method="trunk")[0])

    def features(rows):
        return np.stack([trunk(source[int(row)]["image"]) for row in rows])

    whole = Encoder(
        setup.img_net,
        source,
        local=setup.devices.local,
        batch_size=batch_size,
        preprocessing=setup.data.preprocessing,
        read_options=setup.read_options,
    )
    encoder = HeadEncoder(setup.trained_net, features, local=setup.devices.local, batch_size=batch_size)
    return whole, encoder, {"whole": net.variables, "heads": heads.variables, "trunk": state.trunk}, features
