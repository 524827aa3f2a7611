"""What there is: variants, analyzers, costs, engines, selectors, oracles, formats of pairs."""

import click

from dpo_diag import registry


@click.command("show")
@click.argument("family", type=click.Choice(sorted(registry.FAMILIES)))
@click.argument("name", required=False)
def command(family: str, name: str | None) -> None:
    """List a family's plug-ins, or print what one of them says of itself; nothing is imported."""
    if name:
        click.echo(registry.summary(family, name))
        return
    for known in registry.names(family):
        click.echo(f"{known:24} {registry.summary(family, known).splitlines()[0]}")
