"""ADSQ: its loss against a float64 double loop over all images, and what its settings switch off."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_objective import (
    BITS,
    CODE_SCALE,
    COSINE_SCALE,
    FEATURES,
    LABELS,
    central_differences,
    check_gradient,
    check_term,
    pair_targets,
    plain_code_guidance,
    plain_cosine,
    plain_likelihood,
)

from adsq_jax.errors import InputError
from adsq_jax.methods import adsq, b_step, objective
from adsq_jax.methods.method import LossInputs

BATCH = np.array([4, 0, 8, 5])  # rows of the training set
LIKELIHOOD_SCALE, NEIGHBOUR_SCALE = 5.0, 7.0
TERMS = (
    "likelihood", "neighbours", "guidance", "code_guidance", "difference", "quantization", "bit_likelihood", "balance",
    "consistency"
)  # fmt: skip
WEIGHTS = {"likelihood": 1.0, "guidance": 0.3, "difference": 2.0, "quantization": 0.5, "bit_likelihood": 0.2, "balance": 0.25}
WEIGHTS |= {"neighbours": 0.4, "code_guidance": 0.6, "consistency": 0.9, "label_codes": 0.7}
SCALES = {
    "likelihood_scale": LIKELIHOOD_SCALE,
    "neighbour_scale": NEIGHBOUR_SCALE,
    "code_scale": CODE_SCALE,
    "cosine_scale": COSINE_SCALE,
}
SWITCHES = {"label_net": True, "twin": True, "difference": True, "update_codes": True, "separate": True}
SWITCHES |= {"head": "tanh"}


def plain_img_net(relaxed_codes, semantic, second_view, *, bank, bank_codes, label_semantic, label_codes):
    """Each term times its weight in float64: the batch against all images; LabelNet's features and codes are by image."""
    n, batch = len(LABELS), len(BATCH)
    terms = dict.fromkeys(TERMS, 0.0)
    for i, row in enumerate(BATCH):
        nearness = {True: 0.0, False: 0.0}
        for j in range(n):
            similar, target, weight = pair_targets(LABELS[row], LABELS[j])
            logit = LIKELIHOOD_SCALE / BITS * float(relaxed_codes[i] @ bank[j])
            cosine = COSINE_SCALE * plain_cosine(semantic[i], label_semantic[j])
            terms["likelihood"] += weight * plain_likelihood(logit, similar) / (batch * n)
            terms["guidance"] += weight * plain_likelihood(cosine, similar) / (batch * n)
            terms["difference"] += (float(relaxed_codes[i] @ bank_codes[j]) / BITS - target) ** 2 / (batch * n)
            nearness[bool(similar)] += np.exp(NEIGHBOUR_SCALE / BITS * float(relaxed_codes[i] @ bank[j]))
        if nearness[True]:
            terms["neighbours"] -= np.log(nearness[True] / (nearness[True] + nearness[False])) / batch
        terms["quantization"] += sum((relaxed_codes[i] - bank_codes[row]) ** 2) / BITS / batch
        terms["consistency"] += (1 - plain_cosine(second_view[i], relaxed_codes[i])) / batch
        terms["bit_likelihood"] -= sum(np.log((1 + relaxed_codes[i] * bank_codes[row]) / 2)) / BITS / batch
    signs, label_sets = np.where(relaxed_codes < 0, -1.0, 1.0), {"batch": LABELS[BATCH], "all": LABELS}
    terms["code_guidance"] = plain_code_guidance(signs, label_codes=label_codes, label_sets=label_sets)[""]
    terms["balance"] = sum((sum(relaxed_codes[:, k]) / batch) ** 2 for k in range(BITS)) / BITS
    return {name: WEIGHTS[name] * value for name, value in terms.items()}


@pytest.fixture(scope="module")
def img_net():
    """The package's and the plain terms of an ImgNet as functions of its outputs, and such outputs."""
    sets = objective.label_sets(LABELS)
    random = np.random.default_rng(1)
    n, batch = len(LABELS), len(BATCH)
    outputs = [np.tanh(random.normal(size=(batch, BITS))), random.normal(size=(batch, FEATURES))]
    outputs.append(np.tanh(random.normal(size=(batch, BITS))))
    outputs = [output.astype(np.float32) for output in outputs]
    bank = np.tanh(random.normal(size=(n, BITS))).astype(np.float32)
    bank_codes = random.choice([-1, 1], (n, BITS)).astype(np.float32)
    features = random.normal(size=(len(sets.sets), FEATURES)).astype(np.float32)
    label_codes = random.uniform(-1, 1, (len(sets.sets), BITS)).astype(np.float32)
    guidance = objective.Guidance(features, label_codes, (sets.counts / n).astype(np.float32))
    loss = partial(adsq.loss, **SCALES, weights=WEIGHTS)

    def terms(relaxed_codes, semantic, second_view, *, guided=True, loss=loss):
        return loss(
            LossInputs(
                relaxed_codes=jnp.asarray(relaxed_codes),
                labels=LABELS[BATCH].astype(np.float32),
                similar=objective.similarity(LABELS[BATCH], LABELS),
                bank=bank,
                bank_codes=bank_codes,
                row_weights=np.full((1, n), 1 / (batch * n), np.float32),
                errors=relaxed_codes - bank_codes[BATCH],
                n_devices=1,
                sum_over_devices=lambda x: x,
                semantic=semantic,
                similar_sets=objective.similarity(LABELS[BATCH], sets.sets),
                batch_similar_sets=objective.similarity(LABELS[BATCH], sets.sets),
                label_set=sets.set_index[BATCH],
                guidance=guidance if guided else None,
                parameters=None,
                progress=np.float32(0),
                statistics=objective.pair_statistics(sets),
                seed=0,
                second_view=second_view,
            )
        )

    def plain(*outputs):
        label_net = {"label_semantic": features[sets.set_index], "label_codes": label_codes[sets.set_index]}
        return plain_img_net(*outputs, bank=bank, bank_codes=bank_codes, **label_net)

    return terms, plain, outputs


