"""A check: hooks and metrics in their order, and what follows from them."""

from splitproxy.core.analysis import BOTH_FAIL, ERROR, FAIL, INCONCLUSIVE, PASS, Verdict
from splitproxy.core.rollout import gates, promoting, stepping
from splitproxy.core.rollout.ending import deadline, roll_back, succeed
from splitproxy.core.rollout.events import Answer, Checked, Proven, Tick
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.state import MetricCounts
from splitproxy.core.rollout.turn import Turn

_OUTSIDE = "outside the allowed windows: steps forward wait, checks go on"
_BOTH = "both"


def ticked(turn: Turn, tick: Tick) -> None:
    """Begin a check, unless one is under way."""
    if not turn.active or deadline(turn) or turn.state.awaiting:
        return
    turn.change(round=turn.state.round + 1, held=tick.hold or ("" if tick.windows_open else _OUTSIDE))
    if turn.state.phase == "Finalising":
        succeed(turn)
    elif turn.has("rollback") and not turn.state.handed_back:
        turn.ask("rollback")
    else:
        _after_rollback_hooks(turn)


def proven(turn: Turn, event: Proven) -> None:
    """Take the step that is shown to be safe: with a check that begins now, or the one that is under way."""
    state = turn.state
    if state.phase != "Progressing" or state.step != event.step or state.proven:
        return
    turn.change(proven=True)
    turn.record("evidence", event.sentence)
    ticked(turn, event.tick)


def answered(turn: Turn, answer: Answer) -> None:
    """Take the answer of the webhooks that the round waits for; any other is late, and ignored."""
    if answer.type == "post-rollout" and answer.round == turn.state.round:
        _record_answer(turn, answer)
        return
    if answer.round != turn.state.round or answer.type != turn.state.awaiting:
        return
    turn.change(awaiting="")
    _record_answer(turn, answer)
    wanted = answer.type == "rollback" and answer.outcome == "pass"
    if wanted or answer.outcome == "rollback":
        roll_back(turn, f"{answer.hook or answer.type} ({answer.type}) asked for a rollback{_said(answer)}")
    elif answer.type == "rollback":
        _after_rollback_hooks(turn)
    elif answer.type == "pre-rollout":
        _prepared(turn, answer)
    elif answer.type == "rollout":
        _rollout_hooks_answered(turn, answer)
    elif answer.type == "hand-back":
        _hand_back_answered(turn, answer)
    elif gates.answered(turn, answer):
        opened(turn, answer.type)


def opened(turn: Turn, gate: str) -> None:
    """Go through a gate that has just opened."""
    if gate == "confirm-rollout":
        start(turn)
    else:
        stepping.through(turn, gate)


def start(turn: Turn) -> None:
    """The run begins: the next check prepares the canary."""
    state, plan = turn.state, turn.plan
    turn.change(awaiting="")
    text = f"{plan.version(state.revision)} of {plan.canary} begins (attempt {state.attempt})"
    turn.move("Progressing", text)
    turn.alert("info", f"{text}: {plan.strategy}, {len(plan.stages)} steps", f"started:{state.attempt}")


def wait_to_begin(turn: Turn) -> None:
    """Begin if nothing stands in the way: the windows, the primary, the gate."""
    if turn.state.held:
        turn.hold(turn.state.held)
    elif turn.primary_unreachable:
        turn.hold(f"{turn.plan.primary} cannot be reached; the start waits for it")
    elif gates.passes(turn, "confirm-rollout"):
        start(turn)


def checked(turn: Turn, event: Checked) -> None:
    """Take the verdicts of the check under way."""
    if event.round != turn.state.round or turn.state.awaiting != "measure":
        return
    turn.change(awaiting="")
    before = dict(turn.state.metrics)
    _count(turn, event.verdicts)
    _tell(turn, event.verdicts, before)
    over = _over_limit(turn, event.verdicts)
    failures = [verdict for verdict in event.verdicts if verdict.outcome == FAIL]
    unsure = [verdict for verdict in event.verdicts if verdict.outcome in (ERROR, INCONCLUSIVE)]
    if failures:
        fail(turn, "; ".join(verdict.reason for verdict in failures), over)
    elif over:
        turn.record("check", over, warning=True)
        roll_back(turn, over)
    elif unsure:
        _unsure(turn, unsure)
    else:
        _pass(turn)


def fail(turn: Turn, why: str, over: str = "") -> None:
    """Count a failed check, and roll back when it was one too many; `over`: a limit that was passed beside it."""
    failed, threshold = turn.state.failed + 1, turn.plan.threshold
    turn.change(failed=failed, awaiting="")
    counted = f"{failed} of {threshold} failed checks: {why}"
    turn.record("check", counted, warning=True, outcome=FAIL, failed=failed, threshold=threshold)
    turn.change(recorded=tuple((dict(turn.state.recorded) | {"check": FAIL}).items()))
    if over or failed >= threshold:
        roll_back(turn, over or counted)
    else:
        turn.stay(counted)


