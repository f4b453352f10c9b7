"""What every test shares."""

import torch
from hypothesis import settings

# The tensors of tests are small: a second thread gains nothing, and spins when another process
# wants its core. Commands that tests start as processes of their own are not touched.
torch.set_num_threads(1)
settings.register_profile("tokensearch", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("tokensearch")
