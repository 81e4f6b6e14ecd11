"""The real loop, on mock data."""

import json
import shutil
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from support import mock_data
from support.runs import make_setup, on_devices, run, same, stop_at_batch, train

from adsq_jax.errors import InputError, Stopped
from adsq_jax.methods import separation
from adsq_jax.methods.adsq import BY_CODES
from adsq_jax.run.checkpoint import Checkpoints
from adsq_jax.training import init, loop, rounds
from adsq_jax.training.guidance import guidance, label_net_outputs
from adsq_jax.training.metrics_buffer import NotFinite

# A config for each network with each head, and its images' side.
TRAINED = {"digits": 8, "emoji_frozen": 8, "cifar10_frozen": 8, "cifar10": 32, "nuswide": 32}
# a ResNet compiles for half a minute


# Compiles a network, its gradients and its encoder.
@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.slow] * (side == 32)) for k, side in TRAINED.items()])
def test_each_network_of_the_configs_learns_by_every_parameter(name, tmp_path):
    """Two rounds of the real loop with each network that a config names: all parameters of LabelNet, f and g have moved."""
    config = mock_data.small_config(name, image_size=TRAINED[name])
    config.optim.weight_decay = 0.0  # it would move kernels by itself
    setup = make_setup(config, multi_label=name == "nuswide", protocol=config.data.protocol)
    start = init(setup)
    _, state = train(setup, directory=tmp_path)
    networks = {"label_net": state.label_net, **state.img_nets}
    before = {"label_net": start.label_net, **start.img_nets}
    for network, after in networks.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(after.params):
            old = dict(jax.tree_util.tree_leaves_with_path(before[network].params))[path]
            assert not np.array_equal(leaf, old), f"{network}{jax.tree_util.keystr(path)} has not changed"


def network_of(name):
    config = mock_data.load_config(name)
    return config.model.backbone, config.objective.head


