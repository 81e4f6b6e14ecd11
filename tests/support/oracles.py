"""Each baseline's loss as its paper has it, in float64 with a plain loop over pairs: what the fast versions are held against.

Symbols: u_i, relaxed code of image i, K bits; S_ij = 1 if images i and j share a label; p_ij = u_i . u_j. Sums over pairs are
means over pairs, sums over bits are divided by K; inner products that are compared with K S are divided by K before they are
squared. Pairs of the batch are all m^2 ordered ones, i = j with them unless `diagonal` is false. Terms carry no weights, except
those within a term (of a pair; a margin).

By hand, K = 2, two images, u_1 = (1, 1), u_2 = (1, 0), labels (1, 0) and (0, 1), so that only i = i pairs are similar:
  p_11 = 2, p_12 = 1, p_22 = 1; softplus(x) = log(1 + e^x).
  DPSH (bank = u, theta = p / 2): ((softplus(1) - 1) + 2 softplus(.5) + (softplus(.5) - .5)) / 4
    = (.313262 + 2 * .974077 + .474077) / 4 = .683873; quantization with b = (1, 1): only u_22 errs, by 1: 1 / 4 = .25.
  HashNet (alpha = 1, u taken as h): similar pairs 11, 22: softplus(-2) = .126928, softplus(-1) = .313262, mean .220095;
    dissimilar 12, 21: softplus(1) = 1.313262. With |S|/|S_1| = |S|/|S_0| = 2 the sum is .220095 + 1.313262 = 1.533357.
  DCH (gamma = 20, no i = i pairs): cos = 1 / sqrt(2), d = 1 - .707107 = .292893; both pairs dissimilar, one kind, so w = 1:
    log(1 + 20 / .292893) = 4.238218. Quantization: |u_1| has d = 0, |u_2| d = .292893: log(1 + .292893 / 20) / 2 = .007269.
  CSQ (centres (1, 1) for class 1, (1, -1) for class 2; here u_1 = (.5, .5), u_2 = (.5, 0)): h = (.75, .75), (.75, .5);
    -(3 log .75 + log .5) / 4 = (.863046 + .693147) / 4 = .389048;
    quantization log cosh(|u| - 1): (3 * .120115 + .433781) / 4 = .198531.
  OrthoHash (the same two centres as targets, s = 8, m = .2): cosines of u_1 (1, 0), of u_2 (.707107, .707107);
    image 1: logits 8 * .8, 0: softplus(-6.4) = .001660;
    image 2: logits 8 * .707107, 8 * .507107: softplus(1.6) = 1.783900; mean .892780.
"""

import math

import numpy as np


def share_a_label(a, b):
    """Whether two multi-hot rows have a label in common."""
    return any(x and y for x, y in zip(a, b, strict=True))


def softplus(x):
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def log_cosh(x):
    """log cosh x without overflow."""
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)


def sign(x):
    """The hash code's bit: +1 for x >= 0, else -1."""
    return 1.0 if x >= 0 else -1.0


def batch_pairs(n, diagonal=True):
    """All ordered pairs of n images; without i = i if `diagonal` is false."""
    return [(i, j) for i in range(n) for j in range(n) if diagonal or i != j]


def dot(a, b):
    """The inner product, as a plain sum."""
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def mean(values):
    """The mean of a list of numbers."""
    return math.fsum(values) / len(values)


def bit_mean(rows, function):
    """The mean over images and bits of a function of one number."""
    return mean([function(float(x)) for row in rows for x in row])


def pair_weights(similar, given=None):
    """|S| / |S_1| of a similar pair and |S| / |S_0| of a dissimilar one, counted here or `given`; (1, 1) where a kind lacks."""
    if given is not None:
        return given
    ones = sum(similar)
    zeros = len(similar) - ones
    return (len(similar) / ones, len(similar) / zeros) if ones and zeros else (1.0, 1.0)


def against_set(u, labels, others, all_labels, logit, weights=(1.0, 1.0)):
    """Mean over batch x whole set of w (softplus(t) - S t), for t = logit(u_i, other_j); w of similar pairs, then of others."""
    values = []
    for code, own in zip(u, labels, strict=True):
        for other, theirs in zip(others, all_labels, strict=True):
            t = logit(code, other)
            similar = share_a_label(own, theirs)
            values.append(weights[0] * (softplus(t) - t) if similar else weights[1] * softplus(t))
    return mean(values)


def squared_errors(u, codes):
    """Mean over images and bits of (u - b)^2."""
    return mean([(float(x) - float(codes[i][k])) ** 2 for i, row in enumerate(u) for k, x in enumerate(row)])


