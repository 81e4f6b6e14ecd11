"""Training in one call and by hand: the same codes as the command's loop, and one line for bad input."""

import jax
import numpy as np
import pytest
from PIL import Image
from support import mock_data

import adsq_jax as aj
from adsq_jax.data import Preprocessing
from adsq_jax.errors import InputError
from adsq_jax.training import LabelNetSettings, loop, rounds

SHORT = {"bits": 12, "rounds": 2, "epochs_per_round": 1, "batch_size": 16, "label_net": LabelNetSettings(hidden=16, steps=20)}


@pytest.fixture(scope="module")
def arrays():
    """140 images of 8x8 pixels, and the ids of their classes."""
    data = mock_data.dataset()
    return data.source.pixels, data.source.labels[np.arange(140)].argmax(axis=1)


@pytest.fixture(scope="module")
def run(arrays):
    images, labels = arrays
    return aj.fit(images[20:], labels[20:], **SHORT)


def make_setup(arrays, **options):
    images, labels = arrays
    data = aj.data.from_arrays(images, labels, query=np.arange(20), train=np.arange(20, 84), database=np.arange(20, 140))
    short = {"rounds": 2, "epochs_per_round": 1, "batch_size": 16, "label_net": SHORT["label_net"], **options}
    return aj.training.setup(data, short.pop("method", "adsq"), aj.models.build("small_cnn", bits=12, width=4), **short)


def test_a_run_encodes_and_measures(run, arrays, tmp_path):
    """Codes are -1 and +1, one row an image; what is measured equals retrieval.measure on them; a saved run gives the same."""
    images, labels = arrays
    codes = run.encode(images)
    assert codes.dtype == np.int8
    assert codes.shape == (140, 12)
    measures = run.evaluate(images[:20], labels[:20])
    by_hand = aj.retrieval.measure(codes[:20], codes[20:], query_labels=labels[:20], database_labels=labels[20:])
    assert measures.to_dict() == by_hand.to_dict()
    assert measures.map > 0.5
    assert run.evaluate(images[:20], [str(label) for label in labels[:20]]).to_dict() == by_hand.to_dict()
    assert run.evaluate(images[:20], np.eye(5, dtype=int)[labels[:20]]).map == pytest.approx(by_hand.map)
    run.save(tmp_path / "run")
    assert np.array_equal(aj.load(tmp_path / "run").encode(images), codes)
    assert "12 bits" in repr(run)
    for shown in (run, run.model, measures):
        assert shown._repr_html_().startswith("<table><tr>")


def test_a_database_of_several_labels(run, arrays):
    """Queries of one label each and database images of several: an image with two labels is right for both."""
    images, labels = arrays
    several = np.eye(5, dtype=np.uint8)[labels]
    several[::2] |= np.eye(5, dtype=np.uint8)[(labels[::2] + 1) % 5]
    single = np.eye(5, dtype=np.uint8)[labels[:20]]
    found = run.evaluate(images[:20], single, database_images=images[20:], database_labels=several[20:])
    codes = run.encode(images)
    by_hand = aj.retrieval.measure(codes[:20], codes[20:], query_labels=single, database_labels=several[20:])
    assert found.to_dict() == by_hand.to_dict()


# Trains on three forms of the same images.
def test_paths_pictures_and_names(tmp_path):
    """Paths or PIL images, with names as labels, resized and cropped as asked for."""
    folder = mock_data.pictures(tmp_path / "pictures")
    paths = sorted(folder.rglob("*.png"))
    names = [path.parent.name for path in paths]
    options = {**SHORT, "batch_size": 12, "preprocessing": Preprocessing(resize=10, image_size=8)}
    run = aj.fit([str(path) for path in paths], names, **options)
    pictures = [Image.open(path) for path in paths]
    assert np.array_equal(run.encode(pictures), run.encode(paths))
    assert run.evaluate(pictures[:3], names[:3]).n_database == len(paths)


def test_a_callback_gets_each_record(arrays):
    """on_progress is called with phase, step and loss terms, and replaces the progress bar."""
    records = []
    aj.fit(*arrays, **SHORT, method="dpsh", on_progress=records.append)
    assert {record["phase"] for record in records} == {"img_net"}
    assert all(np.isfinite(record["likelihood"]) for record in records)