@pytest.mark.parametrize("name", [path.stem for path in mock_data.CONFIGS if path.stem not in TRAINED])
def test_each_other_config_has_one_of_these_networks(name):
    """Its small version has the parameters, by name and shape, of a network that the test above trains, and is set up."""
    (trained,) = [other for other in TRAINED if network_of(other) == network_of(name)]
    configs = [mock_data.small_config(config, image_size=TRAINED[trained]) for config in (name, trained)]
    ours, theirs = (make_setup(config, protocol=config.data.protocol).net_shapes for config in configs)
    assert jax.tree.all(jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), ours, theirs))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of the small config: its setup, its last state and its folder, not to be changed."""
    directory = tmp_path_factory.mktemp("whole")
    setup, state = train(make_setup(mock_data.small_config()), directory=directory)
    return setup, state, directory


def test_a_result_comes_last(tmp_path):
    """A model that can't be written leaves no result.json, by which the run would count as finished."""
    config = mock_data.small_config()
    (tmp_path / "model").write_text("in its place")
    with pytest.raises(InputError):
        run(make_setup(config), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_the_folder_of_a_run_has_what_the_design_names(tmp_path):
    """After a run: result.json with all its keys, codes with their shapes, metrics with every loss term by name."""
    result = run(make_setup(mock_data.small_config()), tmp_path)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert set(result["map_by_query_net"]) == {"ff", "gg", "fg", "sum"}
    assert result["map"] == result["map_by_query_net"]["sum"] == result["metrics"]["all"]["map"]
    named = "protocol split_sha256 bits seed method n_query n_train n_database seconds versions machine date"
    assert set(named.split()) <= set(result)
    for part, size in (("query", 20), ("database", 120)):
        for net in ("f", "g", "sum"):
            codes = np.load(tmp_path / "codes" / f"{part}_{net}.npy", allow_pickle=False)
            assert codes.dtype == np.uint8
            assert codes.shape == (size, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    terms = {"likelihood", "guidance", "difference", "quantization", "balance", "loss", "grad_norm", "images_per_second"}
    assert all(terms <= set(line) for line in lines if line["phase"] == "img_net")
    assert {line["phase"] for line in lines} == {"label_net", "img_net", "codes"}


@pytest.mark.parametrize("at", [3, 16])
def test_a_folder_that_is_renamed_during_the_run(at, tmp_path, monkeypatch):
    """One line, wherever the run is, and no folder of the old name; moved back, the run goes on to its end."""
    config, folder = mock_data.small_config(), tmp_path / "run"
    setup = make_setup(config)
    split, calls = setup.devices.split_batch, []

    def renaming(batch):
        calls.append(1)
        if len(calls) == at:
            folder.rename(tmp_path / "renamed")
        return split(batch)

    monkeypatch.setattr(setup.devices, "split_batch", renaming)
    with pytest.raises(InputError, match="was removed or renamed while a run used it"):
        run(setup, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["renamed"]
    (tmp_path / "renamed").rename(folder)
    assert run(make_setup(config), folder)["map"] > 0


# Compiles for four devices.
@pytest.mark.parametrize("kind", ["shard_map", "pmap"])
def test_the_whole_loop_on_four_devices(kind, whole, tmp_path, monkeypatch):
    """Both ways to run in parallel learn on four devices what one learns, and go on after a stop as if there was none."""
    config = mock_data.small_config()
    config.parallel = kind
    _, state = train(make_setup(config, devices=4), directory=tmp_path / "whole")
    for name in ("f", "g"):
        np.testing.assert_allclose(state.img_nets[name].bank, whole[1].img_nets[name].bank, atol=0.02)
    setup = make_setup(config, devices=4)
    stop_at_batch(11, setup, monkeypatch)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path / "parts")
    assert same(train(make_setup(config, devices=4), directory=tmp_path / "parts")[1], state)


# Sixteen epochs of two networks, twice.
@pytest.mark.slow
def test_training_learns(tmp_path):
    """A learnable toy set is learned: mAP well above that of the untrained networks."""
    config = mock_data.small_config()
    config.train.rounds, config.train.epochs_per_round = 4, 4
    trained = run(make_setup(config), tmp_path / "trained")
    config.optim.learning_rate = 1e-9
    untrained = run(make_setup(config), tmp_path / "untrained")
    assert trained["map"] > 0.9
    assert untrained["map"] < 0.7


def test_a_signal_during_step_1_stops_before_step_2(whole, tmp_path, monkeypatch):
    """SIGTERM while LabelNet trains: it stops at once, nothing of step 1 is kept, and the same command begins anew."""
    config = mock_data.small_config()
    setup = make_setup(config)
    step = setup.label_net_step

    def interrupted(*args):
        signal.raise_signal(signal.SIGTERM)
        return step(*args)

    monkeypatch.setitem(vars(setup), "label_net_step", interrupted)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
    assert same(train(make_setup(config), directory=tmp_path)[1], whole[1])


@pytest.mark.parametrize("at", [2, 4, 7, 8, 13, 16])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(at, whole, tmp_path, monkeypatch):
    """SIGTERM after any step saves; the same command then ends with the same state and steps, bit for bit."""
    config = mock_data.small_config()
    setup = make_setup(config)
    calls = stop_at_batch(at, setup, monkeypatch)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path)
    assert len(calls) == at
    _, parts = train(make_setup(config), directory=tmp_path)
    assert same(whole[1], parts)
    lines = [(directory / "metrics.jsonl").read_text().splitlines() for directory in (whole[2], tmp_path)]
    steps = [[(line["phase"], line["step"]) for line in map(json.loads, run)] for run in lines]
    assert sorted(set(steps[1]) - {("img_net", at)}) == sorted(set(steps[0]) - {("img_net", at)})
    assert len(set(steps[1])) == len(steps[1])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_same_seed_gives_the_same_codes_and_another_seed_others(whole, tmp_path):
    """Codes are a function of config and seed."""
    config = mock_data.small_config()
    assert same(train(make_setup(config), directory=tmp_path / "0")[1], whole[1])
    config.seed = 1
    assert not same(train(make_setup(config), directory=tmp_path / "1")[1], whole[1])


@pytest.mark.parametrize(("term", "named"), [("likelihood", "likelihood"), ("loss", "grad_norm, loss")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(term, named, whole, tmp_path, monkeypatch):
    """A NaN in the 15th update: the error names step and term, and the checkpoint of the first round is whole."""
    config = mock_data.small_config()
    setup = make_setup(config)
    step, calls = setup.donating_img_net_step, []

    def broken(*args):
        calls.append(1)
        state, metrics = step(*args)
        bad = {term: np.nan, "loss": np.nan, "grad_norm": np.inf} if len(calls) == 15 else {}
        return state, {**metrics, **bad}

    monkeypatch.setitem(vars(setup), "donating_img_net_step", broken)
    with pytest.raises(InputError, match=rf"round 2/2 g, step 15: {named} not finite; .*step 8, is kept"):
        train(setup, directory=tmp_path)
    assert same(train(make_setup(config), directory=tmp_path)[1], whole[1])


def test_b_fixed_after_step_1(tmp_path):
    """objective.update_codes=False: the codes at the end are LabelNet's signs; with it, the B-step has been recorded."""
    config = mock_data.small_config()
    config.objective.update_codes = False
    setup = make_setup(config)
    _, state = train(setup, directory=tmp_path)
    label_codes = np.asarray(guidance(setup, state).codes)
    assert np.array_equal(state.codes, np.where(label_codes < 0, -1, 1)[setup.sets.set_index])
    assert '"codes"' not in (tmp_path / "metrics.jsonl").read_text()


# Compiles a config of its own.
def test_no_twin(tmp_path):
    """objective.twin=False: one network, held against its own bank as it is renewed; only `ff` is measured."""
    config = mock_data.small_config()
    config.objective.twin, config.eval.query_net = False, "ff"
    setup = make_setup(config)
    result = run(setup, tmp_path)
    assert set(result["map_by_query_net"]) == {"ff"}
    assert not (tmp_path / "codes" / "query_g.npy").exists()
    assert setup.total_steps == 8


def test_label_nets_codes_are_separated():
    """objective.separate=True: LabelNet ends with codes farther apart than its signs, and codes and banks start from them."""
    config = mock_data.small_config()
    config.objective.separate = True
    setup = make_setup(config)
    state = rounds.train_label_net(setup, init(setup))
    _, relaxed, _ = setup.label_net_apply({"params": state.label_net.params}, setup.sets.sets)
    signs, sets = np.where(np.asarray(relaxed) < 0, -1, 1), setup.sets.sets
    found = np.asarray(state.label_net.separated)
    assert separation.smallest_distance(found, sets=sets) > separation.smallest_distance(signs, sets=sets)
    np.testing.assert_array_equal(guidance(setup, state).codes, found)
    np.testing.assert_array_equal(state.codes, found[setup.sets.set_index])
    np.testing.assert_array_equal(state.img_nets["f"].bank, found[setup.sets.set_index])
    config.objective.separate = False
    setup = make_setup(config)
    state = rounds.train_label_net(setup, init(setup))
    assert state.label_net.separated is None
    np.testing.assert_array_equal(guidance(setup, state).codes, relaxed)


def test_a_run_with_separated_codes_goes_on(tmp_path, monkeypatch):
    """Stopped in its second round and resumed, it ends as if it had not stopped, with the same separated codes."""
    config = mock_data.small_config()
    config.objective.update(BY_CODES)
    _, state = train(make_setup(config), directory=tmp_path / "whole")
    setup = make_setup(config)
    stop_at_batch(11, setup, monkeypatch)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path / "parts")
    _, parts = train(make_setup(config), directory=tmp_path / "parts")
    assert same(state, parts)
    np.testing.assert_array_equal(parts.label_net.separated, state.label_net.separated)


def test_a_label_net_that_diverged():
    """Its codes aren't separated: the error names it."""
    setup = make_setup(mock_data.small_config())
    params = jax.tree.map(lambda x: x * np.nan, init(setup).label_net.params)
    with pytest.raises(NotFinite, match="LabelNet, after its last step: relaxed codes not finite"):
        label_net_outputs(setup, params)


def test_no_label_net(tmp_path):
    """objective.label_net=False: no guidance term, and the codes start from a B-step on the untrained ImgNets' banks."""
    config = mock_data.small_config()
    config.objective.label_net = False
    setup = make_setup(config)
    _, state = train(setup, directory=tmp_path)
    assert state.label_net is None
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {"img_net", "codes"}
    assert all("guidance" not in line for line in lines)
    assert lines[0]["phase"] == "codes"
    assert lines[0]["step"] == 0


# Compiles a config of its own.
def test_no_difference_loss(tmp_path):
    """objective.difference=False: the term is left out of LabelNet, ImgNets and the B-step, which is then one sweep."""
    config = mock_data.small_config()
    config.objective.difference = False
    setup = make_setup(config)
    _, state = train(setup, directory=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    weights = {"f": config.objective.weights, "label_net": config.label_net.weights}
    for line in lines:
        kind = "label_net" if line["phase"] == "label_net" else "f"
        if line["phase"] != "codes":
            total = sum(line[name] for name in weights[kind] if name in line)
            assert line["loss"] == pytest.approx(total, rel=1e-5)
            assert "difference" not in line
        else:
            assert line["difference_share"] == 0
    label_codes = np.asarray(guidance(setup, state).codes)
    pull = 0.1 * sum(np.asarray(net.bank, np.float64) for net in state.img_nets.values())
    pull += 0.1 * label_codes.astype(np.float64)[setup.sets.set_index]
    assert np.array_equal(state.codes, np.where(pull < 0, -1, 1))


def first_metrics(config):
    """What the first update of LabelNet, and one of f against its codes, say of their terms."""
    setup = make_setup(config)
    state = init(setup)
    net, targets = on_devices(setup, state)
    batch = next(rounds.train_batches(setup, net="f", step=0))
    _, of_img_net = setup.img_net_step(net, targets, rounds.split_batch(setup, batch))
    _, of_label_net = setup.label_net_step(state.label_net, setup.sets.sets, setup.frequencies)
    return {"objective": of_img_net, "label_net": of_label_net}


# Compiles two configs.
@pytest.mark.slow
def test_each_term_is_logged_times_its_weight():
    """Every weight changed by a factor of its own: so are the terms, and their sum is the loss, of ImgNets and LabelNet."""
    config = mock_data.small_config()
    asked = {"code_guidance": 0.1, "neighbours": 0.1, "bit_likelihood": 0.1, "consistency": 0.1}  # 0 if not asked for
    config.objective.weights.update(asked)
    before = first_metrics(config)
    factors = {}
    for kind in before:
        for number, name in enumerate(config[kind].weights):
            factors[kind, name] = 2.0 ** (number - 2)
            config[kind].weights[name] *= factors[kind, name]
    for kind, metrics in first_metrics(config).items():
        terms = metrics.keys() - {"loss", "grad_norm"}
        assert terms == set(config[kind].weights) - {"label_codes"}
        for term in terms:
            assert float(np.mean(before[kind][term])) != 0
            np.testing.assert_allclose(metrics[term], factors[kind, term] * before[kind][term], rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], sum(metrics[term] for term in terms), rtol=1e-5)


# Compiles three configs.
@pytest.mark.slow
def test_cosine_scales_are_label_nets_and_the_guidances_own():
    """label_net.cosine_scale changes LabelNet's semantic likelihood alone, objective.cosine_scale the guidance alone."""
    before = first_metrics(mock_data.small_config())
    for section, term in (("label_net", "semantic_likelihood"), ("objective", "guidance")):
        config = mock_data.small_config()
        config[section].cosine_scale = 3.0
        for kind, metrics in first_metrics(config).items():
            changed = {name for name in metrics if not np.allclose(metrics[name], before[kind][name], rtol=1e-6, atol=0)}
            assert changed == ({term, "loss", "grad_norm"} if kind == section else set())


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (7, 0.0), (8, 0.5), (15, 0.5)])
def test_targets_tell_the_progress_and_label_nets_codes(step, share):
    """Progress is the share of rounds that are done, whatever of the next is; guidance has LabelNet's codes by label set."""
    setup = make_setup(mock_data.small_config())
    state = replace(init(setup), step=np.array(step, np.int64))
    targets = rounds.targets(setup, state, net="f")
    assert targets.progress == np.float32(share)
    assert np.array_equal(targets.guidance.codes, guidance(setup, state).codes)
    assert np.array_equal(targets.sets[targets.set_index], setup.data.source.labels[setup.data.split.train])


