"""Each ablation changes one thing and leaves the model and the process as it found them."""

import contextlib
import shutil

import pytest
import torch
from corpus import families, files
from safetensors.torch import save_file
from support.handmade import Function, as_loaded, bytes_of, hooks_of, inputs_of, load_folder, state_of
from support.kinds import KINDS

from repro.probes.model.ablations import ABLATIONS, aligned_copy
from repro.probes.model.forward import look, main_output, run
from repro.probes.model.inputs import make_inputs
from repro.probes.model.kinds.exact import exact_inputs
from repro.probes.steps.ablation import check

FAMILIES = ("gpt2", "llama", "bert", "t5")


@pytest.fixture(scope="module")
def loaded(checkpoints):
    return {family: load_folder(checkpoints[family], "float16") for family in FAMILIES}


def answer(loaded, name, inputs=None, passes=()):
    inputs = inputs or make_inputs(loaded, ["w3 w4 w5"], False)
    return check(name, loaded, list(passes), inputs, {"trust_remote_code": False})


def whole_state(loaded):
    return (
        state_of(loaded.model),
        hooks_of(loaded.model),
        loaded.model.training,
        loaded.model.config.to_dict(),
        loaded.model.config._attn_implementation,
        (loaded.attn, loaded.dtype, loaded.misaligned),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.random.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_an_ablation_leaves_everything_as_it_found_it(loaded, family, name):
    before = whole_state(loaded[family])
    verdict, reason, payload = answer(loaded[family], name)
    assert verdict in ("good", "skip"), reason
    assert payload["change"] == ABLATIONS[name][0]
    assert whole_state(loaded[family]) == before


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"aligned_copy", "second_prompt"}))
def test_an_ablation_leaves_everything_as_it_found_it_when_the_model_raises(loaded, name, monkeypatch):
    model = loaded["llama"]
    inputs = make_inputs(model, ["w3 w4 w5"], False)

    def fail(*args, **kwargs):
        raise ArithmeticError

    before = whole_state(model)
    monkeypatch.setattr(type(model.model), "forward", fail, raising=True)
    with contextlib.suppress(ArithmeticError):  # an ablation that does not apply does not run the model
        answer(model, name, inputs)
    assert whole_state(model) == before


@pytest.mark.parametrize("name", ["dtype=float16", "attn=sdpa"])
def test_a_setting_that_the_case_has_already(loaded, name):
    verdict, _, payload = answer(loaded["llama"], name)
    assert (verdict, payload["same_as_case"], payload["logits"]) == ("skip", True, None)


def test_one_thread_where_there_is_one(loaded):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert answer(loaded["gpt2"], "threads=1")[2]["same_as_case"] is True
    finally:
        torch.set_num_threads(before)


def seen_during(loaded, name, look_at):
    """What holds while the ablation runs the model."""
    found = []
    handle = loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(look_at(module, kwargs)), with_kwargs=True
    )
    try:
        answer(loaded, name)
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("name", "look_at", "wanted"),
    [
        ("dtype=float32", lambda m, k: next(m.parameters()).dtype, torch.float32),
        ("dtype=bfloat16", lambda m, k: next(m.parameters()).dtype, torch.bfloat16),
        ("attn=eager", lambda m, k: m.config._attn_implementation, "eager"),
        ("attention_mask=none", lambda m, k: "attention_mask" in k, False),
        ("use_cache=false", lambda m, k: k["use_cache"], False),
        ("no_first_special_token", lambda m, k: k["input_ids"].tolist(), [[3, 4, 5]]),
        ("threads=1", lambda m, k: torch.get_num_threads(), 1),
        ("second_prompt", lambda m, k: k["input_ids"].tolist() == [[1, 3, 4, 5]], False),
    ],
)
def test_what_the_ablation_changes(loaded, name, look_at, wanted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert seen_during(loaded["llama"], name, look_at) == [wanted]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("family", "name", "why"),
    [
        ("gpt2", "aligned_copy", "aligned already"),
        ("gpt2", "no_first_special_token", "seeded"),
        ("bert", "no_first_special_token", "seeded"),
    ],
)
def test_an_ablation_that_cannot_be_run_says_why(loaded, family, name, why):
    verdict, reason, payload = answer(loaded[family], name)
    assert (verdict, payload["same_as_case"]) == ("skip", False)
    assert why in reason


def test_a_model_that_takes_no_cache():
    small = as_loaded(Function(lambda x: x))
    verdict, reason, _ = check("use_cache=false", small, [], [inputs_of(torch.ones(1, 2))], {})
    assert verdict == "skip"
    assert "takes no use_cache" in reason


def test_a_model_that_takes_no_mask():
    small = as_loaded(Function(lambda x: x))
    verdict, reason, _ = check("attention_mask=none", small, [], [inputs_of(torch.ones(1, 2))], {})
    assert verdict == "skip"
    assert "no attention mask" in reason


# --- aligned copy ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crooked(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crooked") / "model"
    shutil.copytree(checkpoints["gpt2"], folder)
    files.misalign(folder)
    return load_folder(folder, "float32")


def test_a_misaligned_model_is_aligned_inside(crooked):
    assert {p.data_ptr() % 4 for p in crooked.model.parameters()} == {2}
    with aligned_copy(crooked, (), {}) as setting:
        assert {p.data_ptr() % 64 for p in crooked.model.parameters()} == {0}
        assert f"{crooked.misaligned} parameters were not aligned" in setting.remark
    assert {p.data_ptr() % 4 for p in crooked.model.parameters()} == {2}


def test_the_aligned_copy_has_the_same_numbers(crooked):
    before = {name: bytes_of(p) for name, p in crooked.model.named_parameters()}
    with aligned_copy(crooked, (), {}):
        assert {name: bytes_of(p) for name, p in crooked.model.named_parameters()} == before


