"""The purchase process: when each customer orders next, given the orders so far and the silence since the last one."""