@pytest.mark.parametrize("name", TERMS)
def test_term_equals_double_loop_over_images(name, img_net):
    """A batch against the whole training set gives the mean over all of its pairs, times the term's weight."""
    check_term(*img_net, name)


NO_SLOPE = ("code_guidance", "consistency")  # by the relaxed codes: test_objective.py, and below


@pytest.mark.parametrize("name", [name for name in TERMS if name not in NO_SLOPE])
def test_gradient_equals_finite_differences(name, img_net):
    """The gradient of each of an ImgNet's terms is that of the double loop."""
    check_gradient(*img_net, name)


def test_the_second_view_follows_the_first(img_net):
    """The consistency's gradient by the second view is that of the double loop; by the first view's codes there is none."""
    terms, plain, (u, semantic, second) = img_net
    gradients = jax.grad(lambda codes: terms(codes[0], semantic, codes[1])["consistency"])(
        (jnp.asarray(u), jnp.asarray(second))
    )
    expected = central_differences(
        lambda x: {"consistency": plain(u.astype(np.float64), semantic, x)["consistency"]}, second.astype(np.float64)
    )
    assert not gradients[0].any()
    np.testing.assert_allclose(gradients[1], expected["consistency"], rtol=1e-4, atol=1e-6)
    assert np.abs(gradients[1]).max() > 1e-3


def test_consistency_needs_a_second_view(img_net):
    """With its weight, a batch without second views is an error; without it there is no such term, and no second view."""
    terms, _, (u, semantic, second) = img_net
    with pytest.raises(InputError, match="expected a second view's codes, got second_view=None"):
        terms(u, semantic, None)
    without = {**WEIGHTS, "consistency": 0.0}
    found = terms(u, semantic, None, loss=partial(adsq.loss, **SCALES, weights=without))
    assert found == {name: value for name, value in terms(u, semantic, second).items() if name != "consistency"}
    assert [made().second_view, adsq(**SWITCHES, **SCALES, weights=without).second_view] == [True, False]


def test_without_label_net_there_is_no_guidance(img_net):
    """Without LabelNet both guidance terms are left out, and the others stay as they are."""
    terms, _, outputs = img_net
    everything, unguided = terms(*outputs), terms(*outputs, guided=False)
    assert sorted(everything) == sorted(TERMS)
    assert unguided == {name: value for name, value in everything.items() if "guidance" not in name}


def made(**switches):
    return adsq(**{**SWITCHES, **switches}, **SCALES, weights=WEIGHTS)


@pytest.mark.parametrize("difference", [True, False])
def test_the_method_is_the_loss_and_the_b_step_with_their_weights(difference, img_net):
    """The method's loss has the settings it was given, its step those weights; without difference that term is left out."""
    terms, _, outputs = img_net
    method = made(difference=difference)
    wanted = terms(*outputs)
    found = terms(*outputs, loss=method.loss)
    assert found == {name: value for name, value in wanted.items() if difference or name != "difference"}
    random = np.random.default_rng(2)
    sets = objective.label_sets(LABELS)
    arguments = {
        "label_codes": random.uniform(-1, 1, (len(sets.sets), BITS)),
        "label_sets": sets.sets,
        "set_index": sets.set_index,
        "ratio": 0.5,
        "size": len(LABELS),
        "sum_over_processes": np.asarray,
    }
    start = random.choice([-1, 1], (len(LABELS), BITS)).astype(np.int8)
    banks = [random.uniform(-1, 1, (len(LABELS), BITS)) for _ in range(2)]
    expected = b_step.update_codes(
        start,
        banks,
        difference_weight=2.0 if difference else 0.0,
        quantization_weight=0.5,
        bit_likelihood_weight=0.2,
        label_code_weight=0.7,
        **arguments,
    )
    update = method.update_codes(start, banks, **arguments)
    assert np.array_equal(update.codes, expected.codes)
    assert update.objectives == expected.objectives


@pytest.mark.parametrize(
    ("switch", "attributes"),
    [
        ("label_net", ("label_net", "separate")),
        ("separate", ("separate",)),
        ("twin", ("twin",)),
        ("update_codes", ("every_round",)),
    ],
)
def test_each_switch_turns_off_its_own_part(switch, attributes):
    """Each of the four changes its own properties; codes are bounded, and nothing else is learned."""
    for value in (True, False):
        method = made(**{switch: value})
        parts = {name: getattr(method, name) for name in ("label_net", "separate", "twin", "every_round")}
        assert parts == {**dict.fromkeys(parts, True), **dict.fromkeys(attributes, value)}
        assert (method.head, made(head="layer_norm").head) == ("tanh", "layer_norm")
        assert method.parameters is None
