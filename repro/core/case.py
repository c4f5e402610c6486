"""Arguments to a case: what MODEL means, which settings there are, and what is wrong with them.

Everything that can be seen without torch is refused here, before anything is started.
"""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from repro.core.errors import UsageError
from repro.core.foreign import check_is_file, dead_link
from repro.core.foreign.kinds import file_is, folder_is
from repro.core.records import Case

MODELS = Path(__file__).parents[1] / "models"
"""Configurations that ship with the package, for ``--weights random:SEED`` without a network."""

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
"""What a folder has that holds an adapter; it names the base model."""
MODULES = "modules.json"
"""What a folder has that holds a sentence encoder: the list of its modules."""
PIPELINE = "model_index.json"
"""What a folder has that holds a pipeline of diffusers."""
READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken", ".py")
"""Suffixes of what is read in a model's folder."""
MAIN = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
        "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
        "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.bin", "diffusion_pytorch_model.bin.index.json")  # fmt: skip
"""Files that a folder of the same name would hide."""

NARROW = ("float16", "bfloat16")
STATE_DICTS = (".safetensors", ".bin", ".pt", ".pth")
"""Suffixes of files that hold a state_dict."""
TENSORS = (".safetensors", ".npz", ".pt", ".pth", ".bin")
"""Suffixes of files of tensors that can be a model's exact inputs."""

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
"""What the Hub takes as the name of a repository: an optional namespace, then letters, digits and ``._-``."""

SHIPPED = {
    "gpt2": ("gpt2", "openai-community/gpt2"),
    "gpt2-medium": ("gpt2-medium", "openai-community/gpt2-medium"),
    "gpt2-large": ("gpt2-large", "openai-community/gpt2-large"),
    "gpt2-xl": ("gpt2-xl", "openai-community/gpt2-xl"),
    "distilgpt2": ("distilgpt2", "distilbert/distilgpt2"),
    "pythia-160m": ("EleutherAI/pythia-160m",),
    "pythia-410m": ("EleutherAI/pythia-410m",),
    "pythia-1b": ("EleutherAI/pythia-1b",),
    "gemma-3-270m": ("google/gemma-3-270m", "google/gemma-3-270m-it"),
    "gemma-3-1b": ("google/gemma-3-1b-pt", "google/gemma-3-1b-it"),
    "gemma-3-4b": ("google/gemma-3-4b-pt", "google/gemma-3-4b-it"),
    "gemma-3-12b": ("google/gemma-3-12b-pt", "google/gemma-3-12b-it"),
    "gemma-3-27b": ("google/gemma-3-27b-pt", "google/gemma-3-27b-it"),
}
"""Name of a shipped configuration -> the Hub ids it serves; the first one is what the bare name stands for."""