def signed(own, theirs, ratio):
    """S~ of a pair: 1 if it is similar, else -ratio."""
    return 1.0 if share_a_label(own, theirs) else -ratio


def differences(u, labels, codes, all_labels, ratio):
    """Mean over batch x whole set of (u_i . b_j / K - S~)^2."""
    bits = len(u[0])
    values = []
    for code, own in zip(u, labels, strict=True):
        for other, theirs in zip(codes, all_labels, strict=True):
            values.append((dot(code, other) / bits - signed(own, theirs, ratio)) ** 2)
    return mean(values)


def dsh(u, labels, *, margin=2.0, diagonal=True):
    """DSH: contrastive on squared distances with margin `margin` * K, and | |u| - 1 | of both images of each pair."""
    bits = len(u[0])
    contrastive, regular = [], []
    for i, j in batch_pairs(len(u), diagonal):
        distance = sum((float(a) - float(b)) ** 2 for a, b in zip(u[i], u[j], strict=True))
        if share_a_label(labels[i], labels[j]):
            contrastive.append(0.5 * distance / bits)
        else:
            contrastive.append(0.5 * max(margin * bits - distance, 0.0) / bits)
        regular.append(sum(abs(abs(float(x)) - 1) for row in (u[i], u[j]) for x in row) / bits)
    return {"contrastive": mean(contrastive), "quantization": mean(regular)}


def dpsh(u, labels, *, bank, codes, all_labels, index, weights=(1.0, 1.0)):
    """DPSH: likelihood of p / 2 against the whole set, squared distance to sign(u); `codes` and `index` play no part."""
    return {
        "likelihood": against_set(u, labels, bank, all_labels, lambda a, b: dot(a, b) / 2, weights),
        "quantization": squared_errors(u, [[sign(x) for x in row] for row in u]),
    }


def dhn(u, labels, *, scale=1.0, diagonal=True, weights=(1.0, 1.0)):
    """DHN: likelihood of p (times `scale`) in the batch, log cosh(|u| - 1) of both images of each pair."""
    bits = len(u[0])
    likelihood, quantization = [], []
    for i, j in batch_pairs(len(u), diagonal):
        t = scale * dot(u[i], u[j])
        weight = weights[0 if share_a_label(labels[i], labels[j]) else 1]
        likelihood.append(weight * (softplus(t) - share_a_label(labels[i], labels[j]) * t))
        quantization.append(sum(log_cosh(abs(float(x)) - 1) for row in (u[i], u[j]) for x in row) / bits)
    return {"likelihood": mean(likelihood), "quantization": mean(quantization)}


def jaccard(a, b):
    """|a and b| / |a or b| of two multi-hot rows."""
    both = sum(1 for x, y in zip(a, b, strict=True) if x and y)
    either = sum(1 for x, y in zip(a, b, strict=True) if x or y)
    return both / either


def hashnet(u, labels, *, alpha=1.0, beta=None, weights=None, multi_label=False, diagonal=True):
    """HashNet: weighted likelihood of alpha h_i . h_j; h = tanh(beta u), or u itself without beta.

    Weights: those of `pair_weights`, and of a similar pair its labels' Jaccard index if `multi_label`.
    """
    h = [[float(x) if beta is None else math.tanh(beta * float(x)) for x in row] for row in u]
    pairs = batch_pairs(len(u), diagonal)
    of_similar, of_dissimilar = pair_weights([share_a_label(labels[i], labels[j]) for i, j in pairs], weights)
    values = []
    for i, j in pairs:
        t = alpha * dot(h[i], h[j])
        if share_a_label(labels[i], labels[j]):
            overlap = jaccard(labels[i], labels[j]) if multi_label else 1.0
            values.append(overlap * of_similar * (softplus(t) - t))
        else:
            values.append(of_dissimilar * softplus(t))
    return {"likelihood": mean(values)}


def dsdh(u, labels, *, bank, codes, all_labels, index, weights=(1.0, 1.0)):
    """DSDH, what reaches the network: likelihood of p / 2 against the whole set, squared distance to the learned codes."""
    return {
        "likelihood": against_set(u, labels, bank, all_labels, lambda a, b: dot(a, b) / 2, weights),
        "quantization": squared_errors(u, [codes[i] for i in index]),
    }


