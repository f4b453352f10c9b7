"""`tokensearch tune`: learned steps."""

from contextlib import contextmanager
from math import inf
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from tokensearch.cli.commands.show import check_policy_name
from tokensearch.cli.console import check_file, check_writable, err, error, out, print_json
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import Verb, grouped
from tokensearch.cli.options import JsonOption
from tokensearch.cli.training_options import TrainingOptions, Usual
from tokensearch.cli.tune_output import (
    change_to_json,
    print_merger,
    print_rates,
    print_thresholds,
    print_weights,
    thresholds_to_json,
    weights_to_json,
)
from tokensearch.errors import PolicyError
from tokensearch.policy import (
    Merger,
    Policy,
    Prune,
    is_file,
    load,
    load_policies,
    mac_share,
    preset,
    save,
)
from tokensearch.policy.file import policy_to_json
from tokensearch.policy.steps import SCORES, Score

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokensearch.cli.inputs import EvaluationInputs
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.tune.budget import Budget

NO_BETTER = 4  # the exit code where training has not helped
WEIGHTS = Usual(steps=300, lr=1e-5)
MERGER = Usual(steps=200, lr=5e-3)
RATES = Usual(steps=100, lr=0.05)  # of logits
THRESHOLDS = Usual(steps=0, lr=0.02)  # of logarithms: calibration has done the most already
OUT_OF_REACH = 3  # the exit code of a budget that cannot be met, as of a target in `run`

tune = typer.Typer(
    name="tune",
    help="Train: weights under a policy; thresholds, and make them static; mergers; counts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@tune.callback()
def describe_tune() -> None:
    """Train: weights under a policy; thresholds, and make them static; mergers; counts."""


@tune.command(cls=Verb, epilog="Example: tokensearch tune freeze thresholds.json")
def freeze(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="policy file with thresholds")],
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="default: POLICY-static.json beside it"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the policy that keeps equal counts for all images: the mean ones of its thresholds.

    It can be compiled, captured and exported. Measure both with `tokensearch evaluate`.
    """
    from tokensearch.tune.thresholds import freeze as freeze_policy

    twin = freeze_policy(load(policy))
    path = out_file or policy.with_name(f"{policy.stem}-static.json")
    save(twin, path)
    if as_json:
        print_json({"file": str(path), **policy_to_json(twin)})
        return
    counts = " ".join(map(str, twin.patch_tokens_after_block))
    out.print(f"{path}: patch tokens after each block {counts}")
    out.print(f"measure both: tokensearch evaluate {policy}; tokensearch evaluate {path}")


@tune.command(epilog="Example: tokensearch tune thresholds --sites 2,5,8 --budget 0.6x")
@grouped
def thresholds(
    wanted: ModelOptions,
    training: TrainingOptions,
    sites: Annotated[
        str, typer.Option(metavar="BLOCKS", help="blocks at whose end tokens go, such as 2,5,8")
    ],
    budget: Annotated[
        str,
        typer.Option(
            metavar="BUDGET",
            help="of the mean image: multiply-accumulates, 0.6x, or with --costs 5ms",
        ),
    ],
    score: Annotated[
        str, typer.Option(metavar="SCORE", help=f"one of {', '.join(SCORES)}")
    ] = "head_weighted_class_attention",
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="costs.json of `profile --sweep`, which predicts times"),
    ] = None,
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="the policy")] = Path(
        "thresholds.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Find thresholds that keep, of every image, what scores high, and meet a budget in the mean.

    They are calibrated on the images of `search` by quantiles of their scores; with --steps they
    then learn. The policy and its static twin are compared on `select`.
    """
    _check_score(score)
    blocks, scored_by = _read_blocks(sites), cast(Score, score)
    _check_budget(budget, costs)
    check_file(out_file)  # before minutes are spent
    from tokensearch.cli.inputs import load_inputs, spec_of_model

    spec = spec_of_model(wanted.model, wanted.options)
    Policy(spec, (Prune(blocks[-1], 1),))  # a block that the model does not have is refused here
    from tokensearch.cli.progress import progress_listener
    from tokensearch.tune.budget import make_twin
    from tokensearch.tune.learned_thresholds import find_thresholds
    from tokensearch.tune.thresholds import check_reach

    twin = make_twin(spec, blocks, scored_by)
    limit = _read_budget(budget, costs, twin)
    with _reach():
        check_reach(spec, blocks, limit)
    subject = load_inputs(wanted)
    evaluator = _evaluator(subject, wanted.seed)
    folder = out_file.with_name(f"{out_file.stem}-training")
    asked = (
        training.prepare(wanted, subject, evaluator, folder=folder, usual=THRESHOLDS)
        if training.steps
        else None
    )
    with progress_listener(err) as watcher:
        result = find_thresholds(
            evaluator,
            sites=blocks,
            budget=limit,
            score=scored_by,
            watcher=watcher,
            training=asked,
        )
    policy = result.calibrated.policy
    save(policy, out_file)
    document = {"file": str(out_file), "batch": wanted.batch_size, **thresholds_to_json(result)}
    print_json(document) if as_json else print_thresholds(document, policy)


