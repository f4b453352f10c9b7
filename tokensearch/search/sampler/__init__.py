"""Who proposes: our local sampler, its surrogate, and the Optuna study."""