def test_the_banks_are_what_the_networks_give_in_evaluation_mode(whole):
    """After each half-round the bank equals a fresh encoding of the training set."""
    setup, state, _ = whole
    for net in state.img_nets.values():
        fresh = setup.encoder(net.variables, setup.data.split.train)
        assert np.array_equal(fresh, net.bank)


def frozen_config(*, views=2, **changes):
    """A trunk that isn't trained, on pictures of which each view is another one."""
    config = mock_data.small_config()
    config.optim.trunk_lr_scale, config.data.feature_views = 0.0, views
    config.data.crop_padding, config.data.flip = 2, True
    config.update_from_flattened_dict(changes)
    return config


def images_of(setup):
    """The training images, uncut."""
    return np.stack([setup.data.source[int(row)]["image"] for row in setup.data.split.train])


# Compiles for each number of devices.
@pytest.mark.parametrize("views", [0, 2])
@pytest.mark.parametrize(("kind", "devices"), [("shard_map", 1), ("shard_map", 4), ("pmap", 4)])
def test_a_frozen_trunk_stays_and_its_heads_learn(views, kind, devices, tmp_path):
    """f and g share the trunk they began with, have other heads, which moved, and their banks are the whole networks' codes."""
    setup = make_setup(frozen_config(views=views, parallel=kind), devices=devices)
    start = setup.devices.to_host(init(setup), setup.specs)
    setup, state = train(setup, directory=tmp_path)
    restored, _ = Checkpoints(tmp_path / "checkpoints", keep=2, rows=setup.size).restore(start)
    assert same(restored, state)
    assert same(state.trunk, start.trunk)
    assert len(jax.tree.leaves(state.trunk["params"])) > 5
    known = setup.features.views or [setup.features.of_rows(setup.data.split.train)]
    batch = next(rounds.train_batches(setup, net="f", step=0))
    pairs = zip(batch["index"], batch["inputs"], strict=True)
    which = [{k for k, view in enumerate(known) if np.array_equal(x, view[i])} for i, x in pairs]
    assert all(which)
    assert set().union(*which) == set(range(views or 1))
    kernels = []
    for name, net in state.img_nets.items():
        assert set(net.params) == {"semantic", "hash"}
        for path, leaf in jax.tree_util.tree_leaves_with_path(net.params):
            old = dict(jax.tree_util.tree_leaves_with_path(start.img_nets[name].params))[path]
            assert not np.array_equal(leaf, old), f"{name}{jax.tree_util.keystr(path)} has not changed"
        variables = {**state.trunk, "params": {**state.trunk["params"], **net.params}}
        _, relaxed = setup.img_net.apply(variables, images_of(setup), train=False)
        np.testing.assert_allclose(net.bank, relaxed, atol=1e-5)
        kernels.append(np.asarray(net.params["semantic"]["kernel"]))
    assert not np.isin(*kernels).any()


