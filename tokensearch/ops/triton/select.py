"""Kernels, in Triton's language, that choose which tokens stay and which belong together.

Letters are those of `ops.tokens`; a name in capitals that is not a letter of shape is a pointer, or
is fixed when a kernel is compiled. A program is what runs on one multiprocessor of a GPU at a time.
All sums run in an order that shapes and strides fix, in float32: two passes agree bit by bit.
"""

import triton
import triton.language as tl

# Whether a count can be divided by 16 is nothing to compile a kernel again for: counts change from
# block to block.
COUNTS = [
    "N",
    "T",
    "K",
    "A",
    "B",
    "R",
    "keep",
    "top_length",
    "first",
    "first_a",
    "first_b",
    "prefix",
]


@triton.jit(do_not_specialize=COUNTS)
def split_by_rank(
    SCORE, TOP, REST, PARTNER, TOP_PARTNER, N, keep, top_length, first,
    TOP_BY_RANK: tl.constexpr, REST_BY_RANK: tl.constexpr, HAS_PARTNER: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per image: count how many are ahead of each token, and write its index.

    SCORE        (B, N)
    TOP          (B, top_length)  `first` numbers from 0 up, then the `keep` best plus `first`
    REST         (B, N - keep)    the others plus `first`
    PARTNER      (B, N), and TOP_PARTNER (B, keep): the partners of the best
    """
    image = tl.program_id(0).to(tl.int64)
    SCORE += image * N
    TOP += image * top_length
    REST += image * (N - keep)
    for index in range(top_length - keep):
        tl.store(TOP + index, index)
    TOP += top_length - keep
    tops_before = 0
    for start in range(0, N, BLOCK):
        i = start + tl.arange(0, BLOCK)
        score = tl.load(SCORE + i, mask=i < N, other=0.0).to(tl.float32)
        nan = (score != score).to(tl.int32)
        rank = tl.zeros([BLOCK], tl.int32)
        # One at a time, against all rows: threads need no word of each other, which costs more.
        for j in tl.range(0, N, loop_unroll_factor=8):
            other = tl.load(SCORE + j).to(tl.float32)
            other_nan = (other != other).to(tl.int32)  # the greatest, as PyTorch sorts
            equal = (other == score) | (other_nan + nan == 2)
            ahead = (other > score) | (other_nan > nan) | (equal & (j < i))
            rank += ahead.to(tl.int32)
        is_top, is_rest = (i < N) & (rank < keep), (i < N) & (rank >= keep)
        top_so_far = tops_before + tl.cumsum(is_top.to(tl.int32), 0)  # this one included
        top_row = rank if TOP_BY_RANK else top_so_far - 1
        rest_row = rank - keep if REST_BY_RANK else i - top_so_far
        value = (i + first).to(tl.int64)
        tl.store(TOP + top_row, value, mask=is_top)
        tl.store(REST + rest_row, value, mask=is_rest)
        if HAS_PARTNER:
            partner = tl.load(PARTNER + image * N + i, mask=is_top, other=0)
            tl.store(TOP_PARTNER + image * keep + top_row, partner.to(tl.int64), mask=is_top)
        tops_before += tl.sum(is_top.to(tl.int32), 0)


@triton.jit(do_not_specialize=COUNTS)
def attention_logits(
    QUERY, KEYS, BIAS, LOGITS, T, H, D, scale,
    query_image, query_head, key_image, key_head, key_token, bias_image,
    HAS_BIAS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per image and BLOCK keys: logits of one query.

    QUERY (B, H, 1, D), KEYS (B, H, T, D), BIAS (B, 1, 1, T) -> LOGITS (B, T, HEADS)
    HEADS, WIDTH: H and D, rounded up to powers of 2
    """
    image = tl.program_id(0).to(tl.int64)
    h, d = tl.arange(0, HEADS), tl.arange(0, WIDTH)
    inside = (h < H)[:, None] & (d < D)[None, :]
    at_query = QUERY + image * query_image + h[:, None] * query_head + d[None, :]
    query = tl.load(at_query, mask=inside, other=0.0).to(tl.float32) * scale
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at_keys = KEYS + image * key_image + j[:, None, None] * key_token
    at_keys += h[None, :, None] * key_head + d[None, None, :]
    held = (j < T)[:, None, None] & inside[None, :, :]
    keys = tl.load(at_keys, mask=held, other=0.0).to(tl.float32)
    logits = tl.sum(keys * query[None, :, :], 2)
    if HAS_BIAS:
        bias = tl.load(BIAS + image * bias_image + j, mask=j < T, other=0.0).to(tl.float32)
        logits += bias[:, None]
    at = LOGITS + (image * T + j)[:, None] * HEADS + h[None, :]
    tl.store(at, logits, mask=(j < T)[:, None])


@triton.jit(do_not_specialize=COUNTS)
def average_softmax(
    LOGITS, SCORE, T, H, prefix, HEADS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program per image: softmax along the keys, averaged over heads, prefix left out.

    LOGITS (B, T, HEADS) -> SCORE (B, N)
    """
    image = tl.program_id(0).to(tl.int64)
    h, block = tl.arange(0, HEADS), tl.arange(0, BLOCK)
    LOGITS += image * T * HEADS
    SCORE += image * (T - prefix) - prefix
    most = tl.full([HEADS], float("-inf"), tl.float32)
    whole = tl.zeros([HEADS], tl.float32)
    for start in range(0, T, BLOCK):
        j = start + block
        at = LOGITS + j[:, None] * HEADS + h[None, :]
        logits = tl.load(at, mask=(j < T)[:, None], other=float("-inf"))
        now_most = tl.maximum(most, tl.max(logits, 0))
        shift = tl.where(now_most == float("-inf"), 0.0, now_most)  # keys of no size so far
        whole = whole * tl.exp(most - shift) + tl.sum(tl.exp(logits - shift[None, :]), 0)
        most = now_most
    for start in range(0, T, BLOCK):
        j = start + block
        at = LOGITS + j[:, None] * HEADS + h[None, :]
        logits = tl.load(at, mask=(j < T)[:, None], other=float("-inf"))
        row = tl.exp(logits - most[None, :]) / whole[None, :]
        score = tl.sum(tl.where((h < H)[None, :], row, 0.0), 1) / H
        tl.store(SCORE + j, score, mask=(j < T) & (j >= prefix))


@triton.jit
def _directions(
    KEYS, rows, H, D, key_head, key_token, inside, floor,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Keys summed over heads, of length 1: rows (R,) -> (R, WIDTH)."""
    d = tl.arange(0, WIDTH)
    held = inside[:, None] & (d < D)[None, :]
    at = KEYS + rows[:, None] * key_token + d[None, :]
    metric = tl.load(at, mask=held, other=0.0).to(tl.float32)
    for head in range(1, H):
        metric += tl.load(at + head * key_head, mask=held, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(metric * metric, 1))
    return metric / tl.where(length < floor, floor, length)[:, None]  # a NaN stays one


@triton.jit(do_not_specialize=COUNTS)
def match_nearest(
    KEYS, BEST, PARTNER, A, B, first_a, first_b, H, D, key_image, key_head, key_token, floor,
    PRECISION: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per image and ROWS tokens of set A: the most similar token of set B.

    KEYS (B, H, T, D) -> BEST (B, A) its cosine, PARTNER (B, A) its row in B; of equals the earlier
    """
    image = tl.program_id(0).to(tl.int64)
    KEYS += image * key_image
    a = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    mine = _directions(KEYS, first_a + 2 * a, H, D, key_head, key_token, a < A, floor, WIDTH)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    partner = tl.zeros([ROWS], tl.int32)
    for start in range(0, B, BLOCK):
        b = start + tl.arange(0, BLOCK)
        others = _directions(KEYS, first_b + 2 * b, H, D, key_head, key_token, b < B, floor, WIDTH)
        cosine = tl.dot(mine, tl.trans(others), input_precision=PRECISION)
        cosine = tl.where(cosine != cosine, float("inf"), cosine)  # NaN is the greatest
        cosine = tl.where((b < B)[None, :], cosine, float("-inf"))
        top = tl.max(cosine, 1)
        first = tl.min(tl.where(cosine == top[:, None], b[None, :], B), 1)
        better = top > best
        best = tl.where(better, top, best)
        partner = tl.where(better, first, partner)
    tl.store(BEST + image * A + a, best, mask=a < A)
    tl.store(PARTNER + image * A + a, partner, mask=a < A)


@triton.jit(do_not_specialize=COUNTS)
def match_ranked(
    X, KEPT, GONE, BEST, PARTNER, K, R, C, prefix, x_image, x_token, floor,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program per image and ROWS discarded tokens: the survivor that each resembles most.

    X (B, T, C), KEPT (B, P + K), GONE (B, R) -> BEST (B, R) the cosine of their features, PARTNER
    (B, R) the row in KEPT; of equals the earlier
    """
    image = tl.program_id(0).to(tl.int64)
    X += image * x_image
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    mine = X + tl.load(GONE + image * R + r, mask=r < R, other=0)[:, None] * x_token
    best = tl.full([ROWS], float("-inf"), tl.float32)
    partner = tl.zeros([ROWS], tl.int32)
    for start in range(prefix, prefix + K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = k < prefix + K
        at = KEPT + image * (prefix + K) + k
        others = X + tl.load(at, mask=inside, other=0)[:, None] * x_token
        product = tl.zeros([ROWS, BLOCK], tl.float32)
        square, other_square = tl.zeros([ROWS], tl.float32), tl.zeros([BLOCK], tl.float32)
        for first in range(0, C, COLUMNS):
            c = first + tl.arange(0, COLUMNS)
            held = (r < R)[:, None] & (c < C)[None, :]
            x = tl.load(mine + c[None, :], mask=held, other=0.0)
            held = inside[:, None] & (c < C)[None, :]
            other = tl.load(others + c[None, :], mask=held, other=0.0)
            product = tl.dot(x, tl.trans(other), product, input_precision=PRECISION)
            x, other = x.to(tl.float32), other.to(tl.float32)
            square += tl.sum(x * x, 1)
            other_square += tl.sum(other * other, 1)
        length, other_length = tl.sqrt(square), tl.sqrt(other_square)
        length = tl.where(length < floor, floor, length)
        other_length = tl.where(other_length < floor, floor, other_length)
        cosine = product / length[:, None] / other_length[None, :]
        cosine = tl.where(cosine != cosine, float("inf"), cosine)  # NaN is the greatest
        cosine = tl.where(inside[None, :], cosine, float("-inf"))
        top = tl.max(cosine, 1)
        earliest = tl.min(tl.where(cosine == top[:, None], k[None, :], prefix + K), 1)
        better = top > best
        best = tl.where(better, top, best)
        partner = tl.where(better, earliest, partner)
    tl.store(BEST + image * R + r, best, mask=r < R)
    tl.store(PARTNER + image * R + r, partner, mask=r < R)
