"""What campaigns cause, and whether models are still right: known answers, and rates of false alarms in simulations.

    python benchmarks/measurement.py [--only PART]... [--quick] [--json FILE]

The parts, of which `--only` names some:

- `oracles`: every published figure of the experiments table; `failed` counts those that differ
  (`measurement_oracles.py`).
- `aa`: A/A tests looked at daily, `false_positive_rate` of the confidence sequences beside that of a t test at every
  look (`measurement_aa.py`).
- `ope`: relative errors of off-policy values of simulated logs whose target value is known (`measurement_ope.py`).
- `drift`: `false_alarm_rate` of drift at 1,000 and at 1,000,000 rows, `detected` drift, and the CPU seconds of
  `monitor` on the twelve months of Complete Journey (`measurement_drift.py`).
- `kills`: 50 kills each of a training, a promotion and a rollback at random moments; `broken_registry` counts those
  after which not exactly one whole champion is served (`measurement_kills.py`). Left out with --quick.
"""

from __future__ import annotations

import common
import measurement_aa
import measurement_drift
import measurement_kills
import measurement_ope
import measurement_oracles
from common import Part

PARTS = {
    "oracles": Part("oracles", lambda _data, _folder: measurement_oracles.oracles(), measurement_oracles.MUSTS),
    "aa": Part("aa", lambda _data, _folder: measurement_aa.aa(), measurement_aa.MUSTS),
    "ope": Part("ope", lambda _data, _folder: measurement_ope.ope(), measurement_ope.MUSTS),
    "drift": Part("drift", lambda _data, folder: measurement_drift.drift(folder), measurement_drift.MUSTS),
    "kills": Part("kills", measurement_kills.measure, measurement_kills.MUSTS),
}
MUSTS = common.musts_of(PARTS)
NOT_QUICK = ("kills",)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(PARTS), help="run this part; may be repeated")
    arguments = parser.parse_args()
    wanted = arguments.only or [name for name in PARTS if not (arguments.quick and name in NOT_QUICK)]
    common.run_parts(PARTS, wanted, arguments.data, arguments.json)


if __name__ == "__main__":
    main()
