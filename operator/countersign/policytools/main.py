"""The command ``countersign policy``: test policies, ask what a call would get, read why one got it, and look for mistakes."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from countersign.api import GROUP, VERSION
from countersign.errors import Invalid
from countersign.kube.errors import KubeError
from countersign.policy.logic import ASSURANCE, KEY_TIER
from countersign.policy.times import read_time
from countersign.policytools.cases import read_cases
from countersign.policytools.lint import lint as lint_objects
from countersign.policytools.lint import unanswerable
from countersign.policytools.objects import Objects, from_cluster, from_files, unknown_fields
from countersign.policytools.output import BROKEN, Form, line, table, usage, warn
from countersign.policytools.reason import explanation, find_record, lines
from countersign.policytools.strict import BadFile, files_of
from countersign.policytools.trial import Outcome, run_case, shown
from countersign.policytools.whatif import Described, Verdict, what_if
from countersign.wire import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from countersign.policytools.findings import Finding

__all__ = ["command"]

command = typer.Typer(no_args_is_help=True, help="Test policies, ask what a call would get, and read why one got it.")

_WORDS: Final = {True: "true", False: "false", None: "undecided"}

Output = Annotated[Form, typer.Option("--output", "-o", help="table or json.")]
Manifests = Annotated[
    list[Path] | None,
    typer.Option("--file", "-f", metavar="FILE|DIR", help="Manifests; laid over the cluster's if there is one."),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The live cluster. Left out, without -f: $KUBECONFIG, else ~/.kube/config."),
]


@command.command(
    name="test",
    epilog=(
        "Examples:  countersign policy test tests/   ·   countersign policy test refunds.test.yaml -o json   ·   "
        "countersign policy test refunds.test.yaml --policies refunds.yaml"
    ),
)
def run_tests(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR", help="Files of cases.", show_default=False)],
    *,
    policies: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE|DIR", help="Manifests whose policies stand in the place of those that cases give."),
    ] = None,
    output: Output = Form.table,
) -> None:
    """Decide cases and compare each whole answer with what is expected, with policies and rules in two orders.

    A file has given, call and cases; unknown fields are refused. Exit status: 0 all passed, 1 some failed, 2 wrong use.
    """
    try:
        given = None if policies is None else _policies(policies)
        cases = [case for path in files_of(paths) for case in read_cases(path, given)]
    except BadFile as error:
        raise usage("test", str(error)) from error
    outcomes = [run_case(case) for case in cases]
    failed = [one for one in outcomes if not one.passed]
    if output is Form.json:
        typer.echo(json.dumps(_report(outcomes), indent=1, default=str))
    else:
        for one in failed:
            line(f"FAIL {one.case.file}: {one.case.name}")
            line(f"  expected: {json.dumps(one.case.expect, default=str)}")
            line(f"  got:      {json.dumps(one.got, default=str)}")
            if one.note:
                line(f"  {one.note}")
        line(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    _hints(outcomes)
    raise typer.Exit(BROKEN if failed else 0)


def _policies(paths: list[Path]) -> list[dict[str, Any]]:
    """Read policies as strictly as a person means them: a misspelt field would silently widen an Allow rule."""
    objects = from_files(paths)
    if not objects.policies:
        raise BadFile(f"{paths[0]}: there are no policies")
    for policy in objects.policies:
        if unknown := unknown_fields(policy):
            raise BadFile(f"{policy['kind']} {policy['metadata']['name']}: unknown field {unknown[0]}")
    return objects.policies


def _report(outcomes: list[Outcome]) -> dict[str, Any]:
    cases = [
        {"file": one.case.file, "name": one.case.name, "passed": one.passed}
        | ({} if one.passed else {"expected": one.case.expect, "got": one.got})
        | ({"note": one.note} if one.note else {})
        for one in outcomes
    ]
    passed = sum(one.passed for one in outcomes)
    return {"passed": passed, "failed": len(outcomes) - passed, "cases": cases}


def _hints(outcomes: list[Outcome]) -> None:
    """Point at what no case would show: questions that nobody can answer."""
    said = {
        f"{one.case.file}: {finding.where}, rule {finding.rule}: {finding.message}"
        for one in outcomes
        for finding in unanswerable(_objects_of(one.case.given))
    }
    for text in sorted(said):
        warn(text)


def _objects_of(given: Mapping[str, Any]) -> Objects:
    """Return policies and servers of a case as manifests: there they are written without apiVersion, servers without kind."""
    objects = Objects()
    for name, kind in (("policies", ""), ("toolServers", "ToolServer")):
        for obj in given.get(name) or []:
            if isinstance(obj, dict) and isinstance((obj.get("metadata") or {}).get("name"), str):
                objects.put({"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, **obj})
    return objects


@command.command(
    name="eval",
    epilog=(
        "Examples:  countersign policy eval --agent billing/refund-agent --server billing/stripe --tool create_refund "
        '--args \'{"charge":"ch_1","amount":4000}\' --user bent@example.com --group support   ·   '
        "countersign policy eval -f manifests/ --agent billing/refund-agent --server billing/stripe --tool get_charge"
    ),
)
def evaluate(  # noqa: PLR0913 - each is an option that people type
    *,
    agent: Annotated[str, typer.Option(metavar="NAMESPACE/NAME", help="The AgentIdentity that calls.")],
    server: Annotated[str, typer.Option(metavar="NAMESPACE/NAME", help="The ToolServer, or its audience.")],
    tool: Annotated[str, typer.Option(help="The tool.")],
    args: Annotated[str, typer.Option(metavar="JSON", help="The arguments.")] = "{}",
    instance: Annotated[str | None, typer.Option(help="An AgentInstance: its device and images are taken.")] = None,
    user: Annotated[str | None, typer.Option(help="The call is for this user, by a task.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group of the user; may be said again.")] = None,
    purpose: Annotated[str | None, typer.Option(help="Purpose of the task.")] = None,
    tier: Annotated[str, typer.Option(help="Tier of the call's signature: Software, DPoP, TPMSession, TPM.")] = "TPM",
    assurance: Annotated[str | None, typer.Option(help="Device assurance: Software, Virtual, Hardware.")] = None,
    pool: Annotated[str | None, typer.Option(help="DevicePool of the device.")] = None,
    source: Annotated[str | None, typer.Option(help="Pod, OwnSigner, Run or StepCLI.")] = None,
    attested: Annotated[int | None, typer.Option(metavar="SECONDS", help="Age of the attestation.", min=0)] = None,
    fact: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A fact of the device.")] = None,
    cluster: Annotated[str, typer.Option(help="The cluster's name.")] = "kubernetes",
    now: Annotated[str | None, typer.Option(metavar="TIME", help="The moment, RFC 3339; left out: now.")] = None,
    file: Manifests = None,
    kubeconfig: Kubeconfig = None,
    output: Output = Form.table,
) -> None:
    """Ask what a described call would get, with the policies of a live cluster, of files, or of files laid over a cluster.

    Nothing is written or called. What you do not say of the caller is as a good caller has it, or as --instance has it. Exit
    status: 0 Allow, 1 anything else, 2 wrong use.
    """
    try:
        moment = datetime.now(UTC) if now is None else read_time(now)
        if moment is None:
            raise BadFile("--now: an RFC 3339 time with an offset is wanted")  # noqa: TRY301
        call = Described(
            agent=agent,
            server=server,
            tool=tool,
            arguments=parse_json(args.encode("utf-8", "surrogatepass")),
            now=moment,
            instance=instance,
            user=user,
            groups=tuple(group or ()),
            purpose=purpose,
            key_tier=_one_of(tier, "--tier", KEY_TIER),
            assurance=None if assurance is None else _one_of(assurance, "--assurance", ASSURANCE),
            pool=pool,
            source=None if source is None else _one_of(source, "--source", ("Pod", "OwnSigner", "Run", "StepCLI")),
            cluster=cluster,
            attested_seconds=attested,
            facts=tuple(fact or ()),
        )
        verdict = what_if(call, _objects(file, kubeconfig))
    except Invalid as error:
        raise usage("eval", f"--args: {error}") from error
    except (BadFile, KubeError) as error:
        raise usage("eval", str(error)) from error
    _print_verdict(verdict, output)
    raise typer.Exit(0 if verdict.decision.allowed else BROKEN)


def _one_of(value: str, option: str, known: Any) -> str:
    if value not in known:
        raise BadFile(f"{option} {value}: one of {', '.join(known)}")
    return value


def _objects(files: list[Path] | None, kubeconfig: Path | None) -> Objects:
    """Return the objects of files, of a cluster, or of files laid over a cluster."""
    if kubeconfig is None and not files:
        kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not kubeconfig.is_file():
            raise BadFile(f"there is no kubeconfig at {kubeconfig}: name one by --kubeconfig, or manifests by -f")
    objects = None if kubeconfig is None else asyncio.run(from_cluster(kubeconfig))
    return from_files(files or [], objects)


def _print_verdict(verdict: Verdict, output: Form) -> None:
    found = shown(verdict.decision)
    if output is Form.json:
        rules = [
            {
                "policy": view.mark.policy,
                "rule": view.mark.rule,
                "effect": view.mark.effect,
                "enforced": view.enforced,
                "value": _WORDS[view.value],
                "parts": {name: _WORDS[value] for name, value in view.parts},
            }
            for view in verdict.rules
        ]
        typer.echo(json.dumps({**found, "rules": rules}, indent=1))
        return
    line(f"{found['effect']}  {found['code']}")
    for name in ("policy", "rule", "reason"):
        if name in found:
            line(f"{name}: {found[name]}")
    if not verdict.rules:
        line("no rule was asked")
        return
    line()
    table(
        ["VALUE", "EFFECT", "MODE", "POLICY", "RULE", "BECAUSE OF"],
        [
            (
                _WORDS[view.value],
                view.mark.effect,
                "Enforce" if view.enforced else "Audit",
                view.mark.policy,
                view.mark.rule or "(cannot be read)",
                ", ".join(f"{name} {_WORDS[value]}" for name, value in view.parts if value is view.value) or "",
            )
            for view in verdict.rules
        ],
    )


@command.command(
    epilog="Examples:  countersign policy explain 01JD… /var/lib/countersign/audit   ·   countersign policy explain 01JD… DIR -o json"
)
def explain(
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="The id that the caller was shown.")],
    logs: Annotated[list[Path], typer.Argument(metavar="DIR|FILES", help="Audit logs.", show_default=False)],
    output: Output = Form.table,
) -> None:
    """Say why a call got what it got: who, what, which rule and reason, which facts, and every rule that took part.

    It reads the audit log; `countersign audit verify` says whether that is whole. Exit status: 0 found, 1 no such decision,
    2 wrong use.
    """
    for path in logs:
        if not path.exists():
            raise usage("explain", f"{path} does not exist")
    try:
        record = find_record(logs, decision)
    except OSError as error:
        raise usage("explain", f"cannot read {error.filename}: {error.strerror}") from error
    if record is None:
        typer.echo("countersign policy explain: there is no such decision in these logs", err=True)
        raise typer.Exit(BROKEN)
    found = explanation(record)
    if output is Form.json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=True))
        return
    for name, text in lines(found):
        line(f"{name:<26}{text}")


@command.command(
    epilog="Examples:  countersign policy lint -f manifests/   ·   countersign policy lint --kubeconfig ~/.kube/config -o json"
)
def lint(file: Manifests = None, kubeconfig: Kubeconfig = None, output: Output = Form.table) -> None:
    """Point at rules that are probably not meant: unknown-field, invalid, expression, dangling, unreachable, shadowed,
    contradictory, too-wide, selector-key, cost.

    What a rule names must be among the files or in the cluster. Exit status: 0 nothing but notes, 1 warnings or errors, 2
    wrong use.
    """  # noqa: D205 - the first sentence is the list of checks
    try:
        objects = _objects(file, kubeconfig)
    except (BadFile, KubeError) as error:
        raise usage("lint", str(error)) from error
    if not objects.policies:
        raise usage("lint", "there are no policies")
    _print_findings(lint_objects(objects), output, len(objects.policies))


def _print_findings(findings: list[Finding], output: Form, policies: int) -> None:
    counted = {word: sum(one.severity == word for one in findings) for word in ("error", "warning", "note")}
    if output is Form.json:
        typer.echo(json.dumps({"findings": [vars(one) for one in findings], **counted}, indent=1))
    else:
        if findings:
            rows = [(one.severity, one.check, one.where, one.rule, one.message) for one in findings]
            table(["SEVERITY", "CHECK", "WHERE", "RULE", "WHAT"], rows)
        totals = ", ".join(f"{number} {word}s" for word, number in counted.items())
        line(f"{policies} policies: {totals}")
    raise typer.Exit(BROKEN if counted["error"] or counted["warning"] else 0)
