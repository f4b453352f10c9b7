"""Kernels, in Triton's language, that make new tokens of old ones.

Letters are those of `ops.tokens`; a name in capitals that is not a letter of shape is a pointer, or
is fixed when a kernel is compiled. A program is what runs on one multiprocessor of a GPU at a time.
All sums run in an order that shapes and strides fix, in float32: two passes agree bit by bit.
"""

import triton
import triton.language as tl

# Whether a count can be divided by 16 is nothing to compile a kernel again for: counts change from
# block to block.
COUNTS = ["T", "K", "A", "R", "first_a", "first_b", "length", "prefix"]


@triton.jit(do_not_specialize=COUNTS)
def gather_rows(
    X, SIZE, INDEX, OUT, OUT_SIZE, OUT_LOG, T, K, C, length, x_image, x_token,
    HAS_SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program per image and ROWS rows: whole rows of X, SIZE and its logarithm at INDEX.

    X (B, T, C), SIZE (B, T, 1), INDEX (B, K)
    ->  the first K rows of OUT (B, length, C), OUT_SIZE and OUT_LOG (B, length, 1)
    """
    image = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    index = tl.load(INDEX + image * K + k, mask=k < K, other=0)
    for start in range(0, C, COLUMNS):
        c = start + tl.arange(0, COLUMNS)
        inside = (k < K)[:, None] & (c < C)[None, :]
        rows = tl.load(X + image * x_image + index[:, None] * x_token + c[None, :], mask=inside)
        tl.store(OUT + (image * length + k)[:, None] * C + c[None, :], rows, mask=inside)
    if HAS_SIZE:
        size = tl.load(SIZE + image * T + index, mask=k < K, other=1.0)
        tl.store(OUT_SIZE + image * length + k, size, mask=k < K)
        tl.store(OUT_LOG + image * length + k, tl.log(size.to(tl.float32)), mask=k < K)


@triton.jit(do_not_specialize=COUNTS)
def sum_rows(
    X, SIZE, INDEX, WEIGHT, OUT, OUT_SIZE, OUT_LOG, T, R, C, prefix, length, x_image, x_token,
    HAS_SIZE: tl.constexpr, HAS_WEIGHT: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program per image and COLUMNS features: one token of the rows of X at INDEX.

    X (B, T, C), SIZE (B, T, 1), INDEX (B, R); WEIGHT (B, N): the sum weighted by it, else the mean
    ->  the last row of OUT (B, length, C), OUT_SIZE and OUT_LOG (B, length, 1)
    """
    image = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    whole = tl.zeros([1], tl.float32)
    for start in range(0, R, CHUNK):
        r = start + tl.arange(0, CHUNK)
        index = tl.load(INDEX + image * R + r, mask=r < R, other=0)
        weight = tl.where(r < R, 1.0, 0.0)
        if HAS_WEIGHT:
            at = WEIGHT + image * (T - prefix) + index - prefix
            weight = tl.load(at, mask=r < R, other=0.0).to(tl.float32)
        elif HAS_SIZE:
            weight = tl.load(SIZE + image * T + index, mask=r < R, other=0.0).to(tl.float32)
        inside = (r < R)[:, None] & (c < C)[None, :]
        at = X + image * x_image + index[:, None] * x_token + c[None, :]
        rows = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(rows * weight[:, None], 0)
        whole += tl.sum(weight, 0)
    row = image * length + length - 1
    if not HAS_WEIGHT:
        total /= tl.maximum(whole, 1e-30)  # of none the sum is 0
    tl.store(OUT + row * C + c, total, mask=c < C)
    if HAS_SIZE:
        if HAS_WEIGHT:
            whole = tl.full([1], 1.0, tl.float32)
        lane = tl.arange(0, 1)
        tl.store(OUT_SIZE + row + lane, whole)
        tl.store(OUT_LOG + row + lane, tl.log(whole))


@triton.jit(do_not_specialize=COUNTS)
def fold_pairs(
    X, SIZE, STAY, LEAVE, PARTNER, OUT, OUT_SIZE, OUT_LOG, T, C, A, R, prefix, first_a, first_b,
    x_image, x_token,
    HAS_SIZE: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program per image, ROWS new tokens and COLUMNS features: prefix, A without R, then B.

    STAY (B, A - R), LEAVE and PARTNER (B, R): rows of a `Matching`
    X (B, T, C), SIZE (B, T, 1) -> OUT (B, T - R, C), OUT_SIZE and OUT_LOG (B, T - R, 1)
    """
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    X += image * x_image
    stays, length = A - R, T - R
    b = row - prefix - stays  # row in B, below 0 for others
    of_a = (row >= prefix) & (b < 0)
    stay = tl.load(STAY + image * stays + row - prefix, mask=of_a, other=0).to(tl.int32)
    source = tl.where(row < prefix, row, tl.where(of_a, first_a + 2 * stay, first_b + 2 * b))
    inside = (row < length)[:, None] & (c < C)[None, :]
    x = tl.load(X + source[:, None] * x_token + c[None, :], mask=inside, other=0.0).to(tl.float32)
    size = tl.full([ROWS], 1.0, tl.float32)
    if HAS_SIZE:
        size = tl.load(SIZE + image * T + source, mask=row < length, other=1.0).to(tl.float32)
    whole = size
    if tl.program_id(1) * ROWS + ROWS > prefix + stays:  # the others are copied
        for start in range(0, R, CHUNK):  # first the sizes: shares before sums
            joins, _ = _joins(SIZE, LEAVE, PARTNER, image, T, R, start, b, first_a, HAS_SIZE, CHUNK)
            whole += tl.sum(joins, 1)
        x *= (size / whole)[:, None]
        for start in range(0, R, CHUNK):
            joins, leaving = _joins(
                SIZE, LEAVE, PARTNER, image, T, R, start, b, first_a, HAS_SIZE, CHUNK
            )
            here = ((start + tl.arange(0, CHUNK)) < R)[:, None] & (c < C)[None, :]
            at = X + leaving[:, None] * x_token + c[None, :]
            moving = tl.load(at, mask=here, other=0.0).to(tl.float32)
            added = tl.dot(joins / whole[:, None], moving, input_precision="ieee")
            x += tl.where((b >= 0)[:, None], added, 0.0)  # rows of A are copies, whatever moves
    tl.store(OUT + (image * length + row)[:, None] * C + c[None, :], x, mask=inside)
    if tl.program_id(2) == 0:
        tl.store(OUT_SIZE + image * length + row, whole, mask=row < length)
        tl.store(OUT_LOG + image * length + row, tl.log(whole), mask=row < length)


@triton.jit
def _joins(
    SIZE, LEAVE, PARTNER, image, T, R, start, b, first_a,
    HAS_SIZE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Sizes of leaving tokens in the rows of their partners, (ROWS, CHUNK), and their own rows."""
    r = start + tl.arange(0, CHUNK)
    leaving = first_a + 2 * tl.load(LEAVE + image * R + r, mask=r < R, other=0).to(tl.int32)
    partner = tl.load(PARTNER + image * R + r, mask=r < R, other=-1).to(tl.int32)
    size = tl.full([CHUNK], 1.0, tl.float32)
    if HAS_SIZE:
        size = tl.load(SIZE + image * T + leaving, mask=r < R, other=0.0).to(tl.float32)
    joins = (b[:, None] >= 0) & (partner[None, :] == b[:, None]) & (r < R)[None, :]
    return tl.where(joins, size[None, :], 0.0), leaving


@triton.jit(do_not_specialize=COUNTS)
def fold_ranked(
    X, SIZE, KEPT, GONE, BEST, PARTNER, OUT, OUT_SIZE, OUT_LOG, T, C, K, R, tiny, x_image, x_token,
    HAS_SIZE: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program per image, ROWS survivors and COLUMNS features: the mean of each and its members.

    KEPT (B, K), prefix and survivors; GONE, BEST and PARTNER (B, R)
    X (B, T, C), SIZE (B, T, 1) -> OUT (B, K, C), OUT_SIZE and OUT_LOG (B, K, 1)
    A member adds its size times its cosine; sizes stay above zero.
    """
    image = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    X += image * x_image
    source = tl.load(KEPT + image * K + k, mask=k < K, other=0)
    inside = (k < K)[:, None] & (c < C)[None, :]
    at = X + source[:, None] * x_token + c[None, :]
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    size, count = tl.full([ROWS], 1.0, tl.float32), tl.full([ROWS], 1.0, tl.float32)
    if HAS_SIZE:
        size = tl.load(SIZE + image * T + source, mask=k < K, other=1.0).to(tl.float32)
    for start in range(0, R, CHUNK):  # first the counts: shares before sums
        r = start + tl.arange(0, CHUNK)
        partner = tl.load(PARTNER + image * R + r, mask=r < R, other=-1)
        gone = tl.load(GONE + image * R + r, mask=r < R, other=0)
        adds = tl.load(BEST + image * R + r, mask=r < R, other=0.0)
        adds = tl.where(adds == float("inf"), float("nan"), adds)  # what NaN was sorted as
        if HAS_SIZE:
            adds *= tl.load(SIZE + image * T + gone, mask=r < R, other=0.0).to(tl.float32)
        joins = (partner[None, :] == k[:, None]) & (r < R)[None, :]
        count += tl.sum(joins.to(tl.float32), 1)
        size += tl.sum(tl.where(joins, adds[None, :], 0.0), 1)
    x /= count[:, None]
    for start in range(0, R, CHUNK):
        r = start + tl.arange(0, CHUNK)
        partner = tl.load(PARTNER + image * R + r, mask=r < R, other=-1)
        gone = tl.load(GONE + image * R + r, mask=r < R, other=0)
        joins = (partner[None, :] == k[:, None]) & (r < R)[None, :]
        held = (r < R)[:, None] & (c < C)[None, :]
        members = X + gone[:, None] * x_token + c[None, :]
        moving = tl.load(members, mask=held, other=0.0).to(tl.float32)
        share = tl.where(joins, 1.0 / count[:, None], 0.0)
        x += tl.dot(share, moving, input_precision="ieee")
    tl.store(OUT + (image * K + k)[:, None] * C + c[None, :], x, mask=inside)
    if tl.program_id(2) == 0:
        size = tl.where(size < tiny, tiny, size)
        tl.store(OUT_SIZE + image * K + k, size, mask=k < K)
        tl.store(OUT_LOG + image * K + k, tl.log(size), mask=k < K)