def dsdh_objective(codes, bank, labels, classifier, *, mu, nu, eta):
    """mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2, sums over all; classifier is W, [bits, c]."""
    total = nu * sum(float(w) ** 2 for row in classifier for w in row)
    for code, relaxed, own in zip(codes, bank, labels, strict=True):
        for c, label in enumerate(own):
            guess = sum(float(code[k]) * float(classifier[k][c]) for k in range(len(code)))
            total += mu * (float(label) - guess) ** 2
        total += eta * sum((float(b) - float(x)) ** 2 for b, x in zip(code, relaxed, strict=True))
    return total


def dsdh_classifier(codes, labels, *, mu, nu):
    """The W that minimises mu |Y - B W|^2 + nu |W|^2, as least squares over B with sqrt(nu / mu) I below it."""
    codes, labels = np.asarray(codes, np.float64), np.asarray(labels, np.float64)
    bits, classes = codes.shape[1], labels.shape[1]
    left = np.concatenate([codes, math.sqrt(nu / mu) * np.eye(bits)])
    return np.linalg.lstsq(left, np.concatenate([labels, np.zeros((bits, classes))]), rcond=None)[0]


def dsdh_step(codes, bank, labels, *, mu, nu, eta, sweeps=1):
    """DSDH's discrete step by trial: W solved once, then each bit of each image takes its better value; ties keep the old."""
    codes = np.array(codes, np.float64)
    classifier = dsdh_classifier(codes, labels, mu=mu, nu=nu)
    for _ in range(sweeps):
        for k in range(codes.shape[1]):
            for i in range(len(codes)):
                row, values = codes[i : i + 1], {}
                for bit in (-1.0, 1.0):
                    trial = row.copy()
                    trial[0, k] = bit
                    values[bit] = dsdh_objective(trial, bank[i : i + 1], labels[i : i + 1], classifier, mu=mu, nu=nu, eta=eta)
                if not math.isclose(values[-1.0], values[1.0], rel_tol=1e-12):
                    codes[i, k] = min(values, key=values.get)
    return codes.astype(np.int64), classifier


def adsh(u, labels, *, bank, codes, all_labels, index, ratio=1.0):
    """ADSH: (u . v / K - S~)^2 against the whole set's codes, squared distance to the own one; `bank` plays no part."""
    return {
        "difference": differences(u, labels, codes, all_labels, ratio),
        "quantization": squared_errors(u, [codes[i] for i in index]),
    }


def adsh_objective(codes, banks, labels, *, gamma, ratio=1.0):
    """Over the networks' banks, sum_ij (u_i . v_j - K S~)^2 + gamma sum_i |v_i - u_i|^2: one bank in ADSH, two in DADH."""
    total, bits = 0.0, len(codes[0])
    for bank in banks:
        for i, relaxed in enumerate(bank):
            for j, code in enumerate(codes):
                total += (dot(relaxed, code) - bits * signed(labels[i], labels[j], ratio)) ** 2
            total += gamma * sum((float(v) - float(x)) ** 2 for v, x in zip(codes[i], relaxed, strict=True))
    return total


def adsh_step(codes, banks, labels, *, gamma, ratio=1.0):
    """One sweep of ADSH's (DADH's) step by trial, bit by bit, image by image; ties keep the old bit. For very small sets."""
    codes = np.array(codes, np.float64)
    for k in range(codes.shape[1]):
        for i in range(len(codes)):
            values = {}
            for bit in (-1.0, 1.0):
                trial = codes.copy()
                trial[i, k] = bit
                values[bit] = adsh_objective(trial, banks, labels, gamma=gamma, ratio=ratio)
            if not math.isclose(values[-1.0], values[1.0], rel_tol=1e-12):
                codes[i, k] = min(values, key=values.get)
    return codes.astype(np.int64)


def dadh(u, labels, *, bank, codes, all_labels, index, ratio=1.0):
    """DADH, one of its networks: likelihood of p / 2 against the other's bank, and ADSH's terms; `balance` from memory."""
    bits = len(u[0])
    return {
        "likelihood": against_set(u, labels, bank, all_labels, lambda a, b: dot(a, b) / 2),
        "difference": differences(u, labels, codes, all_labels, ratio),
        "quantization": squared_errors(u, [codes[i] for i in index]),
        "balance": mean([mean([float(row[k]) for row in u]) ** 2 for k in range(bits)]),
    }


