"""The mathematics as pure functions of tensors, importable without a Trainer."""