# Compiles both kinds of run.
@pytest.mark.slow
def test_a_frozen_trunks_run_is_that_of_whole_networks_whose_trunk_does_not_move(tmp_path, monkeypatch):
    """The same training through images, with the trunk's updates scaled to nothing: the same codes, banks and heads."""
    config = frozen_config(views=0)
    config.data.crop_padding, config.data.flip = 0, False
    config.optim.clip_norm = 0.0  # the gradient of the trunk would count
    setup = make_setup(config)
    _, found = train(setup, directory=tmp_path / "frozen")
    config.optim.trunk_lr_scale, config.model.batch_norm = 1e-30, "frozen"
    whole = make_setup(config)

    def with_one_trunk(setup):
        state = init(setup)
        trunk = jax.tree.map(np.array, state.img_nets["f"].params["backbone"])
        assert same(trunk, found.trunk["params"]["backbone"])
        nets = {name: replace(net, params={**net.params, "backbone": trunk}) for name, net in state.img_nets.items()}
        return replace(state, img_nets=nets)

    monkeypatch.setattr(loop, "init", with_one_trunk)
    _, expected = train(whole, directory=tmp_path / "whole")
    for x, y in zip(*map(jax.tree.leaves, (expected.img_nets["g"].params["backbone"], found.trunk["params"])), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-30)
    for name, net in found.img_nets.items():
        np.testing.assert_allclose(net.bank, expected.img_nets[name].bank, atol=1e-3)
        for head in ("semantic", "hash"):
            np.testing.assert_allclose(net.params[head]["kernel"], expected.img_nets[name].params[head]["kernel"], atol=1e-3)
    assert np.mean(found.codes != expected.codes) < 0.01


