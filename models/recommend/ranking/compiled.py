"""The C extensions of the ranker, for the few rows of a request.

The installation builds them. Code that was copied to another platform goes without: XGBoost and NumPy then compute the
same, to the last bit, in more time, and `serve` logs it.
"""

try:
    from models.recommend.ranking import _features, _histories, _trees
except ImportError:
    COMPILED = False
else:
    COMPILED = True

__all__ = ["COMPILED", "_features", "_histories", "_trees"]
