"""Write four small real tables as CSV files into examples/tables.

They come with scikit-learn, so nothing is downloaded. Where they are from: examples/README.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import polars as pl
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

TABLES = Path(__file__).parent / "tables"


def diabetes() -> pl.DataFrame:
    """442 patients: age, sex, body measures, blood values, how the disease progressed in a year."""
    bunch = load_diabetes(scaled=False)
    names = ["age", "sex", "bmi", "blood_pressure", "tc", "ldl", "hdl", "tch", "ltg", "glucose"]
    return pl.DataFrame(bunch.data, schema=names).with_columns(
        pl.col("sex").replace_strict({1.0: "a", 2.0: "b"}),  # the source codes it as 1 and 2
        pl.Series("progression", bunch.target),
    )


def breast_cancer() -> pl.DataFrame:
    """569 tumours: thirty measures of the cells, and whether the tumour is malignant."""
    bunch = load_breast_cancer()
    names = [name.replace(" ", "_") for name in bunch.feature_names]
    diagnosis = [str(bunch.target_names[label]) for label in bunch.target]
    return pl.DataFrame(bunch.data, schema=names).with_columns(pl.Series("diagnosis", diagnosis))


def wine() -> pl.DataFrame:
    """178 wines: thirteen chemical measures, and which of three growers each comes from."""
    bunch = load_wine()
    grower = [f"grower_{label}" for label in bunch.target]
    return pl.DataFrame(bunch.data, schema=list(bunch.feature_names)).with_columns(
        pl.Series("grower", grower)
    )


def digits() -> pl.DataFrame:
    """1,797 handwritten digits: the ink in each of 8 x 8 squares, and the digit."""
    bunch = load_digits()
    names = [f"row{row}_column{column}" for row in range(8) for column in range(8)]
    label = [f"digit_{label}" for label in bunch.target]
    return pl.DataFrame(bunch.data, schema=names).with_columns(pl.Series("digit", label))


def main() -> None:
    """Write each table under its own name."""
    TABLES.mkdir(exist_ok=True)
    for make in (breast_cancer, wine, digits, diabetes):  # the demo's own last: make looks at its date
        path = TABLES / f"{make.__name__}.csv"
        make().write_csv(path)
        print(os.path.relpath(path))


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