@pytest.fixture(scope="module")
def frozen_run(tmp_path_factory):
    """The state at the end of an uninterrupted run with a frozen trunk, and its folder."""
    directory = tmp_path_factory.mktemp("whole")
    return train(make_setup(frozen_config()), directory=directory)[1], directory


@pytest.mark.parametrize("at", [2, 4, 8, 13])
def test_a_stopped_run_of_a_frozen_trunk_goes_on(at, frozen_run, tmp_path, monkeypatch):
    """SIGTERM after any step: the same state at the end, bit for bit, though the features are lost meanwhile."""
    setup = make_setup(frozen_config())
    stop_at_batch(at, setup, monkeypatch)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path)
    shutil.rmtree(tmp_path / "features")
    assert same(train(make_setup(frozen_config()), directory=tmp_path)[1], frozen_run[0])


def feature_batches(setup, monkeypatch, *, signal_at=None):
    """The list of batches that a setup's trunk is asked for, as it grows; sends SIGTERM at one of them."""
    features, calls = setup.image_encoder.features, []

    def counting(*args, **kwargs):
        for batch in features(*args, **kwargs):
            calls.append(len(batch))
            if len(calls) == signal_at:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(setup.image_encoder, "features", counting)
    return calls


@pytest.mark.parametrize("at", [1, 6, 7, 12])
def test_a_run_stopped_while_it_computes_features_goes_on(at, frozen_run, tmp_path, monkeypatch):
    """SIGTERM at a batch of the centres, their last too, and of either view: nothing is done twice, the end is the same."""
    setup, again = make_setup(frozen_config()), make_setup(frozen_config())
    calls = feature_batches(setup, monkeypatch, signal_at=at)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
    more = feature_batches(again, monkeypatch)
    assert same(train(again, directory=tmp_path)[1], frozen_run[0])
    assert sum(calls) + sum(more) == 140 + 2 * 64
    whole, parts = ({p.relative_to(d): p.read_bytes() for p in d.glob("features/*/*")} for d in (frozen_run[1], tmp_path))
    assert parts == whole


