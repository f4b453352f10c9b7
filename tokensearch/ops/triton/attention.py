"""Attention with a bias for each key, in Triton's language.

Letters are those of `ops.tokens`; a name in capitals that is not a letter of shape is a pointer, or
is fixed when a kernel is compiled. A program is what runs on one multiprocessor of a GPU at a time.
All sums run in an order that shapes and strides fix, in float32: two passes agree bit by bit.
"""

import triton
import triton.language as tl

# Whether a count can be divided by 16 is nothing to compile a kernel again for: counts change from
# block to block.
COUNTS = ["queries", "T", "bias_image"]


@triton.jit(do_not_specialize=COUNTS)
def biased_attention(
    Q, K, V, BIAS, OUT, queries, T, H, D, scale,
    q_image, q_head, q_token, k_image, k_head, k_token, v_image, v_head, v_token, bias_image,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per image, head and ROWS queries: attention with a bias for each key.

    Q (B, H, queries, D), K and V (B, H, T, D), BIAS (B, 1, 1, T) -> OUT (B, queries, H, D)
    The softmax runs along the keys block by block, as in FlashAttention (arXiv:2205.14135), in
    powers of 2.
    """
    image = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    i, d = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    held = (i < queries)[:, None] & (d < D)[None, :]
    at = Q + image * q_image + head * q_head + i[:, None] * q_token + d[None, :]
    q = tl.load(at, mask=held, other=0.0)
    K += image * k_image + head * k_head
    V += image * v_image + head * v_head
    to_base_2: tl.constexpr = 1.4426950408889634
    most = tl.full([ROWS], float("-inf"), tl.float32)
    whole = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, T, BLOCK):
        j = start + tl.arange(0, BLOCK)
        here = (j < T)[:, None] & (d < D)[None, :]
        keys = tl.load(K + j[:, None] * k_token + d[None, :], mask=here, other=0.0)
        bias = tl.load(BIAS + image * bias_image + j, mask=j < T, other=float("-inf"))
        logits = tl.dot(q, tl.trans(keys)) * (scale * to_base_2)
        logits += (bias.to(tl.float32) * to_base_2)[None, :]
        now_most = tl.maximum(most, tl.max(logits, 1))
        shift = tl.where(now_most == float("-inf"), 0.0, now_most)  # keys of no size so far
        share = tl.exp2(logits - shift[:, None])
        shrink = tl.exp2(most - shift)
        values = tl.load(V + j[:, None] * v_token + d[None, :], mask=here, other=0.0)
        whole = whole * shrink + tl.sum(share, 1)
        out = tl.dot(share.to(values.dtype), values, out * shrink[:, None])
        most = now_most
    at = OUT + ((image * queries + i) * H + head)[:, None] * D + d[None, :]
    tl.store(at, out / whole[:, None], mask=held)
