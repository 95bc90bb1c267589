"""What the configs are made of as text: classes by name, data sets, and YAML with a line for each setting."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

CLASSES = {
    "digits": "Digits",
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
ANY = "any"
"""In place of a data set: a method's base file."""
Node = dict[str, Any]


def of(name: str, **settings: Any) -> Any:
    """Return a class as configs name it: by its name alone, or with settings."""
    return {"class_path": name, "init_args": settings} if settings else name


def images(lr: float) -> Any:
    return of("torch.optim.SGD", lr=lr, momentum=0.5)


def where(dataset: str, whitened: bool) -> str:
    """Return the data of a config in words, with what the command line has to say of them."""
    if dataset == "tinyimagenet":
        family = "zca" if whitened else "dc"
        said = f"--data ImageFolder --data.root FOLDER --data.name tiny_imagenet --data.normalization {family}"
        return f"Tiny-ImageNet ({said})"
    return CLASSES.get(dataset, "any data (--data, or a second --config)")


CLASSLESS = ("tinyimagenet", ANY)
"""What is given on the command line."""


def comment(*lines: str) -> str:
    return "".join(
        textwrap.fill(line, 118, initial_indent="# ", subsequent_indent="# ") + "\n" for line in lines if line
    )


def text(header: str, config: Node) -> str:
    """Return a config as YAML: a line for each setting of trainer and model."""
    lines = []
    for key, value in config.items():
        if key == "data" or not isinstance(value, dict):
            lines.append(f"{key}: {flow(value)}")
            continue
        inner = value if key != "model" else value["init_args"]
        lines += [f"{key}:"] if key != "model" else [f"{key}:", f"  class_path: {value['class_path']}", "  init_args:"]
        indent = "    " if key == "model" else "  "
        for name, setting in inner.items():
            lines += _setting(indent, name, setting)
    return header + "\n".join(lines) + "\n"


def _setting(indent: str, name: str, setting: Any) -> list[str]:
    line = f"{indent}{name}: {flow(setting)}"
    if len(line) <= 118:
        return [line]
    if isinstance(setting, list):
        return [f"{indent}{name}:", *(line for one in setting for line in _listed(f"{indent}  - ", one))]
    return [f"{indent}{name}:", *(f"{indent}  {key}: {flow(one)}" for key, one in setting.items())]


def _listed(indent: str, one: Any) -> list[str]:
    """Return a class of a list: in one line where that is short enough, else its settings in lines of their own."""
    line = f"{indent}{flow(one)}"
    if len(line) <= 118:
        return [line]
    deeper = " " * len(indent)
    glued = f"init_args: {flow(one['init_args'])}".replace(": ", ":\0")  # a setting and its value stay in one line
    wrapped = textwrap.wrap(glued, 118, initial_indent=deeper, subsequent_indent=f"{deeper}  ")
    settings = [line.replace("\0", " ") for line in wrapped]
    return [f"{indent}class_path: {one['class_path']}", *settings]


def flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("\n...\n").strip()
