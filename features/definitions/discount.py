"""Use of discounts and coupons."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature

# fmt: off
FEATURES = (
    Feature("discount_91d", "orders", "sum", "discount", window_days=91, unit="currency", description="retailer discount in the last 91 days"),
    Feature("coupon_discount_91d", "orders", "sum", "coupon_discount", window_days=91, unit="currency", description="coupon discount in the last 91 days"),
    Feature("discount_rate_91d", "orders", "ratio", "discount", over="full_amount", window_days=91, unit="0..1", description="retailer discount ÷ (paid + discounts), last 91 days"),
    Feature("discount_rate", "orders", "ratio", "discount", over="full_amount", unit="0..1", description="retailer discount ÷ (paid + discounts), ever"),
    Feature("discounted_line_share_91d", "lines", "share", where=(Condition("discount", ">", 0),), window_days=91, unit="0..1", description="share of lines bought with a discount, last 91 days"),
    Feature("coupon_order_share", "orders", "share", where=(Condition("coupon_discount", ">", 0),), unit="0..1", description="share of orders with a coupon"),
    Feature("coupon_orders_182d", "orders", "count", where=(Condition("coupon_discount", ">", 0),), window_days=182, unit="orders", description="orders with a coupon in the last 182 days"),
    Feature("discount_rate_28d", "orders", "ratio", "discount", over="full_amount", window_days=28, unit="0..1", description="retailer discount ÷ (paid + discounts), last 28 days"),
    Feature("discount_rate_182d", "orders", "ratio", "discount", over="full_amount", window_days=182, unit="0..1", description="retailer discount ÷ (paid + discounts), last 182 days"),
    Feature("coupon_rate_91d", "orders", "ratio", "coupon_discount", over="full_amount", window_days=91, unit="0..1", description="coupon discount ÷ (paid + discounts), last 91 days"),
    Feature("discounted_line_share_28d", "lines", "share", where=(Condition("discount", ">", 0),), window_days=28, unit="0..1", description="share of lines bought with a discount, last 28 days"),
    Feature("discounted_line_share_182d", "lines", "share", where=(Condition("discount", ">", 0),), window_days=182, unit="0..1", description="share of lines bought with a discount, last 182 days"),
    Feature("coupon_order_share_91d", "orders", "share", where=(Condition("coupon_discount", ">", 0),), window_days=91, unit="0..1", description="share of orders with a coupon, last 91 days"),
)
# fmt: on