def case_from(
    model: str,
    *,
    weights: str = "checkpoint",
    device: str | None = None,
    dtype: str | None = None,
    attn: str | None = None,
    prompts: tuple[str, ...] = (),
    trust_remote_code: bool = False,
    factory: str | None = None,
    generate: int | None = None,
    train_step: int | None = None,
    accumulate: int | None = None,
    keep_float32: str | None = None,
    keep_bfloat16: str | None = None,
    image: str | None = None,
    audio: str | None = None,
    inputs: str | None = None,
) -> Case:
    """The case that the arguments name. ``model`` is empty where a factory gives it without weights of its own.

    Raises:
        UsageError: the model, its factory, the weights or a file of inputs cannot be what they are said to be.
    """
    if generate is not None and train_step is not None:
        raise UsageError("--generate and --train-step ask two questions. Give one of them.")
    if accumulate is not None and train_step is None:
        raise UsageError("--accumulate splits the batch of a step of a training: add --train-step.")
    if keep_float32 is not None and dtype not in NARROW:
        raise UsageError(
            "--keep-float32 asks what must not be in the dtype of the rest: add --dtype float16 or bfloat16."
        )
    if keep_bfloat16 is not None and dtype != "float16":
        raise UsageError("--keep-bfloat16 asks what must not be in the dtype of the rest: add --dtype float16.")
    seeded = _seeded(weights)
    if inputs is not None:
        _refuse_beside_inputs({"--prompt": prompts, "--image": image, "--audio": audio})
    if factory is not None:
        if seeded:
            raise UsageError(f"--weights {weights} is of a configuration; --factory gives a module with its weights.")
        function = _factory(factory)
        return Case(
            model=_weights_for(model) if model else function,
            weights=weights if model else "factory",
            device=device,
            dtype=dtype,
            attn=attn,
            prompts=prompts,
            trust_remote_code=trust_remote_code,
            factory=function,
            generate=generate,
            train_step=train_step,
            accumulate=accumulate,
            keep_float32=keep_float32,
            keep_bfloat16=keep_bfloat16,
            image=_given("--image", image),
            audio=_given("--audio", audio),
            inputs=_given("--inputs", inputs, TENSORS),
        )
    place = _place(model)
    if place is not None:
        name, revision = str(place), None
    else:
        name, revision = _hub(model)
    config = _shipped(name) if seeded and place is None else None
    if place is not None and place.suffix == ".py" and place.is_file():
        _refuse_settings(model, {"--weights": seeded, "--device": device, "--dtype": dtype, "--attn": attn})
        _refuse_settings(model, {"--prompt": prompts, "--trust-remote-code": trust_remote_code})
        _refuse_settings(model, {"--generate": generate is not None, "--train-step": train_step is not None})
        _refuse_settings(model, {"--keep-float32": keep_float32, "--keep-bfloat16": keep_bfloat16})
        _refuse_settings(model, {"--image": image, "--audio": audio, "--inputs": inputs})
    if seeded and place is not None and place.is_file():
        raise UsageError(f"--weights {weights} needs a configuration: give a folder or a Hub id, not {model}.")
    return Case(
        model=name,
        revision=revision,
        weights=weights,
        config=None if config is None else str(config),
        device=device,
        dtype=dtype,
        attn=attn,
        prompts=prompts,
        trust_remote_code=trust_remote_code,
        generate=generate,
        train_step=train_step,
        accumulate=accumulate,
        keep_float32=keep_float32,
        keep_bfloat16=keep_bfloat16,
        image=_given("--image", image),
        audio=_given("--audio", audio),
        inputs=_given("--inputs", inputs, TENSORS),
    )


FACTORY = "--factory takes FILE.py:function or package.module:function"


def _factory(text: str) -> str:
    """The factory, its file by its absolute path.

    Raises:
        UsageError: it has no such form, or the file is not there.
    """
    place, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier() or not place:
        raise UsageError(f"{FACTORY}, not {text!r}.")
    if not place.endswith(".py"):
        if not all(part.isidentifier() for part in place.split(".")):
            raise UsageError(f"{FACTORY}, and {place!r} is neither a .py file nor the name of a module.")
        return text
    path = Path(place).expanduser()
    if not path.exists():
        raise UsageError(f"the factory's file {place!r} does not exist (looked for {path.absolute()}).")
    check_is_file(path)
    return f"{path.absolute()}:{function}"


def _weights_for(model: str) -> str:
    """The absolute path of the weights that are loaded into a factory's module.

    Raises:
        UsageError: it is no file of tensors and no folder.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        _refuse_odd_files(path)
        return str(path.absolute())
    if not path.exists():
        raise UsageError(f"{model!r} does not exist (looked for {path.absolute()}): the weights for --factory.")
    if path.suffix not in STATE_DICTS:
        raise UsageError(f"{model!r} is no file of weights: with --factory, give {', '.join(STATE_DICTS)} or a folder.")
    check_is_file(path)
    return str(path.absolute())


def _refuse_beside_inputs(settings: Mapping[str, object]) -> None:
    """Exact inputs are all that the model is given."""
    beside = [option for option, value in settings.items() if value]
    if beside:
        raise UsageError(f"--inputs gives exact inputs, so {beside[0]} would not be used. Give one of them.")


def _given(option: str, name: str | None, suffixes: tuple[str, ...] = ()) -> str | None:
    """The absolute path of a file that the model is given.

    Raises:
        UsageError: there is no such file, or it is of a kind that is not read.
    """
    if name is None:
        return None
    path = Path(name).expanduser()
    try:
        if not path.exists():
            gone = f"{option} {name}: there is no such file (looked for {path.absolute()})."
            raise UsageError(f"{link}." if (link := dead_link(path)) else gone)
        check_is_file(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{option} {name!r} cannot be read: {why}.") from None
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {name}: expected a file of tensors ({' '.join(suffixes)}), by names of arguments.")
    return str(path.absolute())


def _refuse_settings(model: str, settings: Mapping[str, object]) -> None:
    """A script sets everything by itself."""
    given = [option for option, value in settings.items() if value]
    if given:
        raise UsageError(f"{model} is a script, which takes no {given[0]}: what it runs stands in the script itself.")


def _seeded(weights: str) -> bool:
    """Whether the weights are random; refuses anything but ``checkpoint`` and ``random:SEED``."""
    if weights == "checkpoint":
        return False
    if re.fullmatch(r"random:[0-9]{1,9}", weights):
        return True
    raise UsageError(f"--weights {weights!r}: expected 'checkpoint' or 'random:SEED', such as random:0.")


def _place(model: str) -> Path | None:
    """The absolute path of a folder or .gguf file that holds a model, or of a script; None where MODEL is a Hub id."""
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return _folder(model, path)
        if path.exists():
            return _file(model, path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{model!r} cannot be read: {why}.") from None
    bare = model.rpartition("@")[0]
    if bare and _holds_model(Path(bare).expanduser()):
        raise UsageError(
            f"{model!r}: {bare} is here on this machine, and a revision only means something for a Hub id. "
            f"Give {bare} alone, or, for the Hub's model of that name, run this from another folder."
        )
    if link := dead_link(path):
        raise UsageError(f"{link}. {_FORMS}")
    if _looks_like_path(model.partition("@")[0]):
        raise UsageError(f"{model!r} does not exist (looked for {path.absolute()}). {_FORMS}")
    return None


_FORMS = (
    "MODEL is a Hub id such as gpt2-medium or google/gemma-3-270m@REVISION, a folder, a .gguf file, or a script (.py)."
)


def _holds_model(path: Path) -> bool:
    """Whether it is a model's folder, or a file that can be given as MODEL."""
    try:
        return (path / CONFIG).exists() if path.is_dir() else path.suffix in (".gguf", ".py") and path.is_file()
    except (OSError, ValueError):  # no path can be such
        return False


