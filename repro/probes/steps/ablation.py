"""The steps ``ablation:NAME``: the same check with one thing changed."""

from typing import Any

from ..model.ablations import ABLATIONS, NotApplicable, SameAsCase
from ..model.forward import Pass, bad_words, is_bad_figures, judged_pass
from ..model.forward import run as run_model
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..phases.ablations import check as check_phase
from ..phases.answer import asked, refused
from ..protocol.failures import in_words
from ..protocol.wire import Outcome
from ..values.figures import describe, same_values


def run(session: Any, step: str) -> Outcome:
    name = step.partition(":")[2]
    if session.is_script:
        from ..script.answer import ablation as of_script
        from ..script.answer import asked as asked_script

        return of_script(session.keep_script(asked_script), name)
    phase = asked(session) or (refused(session) if session.has_passed else None)
    if phase is not None:
        return check_phase(name, phase, session.loaded(), session.inputs(), session.case)
    return check(name, session.loaded(), session.known_passes, session.inputs(), session.case)


def check(name: str, loaded: Loaded, passes: list[Pass], inputs: list[Inputs], case: dict[str, Any]) -> Outcome:
    """Verdict, reason and payload of one ablation. ``passes``: the case's own passes, if they are known to end."""
    change, ablation = ABLATIONS[name]
    payload: dict[str, Any] = {"change": change, "same_as_case": False, "logits": None, "equal_to_case": None}
    try:
        with ablation(loaded, tuple(inputs), case) as setting:
            try:
                judged = [judged_pass(loaded.model, made, run_model(loaded.model, made)) for made in setting.inputs]
            except Exception as error:
                if not setting.may_refuse:
                    raise
                raise NotApplicable(f"the model refuses it: {in_words(error)}") from error
    except SameAsCase as error:
        payload["same_as_case"] = True
        return "skip", str(error) or "the case has this setting itself", payload
    except NotApplicable as error:
        return "skip", str(error), payload
    outputs = [output for _, output, _ in judged]
    figures = [describe(output) for output in outputs]
    bad = [is_bad_figures(row) and name not in written for row, (name, _, written) in zip(figures, judged)]
    payload["logits"] = figures[bad.index(True) if any(bad) else 0]
    if passes and len(passes) == len(outputs):
        payload["equal_to_case"] = all(same_values(seen.output, output) for seen, output in zip(passes, outputs))
    remark = f" ({setting.remark})" if setting.remark else ""
    if any(bad):
        of = f" for {sum(bad)} of {len(bad)} prompts" if len(bad) > 1 else ""
        return "bad", f"{bad_words(payload['logits'])}{of}{remark}", payload
    row = payload["logits"]
    return "good", "finite, {:.6g} to {:.6g}{}".format(row["min"], row["max"], remark), payload