def dseh(u, labels, *, bank, codes, all_labels, index, semantic, label_semantic, scale=1.0, bounded=False):
    """DSEH's ImgNet: likelihood of image features against LabNet's n, cross-entropy to LabNet's codes; `bank` plays no part.

    u are the hash layer's outputs, logits of the bits; with `bounded` they are tanh of them, and sigmoid(2 z) = (1 + u) / 2.
    `codes` are LabNet's, and `scale` multiplies the features' inner products.
    """
    crossed = []
    for row, i in zip(u, index, strict=True):
        for x, b in zip(row, codes[i], strict=True):
            logit = 2 * math.atanh(float(x)) if bounded else float(x)
            crossed.append(softplus(logit) - (1 + float(b)) / 2 * logit)
    return {
        "semantic_likelihood": against_set(semantic, labels, label_semantic, all_labels, lambda a, b: scale * dot(a, b)),
        "code": mean(crossed),
    }


def cosine(a, b, least=0.0):
    """a . b / (|a| |b|), with lengths of at least `least`."""
    return dot(a, b) / max(math.sqrt(dot(a, a)) * math.sqrt(dot(b, b)), least)


def dch(u, labels, *, gamma=20.0, weights=None, diagonal=False, floor=0.0):
    """DCH: Cauchy cross-entropy of d = K / 2 (1 - cos), of at least `floor`; and log(1 + d(|u|, 1) / gamma) an image.

    An i = i pair has d = 0, log(1 + d / gamma) = 0 where it is similar; an image without labels makes it infinite: `floor`.
    """
    bits = len(u[0])
    pairs = batch_pairs(len(u), diagonal)
    similar = [share_a_label(labels[i], labels[j]) for i, j in pairs]
    of_similar, of_dissimilar = pair_weights(similar, weights)
    values = []
    for (i, j), alike in zip(pairs, similar, strict=True):
        distance = max(bits / 2 * (1 - cosine(u[i], u[j])), floor)
        values.append(of_similar * math.log1p(distance / gamma) if alike else of_dissimilar * math.log1p(gamma / distance))
    ones = [1.0] * bits
    devices = [max(bits / 2 * (1 - cosine([abs(float(x)) for x in row], ones)), 0.0) for row in u]
    return {"cross_entropy": mean(values), "quantization": mean([math.log1p(d / gamma) for d in devices])}


def soft_cross_entropy(logits, own):
    """Cross-entropy of softmax(logits) to the labels' shares y / |y|; 0 for a row without labels."""
    top = max(logits)
    log_total = top + math.log(math.fsum(math.exp(x - top) for x in logits))
    count = sum(1 for y in own if y)
    return math.fsum((log_total - x) / count for x, y in zip(logits, own, strict=True) if y)


def greedyhash(u, labels, *, classifier, bias=None, power=3):
    """GreedyHash: cross-entropy of a linear classifier, [bits, c], on sign(u); | |u| - 1 |^power; labels as shares."""
    values = []
    for row, own in zip(u, labels, strict=True):
        code = [sign(x) for x in row]
        shifts = [0.0] * len(own) if bias is None else bias
        logits = [dot(code, [line[c] for line in classifier]) + float(shifts[c]) for c in range(len(own))]
        values.append(soft_cross_entropy(logits, own))
    return {"classification": mean(values), "quantization": bit_mean(u, lambda x: abs(abs(x) - 1) ** power)}


def csq_centre(own, centres, ties):
    """The bits' majority vote over the centres of an image's labels; `ties`, [bits] in {-1, +1}, decide an even vote."""
    votes = [sum(float(centre[k]) for centre, y in zip(centres, own, strict=True) if y) for k in range(len(ties))]
    return [sign(vote) if vote != 0 else float(tie) for vote, tie in zip(votes, ties, strict=True)]


def csq(u, labels, *, centres, ties, squared=False):
    """CSQ: cross-entropy of the bits (1 + u) / 2 to the centre's, and log cosh(|u| - 1), or (|u| - 1)^2 (authors' code)."""
    crossed = []
    for row, own in zip(u, labels, strict=True):
        for x, bit in zip(row, csq_centre(own, centres, ties), strict=True):
            crossed.append(-math.log((1 + float(bit) * float(x)) / 2))
    return {
        "centre": mean(crossed),
        "quantization": bit_mean(u, (lambda x: (abs(x) - 1) ** 2) if squared else (lambda x: log_cosh(abs(x) - 1))),
    }


def orthohash(u, labels, *, targets, scale=8.0, margin=0.2):
    """OrthoHash: cross-entropy of scale * (cos(u, target) - margin at each own label); several labels: their shares."""
    values = []
    for row, own in zip(u, labels, strict=True):
        logits = [scale * (cosine(row, target) - margin * bool(y)) for target, y in zip(targets, own, strict=True)]
        values.append(soft_cross_entropy(logits, own))
    return {"classification": mean(values)}


