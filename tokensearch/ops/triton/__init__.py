"""The token operators that every pass runs, as fused kernels for NVIDIA GPUs, in Triton.

In: tensors on a GPU. Out: what the plain functions of `tokensearch.ops` return for them. Triton is
imported here alone, and nothing here is imported where there is none.
"""