def _after_rollback_hooks(turn: Turn) -> None:
    state = turn.state
    if state.phase == "Waiting":
        wait_to_begin(turn)
    elif state.handed_back:
        if not promoting.awaits_primary(turn):
            _measure(turn)
    elif state.phase == "Promoting" and turn.plan.mode == "handBack":
        promoting.hand_back(turn)
    elif state.step < 0 and not turn.traffic:
        _prepare(turn)
    elif turn.has("rollout"):
        turn.ask("rollout")
    else:
        _measure(turn)


def _prepare(turn: Turn) -> None:
    """Before the first stage: hooks that make the canary ready, then the way in."""
    state, plan = turn.state, turn.plan
    if state.phase == "Paused":
        return
    if turn.unreachable:
        turn.hold(f"{plan.canary} cannot be reached; the first step waits for it")
    elif turn.primary_unreachable:
        turn.hold(f"{plan.primary} cannot be reached; the first step waits for it")
    elif state.held:
        turn.hold(state.held)
    elif plan.skip_analysis:
        promoting.begin(turn)
    elif turn.has("pre-rollout") and not state.prepared:
        turn.ask("pre-rollout")
    else:
        stepping.forward(turn)


def _prepared(turn: Turn, answer: Answer) -> None:
    if answer.outcome == "pass":
        turn.change(prepared=True)
        stepping.forward(turn)
    elif answer.outcome == "hold":
        turn.hold(f"{answer.hook or answer.type} holds{_said(answer)}")
    else:
        fail(turn, f"{answer.hook or answer.type} ({answer.type}) failed{_said(answer)}")


def _rollout_hooks_answered(turn: Turn, answer: Answer) -> None:
    if answer.outcome == "fail":
        fail(turn, f"{answer.hook or answer.type} ({answer.type}) failed{_said(answer)}")
        return
    if answer.outcome == "hold":  # The metrics are measured all the same: they may say that it has to end.
        turn.change(held=f"{answer.hook or answer.type} holds{_said(answer)}")
    _measure(turn)


def _hand_back_answered(turn: Turn, answer: Answer) -> None:
    promoting.answered(turn, answer)
    if answer.outcome != "hold":
        return
    # The check that led to the promotion is just over; from the next one on the canary is measured while it lasts.
    if turn.state.told:
        _measure(turn)
    turn.change(told=True)


def _measure(turn: Turn) -> None:
    if turn.plan.metrics and not turn.plan.skip_analysis:
        turn.measure()
    else:
        _pass(turn)


def _count(turn: Turn, verdicts: tuple[Verdict, ...]) -> None:
    counts = dict(turn.state.metrics)
    for verdict in verdicts:
        own = counts.get(verdict.metric, MetricCounts())
        outcome = verdict.outcome
        counts[verdict.metric] = MetricCounts(
            own.failed + (outcome == FAIL),
            own.inconclusive + (outcome == INCONCLUSIVE),
            own.consecutive_errors + 1 if outcome == ERROR else 0,
            _news_of(verdict),
        )
    turn.change(metrics=tuple(counts.items()))


def _tell(turn: Turn, verdicts: tuple[Verdict, ...], before: dict[str, MetricCounts]) -> None:
    """Send news of what people should know although nothing ends by it: once, when it begins."""
    for verdict in verdicts:
        last = before.get(verdict.metric, MetricCounts()).last
        news = _news_of(verdict)
        if news == last or news not in (_BOTH, ERROR):
            continue
        share = percent(turn.state.weight)
        turn.alert("warn", f"{verdict.reason}; it holds at {share}", f"{news}:{verdict.metric}")


def _news_of(verdict: Verdict) -> str:
    both = verdict.outcome == INCONCLUSIVE and verdict.reason.startswith(BOTH_FAIL)
    return _BOTH if both else verdict.outcome


def _over_limit(turn: Turn, verdicts: tuple[Verdict, ...]) -> str:
    """Return why a metric's own limit ends the run; empty: none does."""
    counts = dict(turn.state.metrics)
    reasons = {verdict.metric: verdict.reason for verdict in verdicts}
    for metric in turn.plan.metrics:
        own = counts.get(metric.name, MetricCounts())
        if metric.failure_limit is not None and own.failed > metric.failure_limit:
            why = reasons.get(metric.name, "")
            return f"{metric.name} failed {own.failed} times, its failureLimit is {metric.failure_limit}: {why}"
        if own.consecutive_errors > metric.consecutive_error_limit:
            limit, why = metric.consecutive_error_limit, reasons.get(metric.name, "")
            times = own.consecutive_errors
            return f"{metric.name} could not be asked {times} times in a row, its limit is {limit}: {why}"
    return ""