# Trains twice, once in parts.
def test_an_interrupted_run_in_a_folder_continues(arrays, tmp_path):
    """fit(workdir=...) saves; an exception in mid-run and the same call again give the codes of a run without interruption."""
    whole = aj.fit(*arrays, **SHORT, workdir=tmp_path / "whole")

    def interrupt(record):
        if record["phase"] == "img_net" and record["step"] >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aj.fit(*arrays, **SHORT, workdir=tmp_path / "parts", on_progress=interrupt)
    parts = aj.fit(*arrays, **SHORT, workdir=tmp_path / "parts")
    assert np.array_equal(parts.encode(arrays[0]), whole.encode(arrays[0]))
    assert np.array_equal(aj.load(tmp_path / "parts").encode(arrays[0]), whole.encode(arrays[0]))
    with pytest.raises(InputError, match="another config"):
        aj.fit(*arrays, **{**SHORT, "bits": 16}, workdir=tmp_path / "parts")


# Compiles the default network.
def test_by_hand_is_the_loop(arrays):
    """`step` over the loop's batches, `refresh_bank` and `update_codes` give what `train_round` gives; the next one learns."""
    setup = make_setup(arrays)
    start = aj.training.train_label_net(setup, aj.training.init(setup, seed=3))
    state = start
    for net in setup.networks:
        batches = rounds.train_batches(setup, net=net, step=int(state.step))
        for batch, _ in zip(batches, range(setup.steps_per_half), strict=False):
            state, metrics = aj.training.step(setup, state, batch, net=net)
        state = aj.training.refresh_bank(setup, state, net=net)
    state = aj.training.update_codes(setup, state, refresh=False)
    assert set(metrics) >= {"likelihood", "difference", "loss", "grad_norm"}
    loop, finished = aj.training.train_round(setup, start, number=0)
    assert finished
    assert int(state.step) == int(loop.step) == setup.steps_per_round
    assert np.array_equal(state.codes, loop.codes)
    np.testing.assert_allclose(state.img_nets["g"].bank, loop.img_nets["g"].bank, atol=1e-5)
    kernel = np.array(loop.img_nets["g"].params["hash"]["kernel"])
    later, _ = aj.training.train_round(setup, loop, number=1)
    assert np.abs(later.img_nets["g"].params["hash"]["kernel"] - kernel).max() > 1e-4


# Compiles for four devices.
def test_several_devices(arrays):
    """devices=jax.devices() trains data-parallel, and gives what one device gives but for the order of sums."""
    codes = {}
    for devices in (None, jax.devices()):
        setup = make_setup(arrays, devices=devices)
        state = aj.training.train_label_net(setup, aj.training.init(setup))
        for batch in aj.data.batches(setup.data, batch_size=16, seed=0):
            state, _ = aj.training.step(setup, state, batch, net="f")
        codes[devices is None] = np.asarray(aj.training.refresh_bank(setup, state, net="f").img_nets["f"].bank)
    np.testing.assert_allclose(codes[True], codes[False], atol=0.02)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "dphs"}, "dpsh"),
        ({"backbone": "resnet81"}, "resnet18"),
        ({"bits": 0}, "bits"),
        ({"batch_size": 500}, "140 training images"),
        ({"rounds": 0}, "rounds=0"),
        ({"frozen_trunk": True}, "workdir"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "140"),
        ({"images": np.full((140, 8, 8, 3), np.nan)}, "NaN|float"),
        ({"labels": np.zeros(140, int)}, "dissimilar"),
        ({"workdir": "/proc/nowhere/run"}, "can't be used"),
    ],
)
def test_bad_input_is_one_line(arrays, options, said):
    """Each is an InputError of one line, before anything is trained."""
    images, labels = arrays
    with pytest.raises(InputError, match=said) as raised:
        aj.fit(options.pop("images", images), options.pop("labels", labels), **{**SHORT, **options})
    assert "\n" not in str(raised.value)


