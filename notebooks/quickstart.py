# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Condense the handwritten digits
#
# One synthetic image per class, learned by gradient matching (Zhao et al., ICLR 2021) on scikit-learn's digits.
# Install with `pip install -e .[notebooks]` from the repository's root. This notebook is built from `quickstart.py`
# by `python scripts/build_notebook.py`.

# %%
import tempfile
from functools import partial

import matplotlib.pyplot as plt
from lightning.pytorch import Trainer

from lit_condense import SyntheticSet, load_condensed
from lit_condense.callbacks import FinalReport
from lit_condense.data import Digits
from lit_condense.evaluation import Evaluation
from lit_condense.export import image_pages
from lit_condense.matching import GradientMatching
from lit_condense.networks import ConvNet

# %% [markdown]
# ## Condense
#
# What is matched is a callback; everything else is an argument of the synthetic set. `FinalReport` evaluates at the
# end: fresh networks trained on the condensed images, on random real images, and (one network) on all real images.

# %%
folder = tempfile.mkdtemp()
synthetic = SyntheticSet(
    ipc=1,
    network=partial(ConvNet, width=16, depth=2),
    evaluation=Evaluation(protocol="dc", repeats=5, full_data_steps=300),
    seed=0,
)
trainer = Trainer(
    max_steps=100,
    num_sanity_val_steps=0,
    enable_model_summary=False,
    enable_progress_bar=False,
    enable_checkpointing=False,
    logger=False,
    callbacks=[GradientMatching(), FinalReport(folder)],
)
trainer.fit(synthetic, datamodule=Digits())

# %% [markdown]
# ## Reload and look

# %%
images, labels, card = load_condensed(folder)
plt.imshow(image_pages(images, labels)[0].permute(1, 2, 0))
plt.axis("off")
plt.title("one condensed image per class")
plt.show()

# %%
condensed, random = card["evaluation"]["condensed"][0], card["evaluation"]["baselines"]["random"]
gain = condensed["accuracy_mean"] - random["accuracy_mean"]
print(f"{len(labels)} images: {100 * gain:.1f} points above as many random real images")