def _unsure(turn: Turn, verdicts: list[Verdict]) -> None:
    why = "; ".join(verdict.reason for verdict in verdicts)
    outcome = verdicts[0].outcome
    turn.outcome("check", outcome, "check", f"holds: {why}", failed=turn.state.failed)
    counts = dict(turn.state.metrics)
    limits = {metric.name: metric.inconclusive_limit for metric in turn.plan.metrics}
    for verdict in verdicts:
        limit = limits.get(verdict.metric)
        times = counts[verdict.metric].inconclusive
        if verdict.outcome == INCONCLUSIVE and limit is not None and times > limit and turn.state.phase != "Paused":
            _stop(turn, f"{verdict.metric} was inconclusive {times} times, its inconclusiveLimit is {limit}", verdict)
            return
    turn.stay(f"holds: {why}")


def _stop(turn: Turn, why: str, verdict: Verdict) -> None:
    """Pause for an operator; what is on its way back to an updated primary only holds."""
    text = f"{why}: {verdict.reason}"
    if turn.state.handed_back:
        turn.hold(text)
        turn.alert("warn", f"{text}; it holds until a check passes", f"inconclusive:{verdict.metric}")
        return
    turn.change(resume=turn.state.phase)
    turn.move("Paused", text, warning=True)
    turn.alert(
        "warn", f"paused at {percent(turn.state.weight)}: {text}; it waits for resume", f"paused:{turn.state.step}"
    )


def _pass(turn: Turn) -> None:
    state = turn.state
    turn.change(awaiting="", passes=state.passes + 1)
    at = f"passed by {turn.plan.primary}, with" if state.handed_back else "passed at"
    text = f"{at} {percent(state.weight)}{' left on ' + turn.plan.canary if state.handed_back else ''}"
    turn.outcome("check", PASS, "check", text, failed=state.failed, passes=state.passes + 1)
    if state.phase == "Paused":
        _passed_while_paused(turn)
    elif turn.unreachable and not state.handed_back:
        turn.hold(f"{turn.plan.canary} cannot be reached; it holds at {percent(state.weight)}")
    elif state.phase == "Baking":
        promoting.baked(turn)
    elif state.phase == "Promoting":
        promoting.passed(turn)
    elif state.phase == "Progressing":
        _passed_stage(turn)
    elif state.held:
        turn.hold(state.held)
    else:
        stepping.forward(turn)


def _passed_stage(turn: Turn) -> None:
    state = turn.state
    stage = turn.plan.stages[state.step]
    least = turn.plan.terms.min_dwell if turn.plan.by_evidence(stage) else 0.0
    left = max(stage.hold, least) - (turn.now - state.stage_since)
    if turn.plan.by_evidence(stage) and not state.proven:
        turn.hold(f"passed at {percent(state.weight)}; the evidence for more is not complete")
    elif state.passes < stage.checks and not state.proven:
        turn.hold(f"{state.passes} of {stage.checks} checks passed at {percent(state.weight)}")
    elif left > 0:
        turn.hold(f"holds {percent(state.weight)} for another {left:.0f} s")
    elif stage.pause is not None:
        turn.change(resume="next")
        end = f"for {stage.pause:g} s" if stage.pause else "until resumed"
        turn.move("Paused", f"the plan pauses at {percent(state.weight)} {end}")
        if not stage.pause:
            turn.alert(
                "info", f"paused at {percent(state.weight)} by its plan; it waits for resume", f"paused:{state.step}"
            )
    elif state.held:
        turn.hold(state.held)
    else:
        stepping.forward(turn)


def _passed_while_paused(turn: Turn) -> None:
    """End the plan's own pause when its time is over; any other pause ends by an operator's word."""
    state = turn.state
    if state.resume not in ("next", "onward") or state.held or turn.unreachable:
        return
    if state.resume == "onward":
        # A crash came between an operator's word and the gate's answer.
        stepping.forward(turn)
        return
    pause = turn.plan.stages[state.step].pause
    if pause and turn.now - state.phase_since >= pause:
        # It stays Paused until the gate has let it through, so that a crash in between does not pause it twice.
        stepping.forward(turn)


def _record_answer(turn: Turn, answer: Answer) -> None:
    bad = answer.outcome != "pass"
    text = f"{answer.hook or answer.type} ({answer.type}): {answer.outcome}{_said(answer)}"
    warning = bad and answer.type != "rollback"
    turn.outcome(answer.type, answer.outcome, "hook", text, warning=warning, type=answer.type)


def _said(answer: Answer) -> str:
    return f": {answer.text}" if answer.text else ""