# Compiles three networks, of other bits and seeds.
@pytest.mark.slow
def test_runs_share_features(tmp_path, monkeypatch):
    """A run of other bits and other rates with the same cache runs no image through the trunk; of another seed or crop, all."""
    cache = str(tmp_path / "cache")
    counts, states = [], []
    others = {"bits": 16, "optim.learning_rate": 1e-3, "objective.twin": False}
    for number, changes in enumerate(({}, others, {"seed": 1}, {"data.crop_padding": 1})):
        config = frozen_config(**{"data.feature_cache": cache, **changes})
        setup = make_setup(config)
        calls = feature_batches(setup, monkeypatch)
        states.append(train(setup, directory=tmp_path / str(number))[1])
        counts.append(sum(calls))
        assert not (tmp_path / str(number) / "features").exists()
    assert counts == [268, 0, 268, 268]
    assert same(states[0].trunk, states[1].trunk)
    assert states[1].codes.shape == (64, 16)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_frozen_trunk_to_the_result(tmp_path):
    """The same seed gives the same codes, in another folder and on features of another run; result.json has a measure."""
    results = [run(make_setup(frozen_config()), tmp_path / name) for name in ("a", "b")]
    assert results[0]["map_by_query_net"] == results[1]["map_by_query_net"]
    assert results[0]["pretrained"] is None
    for name in ("query_f", "query_g", "database_f", "database_g", "database_sum"):
        a, b = (np.load(tmp_path / folder / "codes" / f"{name}.npy") for folder in ("a", "b"))
        assert np.array_equal(a, b)
    f, g = (np.load(tmp_path / "a" / "codes" / f"query_{net}.npy") for net in "fg")
    assert not np.array_equal(f, g)


def test_a_frozen_trunk_alone(tmp_path):
    """Without twin and LabelNet: codes start from the heads' banks on the features, and the run goes to its end."""
    config = frozen_config(**{"objective.label_net": False, "objective.twin": False, "eval.query_net": "ff"})
    assert set(run(make_setup(config), tmp_path)["map_by_query_net"]) == {"ff"}


