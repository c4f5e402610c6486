"""A picture or a sound from a file, as the model's own processor makes inputs of it."""

import importlib
import os
import sys
import wave
from dataclasses import replace
from typing import Any, Optional

import torch
from torch import Tensor

from ...checkpoint.opening import check_is_file, open_foreign
from ...checkpoint.resolve import first_line
from ...protocol.failures import in_words
from ..compat import CannotLoad, quiet
from ..inputs import DEFAULT_PROMPT, SEED, Inputs, veiled, with_decoder
from ..load import Loaded
from .exact import check_names, inputs_of
from .facts import IDS, Facts

PICTURE, SOUND = "image", "audio"
PROCESSOR = "processor"
SOUNDS = ("input_features", "input_values")
CONFIGS = ("processor_config.json", "preprocessor_config.json")


def processed_inputs(
    loaded: Loaded,
    image: Optional[str],
    audio: Optional[str],
    prompts: list[str],
    trust_remote_code: bool,
    withheld: bool,
) -> list[Inputs]:
    """One Inputs for each prompt, with the picture, the sound, or both.

    Raises:
        CannotLoad: the model takes none, has no processor here, or a package is missing; the message says which.
    """
    facts = Facts(loaded.model)
    _check_takes(loaded, facts, image, audio)
    given: dict[str, Any] = {} if image is None else {"images": _picture(image)}
    processor = _processor(loaded, "AutoImageProcessor" if audio is None else "AutoFeatureExtractor", trust_remote_code)
    if audio is not None:
        given["audio"] = _sound(audio, _rate_of(processor))
        given["sampling_rate"] = _rate_of(processor)
    texts: list[Optional[str]] = [None]
    if IDS in facts.parameters:
        texts = list(prompts or [DEFAULT_PROMPT])
    return [_made(loaded, facts, processor, text, given, withheld) for text in texts]


def _check_takes(loaded: Loaded, facts: Facts, image: Optional[str], audio: Optional[str]) -> None:
    if image is not None and not any(name.startswith("pixel_values") for name in facts.parameters):
        raise CannotLoad(f"{loaded.class_name} takes no picture (no pixel_values): --image cannot be used.")
    if audio is not None and not facts.parameters.intersection(SOUNDS):
        raise CannotLoad(f"{loaded.class_name} takes no sound ({' or '.join(SOUNDS)}): --audio cannot be used.")


def _processor(loaded: Loaded, part: str, trust_remote_code: bool) -> Any:
    """The processor of the model's folder, or that part of one which is there.

    Raises:
        CannotLoad: there is none, or it needs a package that is not here.
    """
    import transformers

    folder = loaded.source.folder
    if folder is None or not any(os.path.isfile(os.path.join(folder, name)) for name in CONFIGS):
        raise CannotLoad(
            f"The model has no processor ({' or '.join(CONFIGS)}), so a picture or sound cannot be made its input."
            " Give exact inputs with --inputs FILE."
        )
    raised: list[Exception] = []
    for name in ("AutoProcessor", part):
        try:
            with quiet():
                return getattr(transformers, name).from_pretrained(
                    folder, local_files_only=True, trust_remote_code=trust_remote_code
                )
        except Exception as error:  # noqa: BLE001 - what a class of the library raises for lack of a file is no fixed set
            raised.append(error)
    missing = next((error for error in raised if isinstance(error, ImportError)), None)
    if missing is not None:
        raise _needs(_package_in(missing), "The model's processor") from missing
    raise CannotLoad(
        f"The model's processor cannot be made: {in_words(raised[-1]).rstrip('.')}."
        " Give exact inputs with --inputs FILE."
    ) from raised[-1]


def _picture(path: str) -> Any:
    try:
        pillow: Any = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise _needs("Pillow", f"Reading the picture {os.path.basename(path)}") from error
    try:
        with open_foreign(path) as stream:
            return pillow.open(stream).convert("RGB")
    except Exception as error:
        raise CannotLoad(f"{os.path.basename(path)} is no picture that Pillow reads.") from error


def _rate_of(processor: Any) -> int:
    """Samples in a second, as the model wants them."""
    part = getattr(processor, "feature_extractor", processor)
    rate = getattr(part, "sampling_rate", None)
    return int(rate) if rate else 16_000


def _sound(path: str, rate: int) -> Any:
    """One channel of float32 at ``rate``."""
    shown = os.path.basename(path)
    try:
        samples, own = read_wave(path)
    except wave.Error:
        samples, own = _by_soundfile(path)
    if samples.numel() == 0:
        raise CannotLoad(f"{shown} holds no sound.")
    return resampled(samples, own, rate).numpy()


