"""A command whose options are given once: of two ``--target`` the first would be lost without a word."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from steepest.errors import InputError

if TYPE_CHECKING:
    import typer

__all__ = ["OnceCommand"]


class OnceCommand(TyperCommand):
    """Refuses an option that is given again, where it takes one value."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Look for such an option first.

        Raises:
            InputError: there is one.
        """
        _, _, seen = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(seen).items():
            if count > 1 and _takes_one(parameter):
                raise InputError(
                    f"{parameter.opts[0]} is given {'twice' if count == 2 else f'{count} times'}; give it once"
                    f"{', with commas between its values' if ',' in str(parameter.metavar) else ''}."
                )
        return super().parse_args(ctx, args)


def _takes_one(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and not parameter.multiple and not parameter.is_flag