def test_the_aligned_copy_leaves_everything_as_it_found_it(crooked):
    before = whole_state(crooked)
    assert answer(crooked, "aligned_copy")[0] == "good"
    assert whole_state(crooked) == before


def test_tied_weights_stay_tied_in_the_aligned_copy(tmp_path):
    families.build("gpt2", tied=True).save_pretrained(tmp_path)
    files.misalign(tmp_path)
    tied = load_folder(tmp_path, "float32")
    with aligned_copy(tied, (), {}):
        assert tied.model.lm_head.weight.data_ptr() == tied.model.transformer.wte.weight.data_ptr()


# --- comparison with the case ------------------------------------------------------------------------------------


def test_an_ablation_that_changes_no_number_is_equal_to_the_case(crooked):
    inputs = make_inputs(crooked, [], False)
    passes = [look(crooked.model, made) for made in inputs]
    assert answer(crooked, "aligned_copy", inputs, passes)[2]["equal_to_case"] is True
    assert answer(crooked, "dtype=bfloat16", inputs, passes)[2]["equal_to_case"] is False


def test_without_the_cases_passes_nothing_is_compared(crooked):
    assert answer(crooked, "aligned_copy")[2]["equal_to_case"] is None


def test_an_ablation_with_the_fault_is_bad(tmp_path, checkpoints):
    shutil.copytree(checkpoints["gpt2"], tmp_path, dirs_exist_ok=True)
    files.change(tmp_path, replace={"transformer.ln_f.weight": torch.full((families.HIDDEN,), 1e6)})
    wide = load_folder(tmp_path, "float32")
    assert not bool(torch.isnan(main_output(run(wide.model, make_inputs(wide, [], False)[0]))[1]).any())
    verdict, _, payload = answer(wide, "dtype=float16")
    assert verdict == "bad"
    assert payload["logits"]["nan"] + payload["logits"]["posinf"] + payload["logits"]["neginf"] > 0
    assert answer(wide, "dtype=bfloat16")[0] == "good"


def test_weights_that_no_file_has_are_said_to_be_rounded(checkpoints):
    random = load_folder(checkpoints["gpt2"], "float16", weights="random:0")
    assert "from weights already rounded to float16" in answer(random, "dtype=float32")[1]


# --- pictures and sounds -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    return lambda name: load_folder(root / name if (root / name).is_dir() else KINDS[name].save(root / name))


def watched_inputs(monkeypatch):
    """Filled with the inputs that ablations run a model with."""
    seen = []
    place = "repro.probes.steps.ablation.run_model"
    monkeypatch.setattr(place, lambda model, made: seen.append(made) or run(model, made))
    return seen


def given(loaded, monkeypatch, name):
    """The inputs with which an ablation runs the model."""
    seen = []
    monkeypatch.setattr(
        "repro.probes.steps.ablation.run_model", lambda model, made: seen.append(made) or run(model, made)
    )
    verdict, reason, _ = answer(loaded, name)
    return verdict, reason, (seen[0].arguments() if seen else {})


def test_a_picture_of_half_the_size(kinds, monkeypatch):
    verdict, _, arguments = given(kinds("vit"), monkeypatch, "image=half_size")
    assert (verdict, arguments["pixel_values"].shape) == ("good", (1, 3, 16, 16))
    assert arguments["interpolate_pos_encoding"] is True


def test_the_middle_of_a_picture_enlarged(kinds, monkeypatch):
    loaded = kinds("vit")
    verdict, _, arguments = given(loaded, monkeypatch, "image=crop")
    (made,) = make_inputs(loaded, [], False)
    middle = made.arguments()["pixel_values"][..., 8:24, 8:24]
    wanted = torch.nn.functional.interpolate(middle, size=(32, 32), mode="bilinear", align_corners=False)
    assert (verdict, torch.equal(arguments["pixel_values"], wanted)) == ("good", True)


@pytest.mark.parametrize(("name", "samples"), [("audio=half_length", 482), ("sample_rate=half", 482)])
def test_a_sound_of_half_the_samples(kinds, monkeypatch, name, samples):
    verdict, _, arguments = given(kinds("wav2vec2"), monkeypatch, name)
    assert (verdict, arguments["input_values"].shape) == ("good", (1, samples))


def test_a_model_of_one_length_refuses_and_that_is_no_failure(kinds):
    verdict, reason, payload = answer(kinds("whisper"), "audio=half_length")
    assert (verdict, payload["same_as_case"]) == ("skip", False)
    assert reason.startswith("the model refuses it: ValueError: Whisper expects the mel input features")


@pytest.mark.parametrize("name", ["image=half_size", "image=crop", "audio=half_length", "sample_rate=half"])
def test_a_model_of_text_has_no_such_ablation(loaded, name):
    verdict, reason, payload = answer(loaded["llama"], name)
    assert (verdict, payload["same_as_case"]) == ("skip", True)
    assert reason.startswith("the model is given no ")


def test_mean_and_variance(kinds, monkeypatch, tmp_path):
    loaded = kinds("vit")
    save_file({"pixel_values": torch.rand(1, 3, 32, 32) * 255}, tmp_path / "in.safetensors")
    inputs = exact_inputs(loaded, str(tmp_path / "in.safetensors"), False)
    seen = []
    monkeypatch.setattr(
        "repro.probes.steps.ablation.run_model", lambda model, made: seen.append(made) or run(model, made)
    )
    verdict, _, _ = answer(loaded, "inputs=standardised", inputs)
    pixels = seen[0].arguments()["pixel_values"]
    assert verdict == "good"
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(pixels.std()) == pytest.approx(1, abs=1e-5)
    assert answer(loaded, "inputs=standardised")[2]["same_as_case"] is True
