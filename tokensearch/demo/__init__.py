"""The bundled model: a small Vision Transformer that counts digits, and how it was trained."""

from tokensearch.demo.model import demo_model

__all__ = ["demo_model"]
