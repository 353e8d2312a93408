"""``millrace bench``: what millrace costs beside a bare loop, on this machine and one broker."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from millrace.infra.settings import load
from millrace.workers.bench.options import Encoding, Network, Options, Shape
from millrace.workers.commands.common import EXIT_PROBLEMS, Json, write_json

Form = Annotated[Encoding, typer.Option("--format", help="How requests are encoded.")]
Features = Annotated[Shape, typer.Option("--features", help="How requests carry their features.")]
Model = Annotated[Network, typer.Option("--model", help="small: 100 -> 64 -> 1; policy: 263 -> 512 -> 512 -> 4.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often each loop is measured, in turns; the median counts.")]

bench = typer.Typer(name="bench", help="Measure millrace against a bare loop, on this machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(bench)


@bench.command()
def inference(
    form: Form = Encoding.JSON,
    features: Features = Shape.NAME,
    model: Model = Network.SMALL,
    requests: Annotated[int, typer.Option("--requests", min=1_000, help="How many requests each loop answers in a round.")] = 100_000,
    rounds: Rounds = 3,
    json: Json = False,
) -> None:
    """Requests a second of the bare loop and of the real worker, in turns. Exit code 1 where the ratio misses its target.

    Without a Kafka address in the settings it starts a broker of its own in a temporary folder.
    """
    from millrace.workers.bench.throughput import compare

    report = compare(load(), Options(form, features, model, requests, rounds), _tell)
    if json:
        write_json(report)
    else:
        _say(f"{report.model}, {report.encoding}, features by {report.features}, {report.requests:,} requests, {rounds} rounds in turns")
        for name, rates in (("bare loop", report.bare), ("inference", report.inference)):
            _say(f"  {name:10} {rates.median:10,.0f} requests/s  {rates.microseconds:7.2f} us a request")
        _say(f"  ratio      {report.ratio:10.3f}  (target {report.target_ratio} or more: {'met' if report.met else 'MISSED'})")
    if not report.met:
        raise typer.Exit(EXIT_PROBLEMS)


@bench.command()
def latency(
    rate: Annotated[float, typer.Option("--rate", min=1, help="Requests a second.")] = 1_000,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long it measures, after a warm-up.")] = 10,
    form: Form = Encoding.JSON,
    features: Features = Shape.NAME,
    model: Model = Network.SMALL,
    rounds: Rounds = 3,
    json: Json = False,
) -> None:
    """From when a request is due to when a committed reader has its answer, at a steady rate. Exit code 1 where p99 misses its target.

    Requests are due on a schedule that nothing slows down (open loop), so that a pause counts for all whom it made wait.
    """
    from millrace.workers.bench.latency import compare

    report = compare(load(), Options(form, features, model, rounds=rounds), rate, seconds, _tell)
    if json:
        write_json(report)
    else:
        _say(f"{model}, {form}, features by {features}, {rate:,.0f} requests/s for {seconds:g} s, {rounds} rounds in turns")
        for name, one in (("bare loop", report.bare), ("inference", report.inference)):
            _say(f"  {name:10} p50 {one.p50_ms:7.1f} ms   p99 {one.p99_ms:7.1f} ms   p99.9 {one.p999_ms:7.1f} ms")
        _say(f"  p99 ratio  {report.p99_ratio:.3f}  (target {report.target_ratio} or less: {'met' if report.met else 'MISSED'})")
    if not report.met:
        raise typer.Exit(EXIT_PROBLEMS)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


@bench.command()
def archive(
    rows: Annotated[int, typer.Option("--rows", min=20_000, help="How many records are archived.")] = 600_000, json: Json = False
) -> None:
    """Rows a second from Kafka into ClickHouse, beside the same rows as ready blocks. Exit code 1 where a target is missed.

    Without addresses in the settings it starts a broker and a ClickHouse of its own in a temporary folder.
    """
    from millrace.workers.bench.archive import compare

    report = compare(load(), rows, _tell)
    if json:
        write_json(report)
    else:
        _say(f"{report.rows:,} requests and predictions with 20 features")
        _say(f"  raw insert {report.raw:10,.0f} rows/s")
        _say(f"  archiver   {report.archiver:10,.0f} rows/s  (target {report.target_rows:,} or more)")
        _say(f"  ratio      {report.ratio:10.3f}  (target {report.target_ratio} or more: {'met' if report.met else 'MISSED'})")
    if not report.met:
        raise typer.Exit(EXIT_PROBLEMS)


@bench.command()
def experiments(
    units: Annotated[int, typer.Option("--units", min=100, help="How many units the rate is measured with.")] = 100_000,
    events: Annotated[int, typer.Option("--events", min=1_000, help="How many events are measured, for each number of units.")] = 400_000,
    json: Json = False,
) -> None:
    """Events a second of the experimenter, exactly once, with 10,000, these and 1,000,000 units. Exit code 1 where a target is missed.

    Below 10,000 units there is nothing to compare with: they are measured alone. Without a Kafka address in the settings it starts a
    broker of its own in a temporary folder.
    """
    from millrace.workers.bench.experiments import compare

    report = compare(load(), units, events, _tell)
    if json:
        write_json(report)
    else:
        _say(f"one partition, one experiment, three metrics, {report.events:,} events")
        for cost in report.costs:
            rate, memory = f"{cost.events_per_second:9,.0f} events/s", f"{cost.peak_bytes / 2**20:6,.0f} MiB at most"
            _say(f"  {cost.units:9,} units {rate}  {cost.microseconds:6.2f} us of CPU an event  {memory}")
        _say(f"  rate       {report.events_per_second:10,.0f} events/s  (target {report.target_events:,} or more)")
        _say(f"  memory     {report.peak_bytes / 2**20:10,.0f} MiB  (target {report.target_bytes / 2**20:,.0f} or less)")
        _say(f"  ratio      {report.ratio:10.3f}  (target {report.target_ratio} or less: {'met' if report.met else 'MISSED'})")
    if not report.met:
        raise typer.Exit(EXIT_PROBLEMS)


def _tell(line: str) -> None:
    """Progress, on a terminal alone."""
    if sys.stderr.isatty():
        sys.stderr.write(line + "\n")


@bench.command()
def guardrail(
    harm: Annotated[
        list[float] | None, typer.Option("--harm", min=0, max=1, help="The share of the treatment's units that fail from then on.")
    ] = None,
    failing: Annotated[
        float, typer.Option("--failing", min=0, max=1, help="The share of units that fail before harm, and of the control's.")
    ] = 0.02,
    rate: Annotated[float, typer.Option("--rate", min=1, help="Units a second.")] = 200,
    json: Json = False,
) -> None:
    """Records and seconds from planted harm to the version of the plan that stops the experiment, with the real workers.

    ``--harm`` may be given several times; without it four sizes are measured. Without a Kafka address in the settings it starts a broker
    of its own in a temporary folder.
    """
    from millrace.workers.bench.guardrail import HARMS, compare

    report = compare(load(), failing, harm or HARMS, rate, _tell)
    if json:
        write_json(report)
        return
    _say(f"{report.failing:.1%} of the units fail, then more of the treatment's, at {report.units_per_second:g} units/s")
    for one in report.stopped:
        needed, all_ = f"{one.records_needed:,} records, {one.seconds_needed:.2f} s", f"{one.records:,} records, {one.seconds:.2f} s"
        _say(f"  {one.harm:6.1%} fail: the evidence needed {needed}; stopped after {all_}, signalled after {one.signal_seconds:.2f} s")
        _say(f"{'':16}the stream added {one.seconds_added:.3f} s")