def test_two_views_of_a_frozen_trunk(arrays):
    """A method that compares two views of an image is refused where features of one view are all that there is."""
    with pytest.raises(InputError, match=r"feature_views=1: expected at least 2, since dhd compares two views"):
        make_setup(arrays, method="dhd", frozen_trunk=True, feature_views=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda batch: {**batch, "inputs": batch["inputs"].astype(np.float32)}, "expected uint8"),
        (lambda batch: {**batch, "inputs": batch["inputs"][:, :4]}, "expected uint8"),
        (lambda batch: {**batch, "index": batch["index"] + 64}, "rows of the training set"),
        (lambda batch: {**batch, "index": np.zeros_like(batch["index"])}, "each row of the training set once"),
        (lambda batch: {"inputs": batch["inputs"]}, "adsq_jax.data.batches"),
    ],
)
def test_a_batch_that_does_not_fit(arrays, change, said):
    """One line, and not an error from inside a trace."""
    setup = make_setup(arrays, method="dpsh")
    batch = next(iter(aj.data.batches(setup.data, batch_size=16, seed=0)))
    with pytest.raises(InputError, match=said):
        aj.training.step(setup, aj.training.init(setup), change(batch), net="f")


def test_a_batch_with_a_second_view(arrays):
    """A method that wants one gets it from `batches`; without it, one line says how."""
    setup = make_setup(arrays, method="dhd")
    state = aj.training.init(setup)
    batch = next(iter(aj.data.batches(setup.data, batch_size=16, seed=0, second_view=True)))
    stepped, metrics = aj.training.step(setup, state, batch, net="f")
    assert int(stepped.step) == 1
    assert np.isfinite(metrics["distillation"])
    with pytest.raises(InputError, match=r"adsq_jax\.data\.batches with second_view=True"):
        aj.training.step(setup, state, {name: batch[name] for name in ("inputs", "index")}, net="f")
    with pytest.raises(InputError, match="second_inputs are uint8"):
        aj.training.step(setup, state, {**batch, "second_inputs": batch["second_inputs"][:3]}, net="f")
    other = make_setup(arrays, method="dpsh")
    with pytest.raises(InputError, match=r"expected a batch \{'inputs': \.\.\., 'index': \.\.\.\}; fix"):
        aj.training.step(other, aj.training.init(other), batch, net="f")


def test_a_state_of_another_setup(arrays):
    """Another network, another length, another number of networks: one line."""
    setup = make_setup(arrays)
    state = aj.training.init(setup)
    batch = next(iter(aj.data.batches(setup.data, batch_size=16, seed=0)))
    with pytest.raises(InputError, match="expected one of f, g"):
        aj.training.step(setup, state, batch, net="h")
    other = make_setup(arrays, method="dpsh")
    with pytest.raises(InputError, match="expected a state of this setup"):
        aj.training.step(setup, aj.training.init(other), batch, net="g")
    wider = aj.training.setup(setup.data, "adsq", aj.models.build("small_cnn", bits=12, width=8), batch_size=16)
    with pytest.raises(InputError, match="other names or shapes"):
        aj.training.step(wider, state, batch, net="f")


def test_a_term_without_a_weight():
    """A term of one's own that no weight names is one line that says which config key is missing."""
    with pytest.raises(InputError, match=r"config\.objective\.weights\.mine"):
        aj.methods.objective.weighted({"mine": np.float32(1)}, {"likelihood": 1.0})


def test_dseh_has_its_own_label_net_weights(arrays):
    """Its LabelNet has neither difference nor balance term, by hand as by its config."""
    wanted = mock_data.load_config("digits", "method=dseh").label_net.weights.to_dict()
    assert dict(make_setup(arrays, method="dseh", label_net=None).label_net_settings.weights) == wanted
    assert wanted["difference"] == wanted["balance"] == 0


def test_other_pretrained_weights_are_refused(tmp_path):
    """A checkpoint that began with other weights is one line, by fit's own record of what it is of."""
    now = {"config": {"fit": {}}, "data": {"split_sha256": "a"}, "pretrained_sha256": "b"}
    with pytest.raises(InputError, match=r"other weights .*w\.npz"):
        loop._check_origin({**now, "seconds": 1.0, "pretrained_sha256": "c"}, now, tmp_path, weights="w.npz")