def _looks_like_path(model: str) -> bool:
    return (
        model.startswith((".", "/", "~"))
        or "\\" in model
        or model.count("/") > 1
        or model.endswith(("/", ".gguf", ".py", ".safetensors", ".bin", ".pt", ".pth", ".onnx"))
    )


def _folder(model: str, path: Path) -> Path:
    if any((path / name).exists() for name in (CONFIG, ADAPTER, MODULES, PIPELINE)):
        _refuse_odd_files(path)
        return path.absolute()
    names = sorted(item.name for item in path.iterdir())
    if not names:
        raise UsageError(f"the folder {model!r} is empty: it needs a config.json and the weights.")
    if link := dead_link(path / CONFIG):
        raise UsageError(f"{link}. Copy the files themselves.")
    found = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    ggufs = [name for name in names if name.endswith(".gguf")]
    what = folder_is(path, names)
    if ggufs:
        hint = f" Did you mean {path / ggufs[0]}?"
    elif what is not None:
        hint = f" {what[:1].upper()}{what[1:]}"
    else:
        hint = " Give the folder that save_pretrained() wrote."
    raise UsageError(f"the folder {model!r} holds no {CONFIG} (found: {found}).{hint}")


def _refuse_odd_files(folder: Path) -> None:
    """Refuse what would be read of a model's folder and is no file: reading it might never end.

    Raises:
        NotAFile: naming it.
    """
    for item in sorted(folder.iterdir()):
        if item.suffix in READ:
            with contextlib.suppress(FileNotFoundError):  # a link to nothing: the kit finds that out
                if item.name in MAIN or not item.is_dir():  # any other folder is left alone, whatever its name
                    check_is_file(item)


def _file(model: str, path: Path) -> Path:
    if path.suffix not in (".gguf", ".py"):
        what = file_is(path.name) or "give the folder that holds config.json and the weights."
        raise UsageError(
            f"{model!r} is a file, and only .gguf files are models by themselves (a .py file is run as a script). "
            f"{what[:1].upper()}{what[1:]}"
        )
    check_is_file(path)
    return path.absolute()


def _hub(model: str) -> tuple[str, str | None]:
    """Hub id and revision of ``ID@REVISION``; a bare name of a shipped configuration stands for its Hub id."""
    name, at, revision = model.partition("@")
    if at and not revision:
        raise UsageError(f"{model!r} ends in '@': a revision (branch, tag or commit) belongs behind it.")
    if not HUB_ID.fullmatch(name):
        raise UsageError(f"{model!r} is no Hub id, and no folder or file of that name exists. {_FORMS}")
    return (SHIPPED[name][0] if name in SHIPPED else name), revision or None


def _shipped(hub_id: str) -> Path | None:
    """The configuration that ships for a Hub id, or None."""
    for name, ids in SHIPPED.items():
        if hub_id in ids:
            return MODELS / f"{name}.json"
    return None
