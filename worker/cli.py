"""The command line: thin commands, one function behind each. ``--json`` everywhere, exit code 0 only on success.

Only the command that is asked for is imported: the table below tells where it is.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from worker import logs
from worker.roles import stop_on_signals, stop_with_parent

COMMANDS = {
    "audit": ("operations:audit_command", "Look whether what must always be true is true."),
    "beat": ("role_cli:beat", "Wake the sweep every few seconds, as one process."),
    "case": ("case_cli:case", "The unpaid invoices being recovered."),
    "db": ("operations:db", "The database."),
    "demo": ("demo_cli:demo", "Practise: a month of failing subscriptions in minutes."),
    "doctor": ("operations:doctor", "Look whether everything is in order, and what to do."),
    "ingest": ("event_cli:ingest", "Keep the Stripe events of a file; open their cases."),
    "job": ("replay_cli:job", "Jobs that ended in an error which nobody expected."),
    "learn": ("learn_cli:learn", "Learn which instants pay, and judge it against what runs."),
    "notice": ("notice_cli:notice", "What customers are told."),
    "outbox": ("outbox_cli:outbox", "What is told to customers and to your own systems."),
    "plan": ("plan_cli:plan", "Print the calendar of failed payments."),
    "policy": ("plan_cli:policy", "The merchant's policy."),
    "prevent": ("prevent_cli:prevent_command", "Help whom the next charge may lose: silently first."),
    "renewals": ("prevent_cli:renewals", "Whose automatic renewal is off, and when to remind them."),
    "replay": ("replay_cli:replay_command", "Handle stored events or failed jobs again."),
    "report": ("report_cli:report", "Tell what came back, by which means, at what price."),
    "restored": ("operations:restored", "Say that this database comes from a backup."),
    "resume-charging": ("operations:resume_charging", "Charge again."),
    "risk": ("risk_cli:risk", "Tell which subscriptions a payment is likely to lose."),
    "signals": ("signals_cli:signals", "Take in what you know of your customers."),
    "simulate": ("simulate_cli:simulate", "Tell what policies would bring back, before one touches money."),
    "stop-charging": ("operations:stop_charging", "Charge nothing from now on, on every worker."),
    "sync": ("event_cli:sync", "Catch up with what Stripe lists."),
    "up": ("role_cli:up", "Run worker, beat and web on one machine."),
    "web": ("role_cli:web", "Serve webhooks, the customers' links and the console."),
    "worker": ("role_cli:worker", "Run one worker: do what is due."),
}


def expected() -> tuple[type[Exception], ...]:
    """Return the errors that a user can mend; imported only when there is one to tell."""
    from schedules import PolicyError
    from worker.checks import NotReady
    from worker.database import MigrationMissing
    from worker.embedded_site import EmbeddedError
    from worker.settings import SettingsError
    from worker.stripe_gateway import GatewayError
    from worker.words import NotWritten

    return SettingsError, PolicyError, EmbeddedError, NotWritten, MigrationMissing, NotReady, GatewayError


class Commands(click.Group):
    """The commands of the table; their expected errors are one clear line on standard error and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"worker.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Tell what each is for, without importing one."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; every error that a user can mend is told without a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except expected() as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dunning")
def main() -> None:
    """Win failed subscription payments back before the customer notices."""
    stop_on_signals()
    stop_with_parent()
    logs.set_up()


if __name__ == "__main__":
    sys.exit(main())