@tune.command(epilog="Example: tokensearch tune rates --budget 0.5x --data imagenet")
@grouped
def rates(
    wanted: ModelOptions,
    training: TrainingOptions,
    budget: Annotated[
        str,
        typer.Option(metavar="BUDGET", help="multiply-accumulates, 0.5x, or with --costs 5ms"),
    ],
    score: Annotated[
        str | None,
        typer.Option(metavar="SCORE", help="default: class_attention, else mean_attention"),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="costs.json of `profile --sweep`, which predicts times"),
    ] = None,
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="the policy")] = Path(
        "rates.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Train how many tokens each block keeps, by gradient (DiffRate), with the model frozen.

    The better on `search` of that and of the same share in every block is kept. The same command
    goes on after anything.
    """
    _check_score(score)
    _check_budget(budget, costs)
    check_file(out_file)  # before minutes are spent
    from tokensearch.cli.inputs import load_inputs
    from tokensearch.cli.progress import progress_listener
    from tokensearch.runtime import describe
    from tokensearch.runtime.host import has_class_token
    from tokensearch.tune.budget import make_twin
    from tokensearch.tune.rates import keep_equal_shares, tune_rates

    subject = load_inputs(wanted)
    usual = "class_attention" if has_class_token(subject.model) else "mean_attention"
    spec, scored_by = describe(subject.model), cast(Score, score or usual)
    twin = make_twin(spec, range(1, spec.blocks), scored_by, "between")
    limit = _read_budget(budget, costs, twin)
    with _reach():
        keep_equal_shares(spec, limit)
    evaluator = _evaluator(subject, wanted.seed)
    folder = out_file.with_name(f"{out_file.stem}-training")
    asked = training.prepare(wanted, subject, evaluator, folder=folder, usual=RATES)
    with progress_listener(err) as watcher:
        result = tune_rates(evaluator, scored_by, limit, asked, watcher=watcher)
    save(result.policy, out_file)
    document = {
        "file": str(out_file),
        "better": result.better,
        "mac_share": mac_share(result.policy),
        "patch_tokens_after_block": list(result.policy.patch_tokens_after_block),
        "search": change_to_json(result.search),
        "select": change_to_json(result.select),
    }
    print_json(document) if as_json else print_rates(document)
    if not result.better:
        raise typer.Exit(NO_BETTER)


def _check_score(score: str | None) -> None:
    if score is not None and score not in SCORES:
        raise typer.BadParameter(f"--score is {score!r}; it must be one of {', '.join(SCORES)}")


def _read_budget(budget: str, costs: Path | None, twin: Policy) -> "Budget":
    """Return the budget of counts that go where the steps of `twin` stand."""
    from tokensearch.costs import load_costs
    from tokensearch.tune.budget import LatencyBudget, MacBudget

    limit = float(budget.rstrip("xms"))
    if costs is None:
        return MacBudget(twin.model, limit, at=twin.steps[0].at)
    return LatencyBudget(load_costs(costs), twin, limit)


@contextmanager
def _reach() -> "Iterator[None]":
    """End with an exit code of its own where a budget cannot be met."""
    try:
        yield
    except PolicyError as failure:
        error(str(failure))
        raise typer.Exit(OUT_OF_REACH) from failure


def _check_budget(budget: str, costs: Path | None) -> None:
    """Refuse what is no budget, or one in a unit that nothing is known of."""
    match = fullmatch(r"([0-9.]{1,12})(x|ms)", budget)
    try:
        limit = float(match[1]) if match else 0.0
    except ValueError:
        limit = 0.0
    if match is None or not 0 < limit < (1 if match[2] == "x" else inf):
        raise typer.BadParameter(
            f"--budget is {budget!r}; it must be a share like 0.6x, below 1x, or a time like 5ms"
        )
    if (match[2] == "ms") != (costs is not None):
        raise typer.BadParameter(
            f"--budget is {budget!r}, and --costs is {costs}; a time needs --costs FILE, from "
            f"`tokensearch profile --sweep`, and a share needs none"
        )


def _evaluator(subject: "EvaluationInputs", seed: int) -> "PolicyEvaluator":
    from tokensearch.evaluation.evaluator import PolicyEvaluator

    return PolicyEvaluator(
        subject.model,
        subject.splits,
        subject.cell,
        seed,
        objective=subject.objective,
        dense=subject.dense,
    )


@tune.command(epilog="Example: tokensearch tune weights --policy policy.json --data imagenet")
@grouped
def weights(
    wanted: ModelOptions,
    training: TrainingOptions,
    policy: Annotated[
        str,
        typer.Option(metavar="FILE", help="policy or preset; of a front one is drawn per step"),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="checkpoints, weights, policy, log")
    ] = Path("runs/tune-weights"),
    as_json: JsonOption = False,
) -> None:
    """Train a model's weights under a policy, so that they make up for what it removes.

    The better of before and after on `search` is kept. The same command goes on after anything.
    """
    check_policy_name(policy, "a policy, a front, or the name of a preset")
    check_writable(out_folder)
    from tokensearch.cli.inputs import load_inputs
    from tokensearch.cli.progress import progress_listener
    from tokensearch.tune.weights import tune_weights

    subject = load_inputs(wanted)
    policies, evaluator = _read_policies(policy, subject), _evaluator(subject, wanted.seed)
    asked = training.prepare(wanted, subject, evaluator, folder=out_folder, usual=WEIGHTS)
    with progress_listener(err) as watcher:
        result = tune_weights(evaluator, policies, asked, watcher)
    document = weights_to_json(result)
    print_json(document) if as_json else print_weights(document)
    if not result.better:
        raise typer.Exit(NO_BETTER)


@tune.command(epilog="Example: tokensearch tune merger --block 3 --keep 16 --data imagenet")
@grouped
def merger(
    wanted: ModelOptions,
    training: TrainingOptions,
    block: Annotated[int, typer.Option(min=0, metavar="N", help="at whose end tokens are merged")],
    keep: Annotated[
        int, typer.Option(min=1, metavar="N", help="queries, and so tokens that are left")
    ],
    scale: Annotated[
        float, typer.Option(metavar="FACTOR", help="of the logits; published are 1 and width^-0.5")
    ] = 1,
    values: Annotated[
        Literal["normed", "raw"], typer.Option(help="what is averaged; published is normed")
    ] = "normed",
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="the policy")] = Path(
        "merger.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Train the queries of a merger (PatchMerger), begun by k-means, with the model frozen.

    The better of before and after on `search` is kept. The same command goes on after anything.
    """
    check_file(out_file)  # before minutes are spent
    from tokensearch.cli.inputs import load_inputs
    from tokensearch.cli.progress import progress_listener
    from tokensearch.tune.learned_merger import tune_merger

    subject = load_inputs(wanted)
    evaluator = _evaluator(subject, wanted.seed)
    folder = out_file.with_name(f"{out_file.stem}-training")
    asked = training.prepare(wanted, subject, evaluator, folder=folder, usual=MERGER)
    step = Merger(block, keep, "merger", scale, values)
    with progress_listener(err) as watcher:
        result = tune_merger(evaluator, step, asked, watcher)
    save(result.policy, out_file)
    document = {
        "file": str(out_file),
        "better": result.better,
        "search": change_to_json(result.search),
        "select": change_to_json(result.select),
    }
    print_json(document) if as_json else print_merger(document)
    if not result.better:
        raise typer.Exit(NO_BETTER)


def _read_policies(name: str, subject: "EvaluationInputs") -> "Sequence[Policy]":
    """Read a policy, the policies of a front, or a preset."""
    from tokensearch.runtime import describe

    if not is_file(name):
        return (preset(name, describe(subject.model, name=subject.name)),)
    policies = load_policies(name)
    if not policies:
        raise PolicyError(f"{name} holds no policies; give a front that has some, or a policy")
    return policies


def _read_blocks(sites: str) -> tuple[int, ...]:
    parts = sites.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"--sites is {sites!r}; it must be blocks like 2,5,8")
    return tuple(sorted({int(part) for part in parts}))