def read_wave(path: str) -> tuple[Tensor, int]:
    """(samples, rate) of a WAV file of whole numbers, channels averaged, in -1 to 1.

    Raises:
        wave.Error: it is another kind of file.
    """
    with open_foreign(path) as stream:
        try:
            with wave.open(stream) as opened:
                width, channels, rate = opened.getsampwidth(), opened.getnchannels(), opened.getframerate()
                data = bytearray(opened.readframes(opened.getnframes()))
        except EOFError:
            raise wave.Error("it is cut") from None
    data = data[: len(data) // (width * channels) * width * channels]
    if not data:
        return torch.zeros(0), rate
    if width == 1:
        samples = torch.frombuffer(data, dtype=torch.uint8).float() - 128.0
    elif width == 3:
        parts = torch.frombuffer(data, dtype=torch.uint8).reshape(-1, 3).int()
        whole = parts[:, 0] + (parts[:, 1] << 8) + (parts[:, 2] << 16)
        samples = torch.where(whole >= 1 << 23, whole - (1 << 24), whole).float()
    else:
        samples = torch.frombuffer(data, dtype=torch.int16 if width == 2 else torch.int32).float()
    return (samples / float(1 << (8 * width - 1))).reshape(-1, channels).mean(1), rate


def _by_soundfile(path: str) -> tuple[Tensor, int]:
    shown = os.path.basename(path)
    try:
        soundfile: Any = importlib.import_module("soundfile")
    except (ImportError, OSError) as error:
        raise _needs("soundfile", f"Reading the sound {shown}, which is no WAV file of whole numbers,") from error
    try:
        check_is_file(path)
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except Exception as error:
        raise CannotLoad(f"{shown} is no sound that soundfile reads: {first_line(error)}.") from error
    return torch.from_numpy(samples).mean(1), int(rate)


def resampled(samples: Tensor, own: int, rate: int) -> Tensor:
    """The sound at another rate, by its spectrum: what both rates can hold stays, what one cannot is left out."""
    if own == rate:
        return samples
    count = max(round(samples.shape[-1] * rate / own), 1)
    spectrum = torch.fft.rfft(samples.float())
    kept = torch.zeros(count // 2 + 1, dtype=spectrum.dtype)
    both = min(kept.shape[-1], spectrum.shape[-1])
    kept[:both] = spectrum[:both]
    return torch.fft.irfft(kept, n=count) * (count / samples.shape[-1])


def _made(
    loaded: Loaded, facts: Facts, processor: Any, text: Optional[str], given: dict[str, Any], withheld: bool
) -> Inputs:
    tokenizer = getattr(processor, "tokenizer", None)
    said = _with_marks(processor, text, given) if text is not None and tokenizer is not None else None
    options = {**given, **({} if said is None else {"text": said})}
    if "audio" in options and tokenizer is None:
        options["raw_speech"] = options.pop("audio")
    try:
        with quiet():
            batch = processor(**options, return_tensors="pt")
    except ImportError as error:
        raise _needs(_package_in(error), "The model's processor") from error
    except Exception as error:
        raise CannotLoad(
            f"The model's processor refuses it: {in_words(error).rstrip('.')}. Give exact inputs with --inputs FILE."
        ) from error
    values = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name in facts.parameters}
    kind = PICTURE if "images" in given else SOUND
    check_names(loaded, {**values, **dict.fromkeys(facts.needed & {IDS})}, "what the processor makes")
    made = inputs_of(loaded, values, dict.fromkeys(values, kind), PROCESSOR, tokenizer, text)
    if withheld and made.tokens is not None:
        made = replace(made, withheld=True, tokens=veiled(tokenizer, made.tokens))
    return with_decoder(loaded, made, SEED)


def _with_marks(processor: Any, text: str, given: dict[str, Any]) -> str:
    """The prompt, with the processor's own token for a picture or a sound in front where it has none yet."""
    marks = []
    for kind, name in (("images", "image_token"), ("audio", "audio_token")):
        mark = getattr(processor, name, None)
        if kind in given and isinstance(mark, str) and mark not in text:
            marks.append(mark)
    return "".join(marks) + text


def _package_in(error: ImportError) -> str:
    """The package that a library's refusal names."""
    text = str(error)
    for words, package in (("PIL", "Pillow"), ("Torchvision", "torchvision"), ("torchvision", "torchvision")):
        if words in text:
            return package
    return error.name or first_line(error)


def _needs(package: str, what: str) -> CannotLoad:
    return CannotLoad(
        f"{what} needs the package {package}, which {sys.executable} does not have: pip install {package}."
    )