# Compiles a config of its own.
def test_checkpoints_by_round(tmp_path):
    """checkpoint.every_rounds, keep and keep_finished: which steps stay on the disk."""
    config = mock_data.small_config()
    config.train.rounds, config.checkpoint.every_rounds, config.checkpoint.keep = 5, 2, 3
    for keep_finished, expected in [(3, [16, 32, 40]), (1, [40])]:
        config.checkpoint.keep_finished = keep_finished
        train(make_setup(config), directory=tmp_path)  # the second time there is nothing left to train
        assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()) == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.batch_size", 6, "can't be shared by 4 devices"),
        ("train.batch_size", 80, "more than the 64 training images"),
        ("data.image_size", 9, "8x8"),
    ],
)
def test_a_config_that_does_not_fit_the_data_is_refused(key, value, message):
    """One line that says what doesn't fit."""
    config = mock_data.small_config()
    data = mock_data.dataset()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        make_setup(config, data, devices=4)


def test_a_worker_that_a_signal_ended_is_no_defect():
    """grain's error of a worker that a signal to the group killed becomes Stopped; the same error without a signal passes."""

    def lose_a_worker(code, *, number=None):
        with loop._stop_on_signal():
            if number is not None:
                signal.raise_signal(number)
            raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}.")

    with pytest.raises(Stopped):
        lose_a_worker(-15, number=signal.SIGTERM)
    with pytest.raises(RuntimeError, match="Worker process"):
        lose_a_worker(-9)


# Compiles the loop for two layouts of four devices.
@pytest.mark.slow
def test_parts_of_parameters_on_each_device_give_the_same_codes(tmp_path):
    """shard_parameters=True: each device keeps a quarter of large arrays, and training goes where it goes with whole copies."""
    config = mock_data.small_config()
    config.model.features = 512
    _, whole = train(make_setup(config, devices=4), directory=tmp_path / "whole")
    config.shard_parameters = True
    setup = make_setup(config, devices=4)
    _, parts = train(setup, directory=tmp_path / "parts")
    kernel = parts.img_nets["g"].params["semantic"]["kernel"]
    assert kernel.size >= 2**14
    assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // 4}
    for name in ("f", "g"):
        np.testing.assert_allclose(parts.img_nets[name].bank, whole.img_nets[name].bank, atol=1e-3)
    assert np.mean(np.asarray(parts.codes) != np.asarray(whole.codes)) < 0.01


def test_checkpoints_within_a_round(whole, tmp_path):
    """checkpoint.every_steps=3: a checkpoint at each multiple of it as well as after each round; nothing else changes."""
    config = mock_data.small_config()
    config.checkpoint.every_steps, config.checkpoint.keep, config.checkpoint.keep_finished = 3, 100, 100
    _, state = train(make_setup(config), directory=tmp_path)
    assert same(state, whole[1])
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*"))
    assert steps == [0, 3, 6, 8, 9, 12, 15, 16]


# Compiles for four devices, then for another number.
@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 3])
def test_a_checkpoint_of_four_devices_goes_on_with_others(devices, tmp_path, monkeypatch):
    """62 training images on 4 devices and then on 1 or 3: the same batches, and the banks of a run that stayed on four."""
    config = mock_data.small_config()
    config.train.batch_size = 12
    _, whole = train(of_62(config, devices=4), directory=tmp_path / "whole")
    setup = of_62(config, devices=4)
    stop_at_batch(11, setup, monkeypatch)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path / "parts")
    _, parts = train(of_62(config, devices=devices), directory=tmp_path / "parts")
    for name in ("f", "g"):
        found, wanted = (np.asarray(run.img_nets[name].bank)[:62] for run in (parts, whole))
        np.testing.assert_allclose(found, wanted, atol=0.02)


def of_62(config, *, devices):
    data = mock_data.dataset()
    split = data.split._replace(train=data.split.train[:62])
    return make_setup(config, data._replace(split=split), devices=devices)


def test_validation_is_measured_at_each_checkpoint_and_the_best_stays(tmp_path):
    """With data.validation, metrics.jsonl has each checkpoint's mAP, and best.json names the one with the highest."""
    config = mock_data.small_config()
    config.data.validation, config.checkpoint.keep = 1, 1
    run(make_setup(config), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line["map"] for line in lines if line["phase"] == "validation"}
    assert list(measured) == [0, 8, 16]
    best = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert best["measured"] == max(measured.values()) == measured[best["step"]]
    assert {int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")} == {best["step"], 16}
