"""The purchase process: when each customer orders next, given the orders so far and the silence since the last one."""

from features.profiles.purchase_process.fitting import fit_process, process_of
from features.profiles.purchase_process.order_times import OrderTimes, read_order_times
from features.profiles.purchase_process.process import PROCESS_FEATURES, PurchaseProcess

__all__ = ["PROCESS_FEATURES", "OrderTimes", "PurchaseProcess", "fit_process", "process_of", "read_order_times"]