def dpn(u, labels, *, centres, ties, margin=1.0):
    """DPN: [margin - u t]+ with the centre's bits t, and u^2, both as means over images and bits."""
    hinges = []
    for row, own in zip(u, labels, strict=True):
        for x, bit in zip(row, csq_centre(own, centres, ties), strict=True):
            hinges.append(max(0.0, margin - float(x) * float(bit)))
    return {"polarization": mean(hinges), "square": bit_mean(u, lambda x: x * x)}


def hyp2(u, labels, *, proxies, distance):
    """HyP2: 1 - cos to own proxies; [cos - z]+ to others, and of unlike images of several labels; z = 1 - 2 distance / K."""
    z = 1 - 2 * distance / len(u[0])
    own, others, pairs = [], [], []
    for row, labels_of in zip(u, labels, strict=True):
        for proxy, y in zip(proxies, labels_of, strict=True):
            if y:
                own.append(1 - cosine(row, proxy))
            else:
                others.append(max(0.0, cosine(row, proxy) - z))
    for i, j in batch_pairs(len(u)):
        if sum(labels[i]) > 1 and sum(labels[j]) > 1 and not share_a_label(labels[i], labels[j]):
            pairs.append(max(0.0, cosine(u[i], u[j]) - z))
    return {name: mean(values) if values else 0.0 for name, values in (("own", own), ("others", others), ("pairs", pairs))}


def halves(u):
    """Bi-half's bits: in each column, the floor(m / 2) greatest of m numbers get +1, the others -1; no two are equal."""
    codes = [[-1.0] * len(u[0]) for _ in u]
    for k in range(len(u[0])):
        for i in sorted(range(len(u)), key=lambda i, k=k: float(u[i][k]))[len(u) - len(u) // 2 :]:
            codes[i][k] = 1.0
    return codes


def bihalf(u, labels, *, classifier, bias):
    """Bi-half: cross-entropy of a linear classifier, [bits, c], on the halves' bits b; half of the mean of (u - b)^2."""
    values, codes = [], halves(u)
    for code, own in zip(codes, labels, strict=True):
        logits = [dot(code, [line[c] for line in classifier]) + float(bias[c]) for c in range(len(own))]
        values.append(soft_cross_entropy(logits, own))
    return {"classification": mean(values), "quantization": squared_errors(u, codes) / 2}


def dhd(u, labels, *, second, proxies, temperature, deviation):
    """DHD: softmax of cos(u, proxy) / temperature; 1 - cos(second, u); cross-entropies of two Gaussians to the bits."""
    values, distances, crossed = [], [], []
    for row, other, own in zip(u, second, labels, strict=True):
        values.append(soft_cross_entropy([cosine(row, proxy) / temperature for proxy in proxies], own))
        distances.append(1 - cosine(other, row))
        for x in row:
            for center in (1.0, -1.0):
                height = math.exp(-((float(x) - center) ** 2) / (2 * deviation**2))
                crossed.append(-math.log(height if sign(x) == center else 1 - height))
    return {"classification": mean(values), "distillation": mean(distances), "quantization": 2 * mean(crossed)}


def psldh_classes(h, *, alpha, beta):
    """PSLDH's loss of relaxed class codes h: products above 0 of two classes, and above K of one; balance; quantization."""
    classes, bits = len(h), len(h[0])
    pairs = [max(dot(h[a], h[b]) - bits * (a == b), 0.0) ** 2 for a in range(classes) for b in range(classes)]
    balance = sum(math.fsum(float(row[k]) for row in h) ** 2 for k in range(bits)) / classes
    quantization = sum((sign(x) - float(x)) ** 2 for row in h for x in row) / classes
    return mean(pairs) + alpha * balance + beta * quantization


def psldh(u, labels, *, targets, gamma, sigma):
    """PSLDH: for each own label, its class against the classes that the image lacks; |sgn(u) - u|^2, a sum over bits."""
    bits, values, errors = len(u[0]), [], []
    for row, own in zip(u, labels, strict=True):
        others = [math.exp(gamma * dot(row, target)) for target, y in zip(targets, own, strict=True) if not y]
        of_labels = []
        for target, y in zip(targets, own, strict=True):
            if y:
                e = math.exp(gamma * (dot(row, target) - sigma * bits))
                of_labels.append(-math.log(e / (e + math.fsum(others))))
        values.append(mean(of_labels) if of_labels else 0.0)
        errors.append(math.fsum((sign(x) - float(x)) ** 2 for x in row))
    return {"partial_softmax": mean(values), "quantization": mean(errors)}
