"""The sentences of the report of the comparison that no number changes."""

from benchmarks.methods.scores import ALONE, BOTH, LEVEL, RESAMPLES

TITLES = {  # by the name of a config
    "cifar10_frozen": "CIFAR-10 frozen",
    "cifar10_small": "CIFAR-10 from scratch",
    "imagenet100_frozen": "Tiny-ImageNet-100 frozen",
    "emoji_frozen": "Emoji frozen",
    "fashion_mnist": "Fashion-MNIST from scratch",
    "digits": "Digits",
    "stamps": "Stamps",
}
UNCOUNTED = ("digits", "stamps")  # many methods lie within each other's intervals
CIFAR = "60,000 colour photographs (CIFAR-10) of 32x32 pixels in 10 classes, as JPEG copies in the official parts."
FROZEN = (
    "Every method trains hash layers on the same features, those of a frozen EfficientNet-Lite0 that was trained on ImageNet "
    "and sees the images at {pixels} pixels."
)
SCRATCH = "Every method trains the same small CNN from scratch."
ABOUT = {  # what the data are, and how the methods were run
    "cifar10_frozen": (CIFAR, FROZEN.format(pixels=112)),
    "cifar10_small": (CIFAR, SCRATCH),
    "imagenet100_frozen": (
        "Photographs of 64x64 pixels from 100 classes of Tiny-ImageNet, 550 of each class.",
        FROZEN.format(pixels=112),
    ),
    "emoji_frozen": (
        "Emoji of two vendors (Noto Emoji and Twemoji), pictures of 64x64 pixels with 127 labels, several to a picture.",
        FROZEN.format(pixels=112),
    ),
    "fashion_mnist": ("70,000 grey pictures of clothes, 28x28 pixels, in 10 classes.", SCRATCH),
    "digits": ("scikit-learn's handwritten digits, 1,797 grey pictures of 8x8 pixels in 10 classes.", SCRATCH),
    "stamps": (
        "Photographs and drawings of animals, food, vehicles and the like (Tux Paint's stamps), one folder for each class.",
        FROZEN.format(pixels=224),
    ),
}
NOTES = {
    "cifar10_small": "Only baselines that are among the best on other data were run, and most of them at 24 bits alone.",
    "imagenet100_frozen": "The frozen network was trained on all 1,000 classes of ImageNet, these 100 among them. "
    "That is usual in the field, and it makes the task easier.",
    "emoji_frozen": "All pictures of one emoji look alike and yet count as independent queries, so the intervals are too "
    "narrow here. On harder data, ADSQ ran in an earlier form.",
    "fashion_mnist": "Training is short: 4 rounds of 3 epochs, where the config has 10. Most baselines were run at 24 bits "
    "alone.",
}
UNDECIDED = "Many methods lie within each other's intervals here, so these data can't say which of them is best."
HEAD = "# How ADSQ compares with other hashing methods\n"
BEST = """## ADSQ and the best baseline

Each cell has the difference in mAP with its interval, the name of the best baseline, and the number of baselines that ADSQ
is above / neither above nor below / below.
"""
ALL_METHODS = """## All methods

Means over the seeds at each code length. In bold: the best method, and those that it isn't above. The page of each data set has
the standard deviations, each difference, the time and the memory.
"""
HOW_TO_READ = f"""## How to read these tables

- **mAP** is measured at the cutoff of the data set's protocol, and averaged over all orders of tied items. Numbers after ± are
  sample standard deviations over the seeds.
- **Frozen**: only hash layers are trained, on the features of a frozen EfficientNet-Lite0. **From scratch**: a small CNN is
  trained end to end.
- **{ALONE}** encodes an image with one network, **{BOTH}** with the sum of its two networks. Both rows come from the same
  runs.
- **Twice the epochs** and **two networks** (of two seeds, with their relaxed codes added up) give a baseline as much training
  as ADSQ has.
- **Above** and **below** mean the same on all pages: the {LEVEL:.0%} interval of the difference lies on one side of 0. The
  interval is a bootstrap ({RESAMPLES:,} resamples, percentiles) that draws seeds, then queries. With three seeds it is
  somewhat too narrow.
- **Bold** marks the best of a column and all that the best isn't above. Among differences, it marks those above or below.
"""
SENTENCES = """## What to keep in mind

- **Settings** come from up to four trials of each method on held-out training images. [Tuning](tuning.md) lists them all, and
  says where the choice had seen more than those images.
- **ADSQ is a reconstruction**: the equations of its paper were not available, so this project built its objective from the
  abstract, a survey and related methods. The other methods follow their papers, on the same networks and data; their files
  in `adsq_jax/methods/` say where they deviate.
- **Why other methods are ahead** in some cases wasn't investigated. Two parts of DHD, its second view and its LayerNorm, gave
  ADSQ its last gain on emoji; on CIFAR-10 they made it worse.
- **Not measured**: NUS-WIDE, COCO, MIRFlickr-25k and ImageNet-100 at full size. Their protocols are implemented, but their
  pictures were not at hand.{missing}
- **Measured with older code**: on Fashion-MNIST, digits and stamps, CSQ and OrthoHash ran before their hash centers were
  separated. On digits and stamps, ADSQ ran before its form by codes.
- **From scratch**, ADSQ has the settings of its configs without trials, and not every baseline was run.
- **To reproduce this**: `benchmarks/methods/compare.sh` trains everything, and writes each run as a line of
  `{folder}/SET/runs.jsonl`. `python -m benchmarks.rows --write` makes these pages from the lines.
"""
SET_HEAD = """# {title}
{opening}
[How to read these tables](index.md#how-to-read-these-tables). [All trials](tuning.md).
"""
VARIANTS = f"""A variant (both) is compared with {BOTH}, a variant (f) with {ALONE}. Rows without a difference are variants of
baselines. Variants of ADSQ from before 2026-11-29 are changes of an earlier form by neighbours, or of earlier code.

"""
TUNING = """# Tuning

Each method had up to four trials: two learning rates, each with the two choices in its `TUNING_GRID`. Trials were scored on
held-out training images, never on the queries. On emoji, a trial's score is the mean over three such splits; the column "images
held out" has the size of each. A method's runs have the settings of the trial that is marked as chosen. The choices were
written down before a method's runs, with these exceptions:

- **ADSQ, terms added late**: after runs on stamps and emoji had been seen, ADSQ got two more terms, `neighbours` and
  `bit_likelihood`, and other choices. Among the variants, earlier runs are called "before neighbours". ADSQ's trials on digits
  and stamps are of these choices. If you repeat the comparison there, ADSQ takes the settings of its configs without trials,
  as on Fashion-MNIST and on CIFAR-10 from scratch.
- **ADSQ, choices changed again**: for CIFAR-10, Tiny-ImageNet and emoji the second choice became guidance by codes. This
  followed some hundred trials on held-out images of these sets, and came before any run of ADSQ with the queries of CIFAR-10
  and Tiny-ImageNet. The first choice then got a second view and a LayerNorm, by trials on held-out images of emoji. By then,
  runs with the queries of CIFAR-10 and emoji had been seen, and DHD, which has both, was ahead on emoji.
- **DPSH, DHN and DSDH** first had unweighted pairs, as in their papers, and merged classes ("unweighted pairs"). They were
  given the weights of HashNet's and ADSQ's pairs and settings nearer to those of their papers, and were run again.
"""
