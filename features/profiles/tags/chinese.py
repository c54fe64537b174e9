"""Chinese names, meanings and values of the built-in tags: the one place where they are written.

Tags of an industry pack have theirs in the pack (`zh` of a tag). A test holds both complete: every declared tag and
every value of a closed list of values has its Chinese words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qianmian.schema import WEEKDAYS

CATEGORIES_ZH = {
    "basic": "基础属性",
    "behaviour": "行为",
    "transaction": "交易",
    "interest": "兴趣偏好",
    "lifecycle": "生命周期",
}
VERDICTS_ZH = {"borne_out": "属实", "not_borne_out": "未证实", "contradicted": "相反", "too_few": "样本不足"}
YES_NO_ZH = {True: "是", False: "否"}


@dataclass(frozen=True)
class ChineseTag:
    """The Chinese words of a tag.

    Attributes
    ----------
    name, description : str
        Its short name, and what it means.
    values : mapping of str to str
        Value → its Chinese name; values that are open text or numbers have none.
    """

    name: str
    description: str
    values: Mapping[str, str] = field(default_factory=dict)

    def value(self, value: object) -> str | None:
        """The Chinese name of a value: 是 and 否 for booleans; None for a value without one."""
        return YES_NO_ZH[value] if isinstance(value, bool) else self.values.get(str(value))


WEEKDAYS_ZH = dict(zip(WEEKDAYS, ("周一", "周二", "周三", "周四", "周五", "周六", "周日"), strict=True))
SLOTS_ZH = {"night": "凌晨", "morning": "上午", "midday": "中午", "afternoon": "下午", "evening": "晚上"}
DAY_PARTS_ZH = {"night": "凌晨", "morning": "上午", "afternoon": "下午", "evening": "晚上"}
LEVELS_ZH = {"none": "无", "light": "轻度", "regular": "中度", "heavy": "重度"}
TRENDS_ZH = {"rising": "上升", "steady": "平稳", "falling": "下降"}
AFFINITY_ZH = {"weak": "弱", "moderate": "中", "strong": "强"}
STAGES_ZH = {
    "prospect": "潜在客户",
    "new": "新客",
    "active": "活跃客户",
    "loyal": "忠诚客户",
    "at_risk": "流失预警",
    "asleep": "沉睡客户",
    "lost": "流失客户",
}
THIRDS_ZH = {"low": "低", "middle": "中", "high": "高"}

# fmt: off
CHINESE: dict[str, ChineseTag] = {
    "gender": ChineseTag("性别", "来源系统记录的性别", {"female": "女", "male": "男", "unknown": "未知"}),
    "age_band": ChineseTag("年龄段", "来源系统记录的年龄段"),
    "income_band": ChineseTag("收入段", "来源系统记录的收入段"),
    "region": ChineseTag("地区", "来源系统记录的地区"),
    "city": ChineseTag("城市", "来源系统记录的城市"),
    "member_tier": ChineseTag("会员等级", "来源系统记录的会员等级"),
    "first_visit_source": ChineseTag("首访来源", "首次访问从哪里来：优先取引荐来源，没有则取访问渠道"),
    "acquisition_channel": ChineseTag("获客渠道", "首单所在的渠道"),
    "membership": ChineseTag("入会时长", "注册 30 天以内、一年以内，还是一年以上", {"new": "新会员", "under_a_year": "入会不满一年", "over_a_year": "入会一年以上"}),
    "consent_email": ChineseTag("邮件触达许可", "是否同意通过邮件联系，以最近一次告知为准"),
    "consent_sms": ChineseTag("短信触达许可", "是否同意通过短信联系，以最近一次告知为准"),
    "consent_push": ChineseTag("推送触达许可", "是否同意通过推送消息联系，以最近一次告知为准"),
    "active_hours": ChineseTag("下单时段", "下单最多的时段，按工作区时区计算", DAY_PARTS_ZH),
    "browsing_hours": ChineseTag("浏览时段", "近 91 天行为最多的时段，按工作区时区计算", DAY_PARTS_ZH),
    "favourite_weekday": ChineseTag("偏好下单日", "一周里下单最多的一天", WEEKDAYS_ZH),
    "behaviour_cluster": ChineseTag("行为分群", "行为相近的客户群，用固定编号表示；名称见预测结果"),
    "best_channel": ChineseTag("最佳触达渠道", "客户响应最多的渠道，不含客户拒绝的渠道"),
    "best_contact_time": ChineseTag("最佳触达时间", "客户响应最多的星期与时段，按工作区时区", {f"{day}_{slot}": f"{day_zh}{slot_zh}" for day, day_zh in WEEKDAYS_ZH.items() for slot, slot_zh in SLOTS_ZH.items()}),
    "weekend_shopper": ChineseTag("周末购物型", "至少一半的订单在周末下单"),
    "preferred_channel": ChineseTag("偏好下单渠道", "下单最多的渠道"),
    "preferred_visit_channel": ChineseTag("偏好访问渠道", "近 28 天行为最多的渠道"),
    "preferred_device": ChineseTag("常用设备", "近 28 天使用最多的设备"),
    "browsing": ChineseTag("浏览活跃度", "近 28 天的行为次数：无、轻度（1–4 次）、中度（5–49 次）、重度（50 次及以上）", LEVELS_ZH),
    "visit_frequency": ChineseTag("访问频率", "近 28 天有行为的天数：未访问、偶尔（1–3 天）、每周都来（4–19 天）、几乎每天（20 天及以上）", {"none": "未访问", "seldom": "偶尔", "weekly": "每周都来", "daily": "几乎每天"}),
    "session_depth": ChineseTag("访问深度", "近 91 天平均每次访问的行为数：浅（不到 3 个）、中（不到 10 个）、深", {"glance": "浅", "browse": "中", "deep": "深"}),
    "abandoned_cart": ChineseTag("加购未买", "近 14 天加购过，之后没有下单"),
    "funnel_stop": ChineseTag("漏斗阶段", "近 91 天走到哪一步：只浏览、已加购、已购买", {"looks": "只浏览", "fills_cart": "已加购", "buys": "已购买"}),
    "coupon_redeemer": ChineseTag("核销过优惠券", "近 91 天核销过优惠券"),
    "message_response": ChineseTag("触达响应", "近 91 天收到触达后的反应：点击、打开、无反应", {"clicks": "点击", "opens": "打开", "ignores": "无反应"}),
    "contact_pressure": ChineseTag("触达强度", "近 28 天的触达次数：无、少（1–2 次）、正常（3–8 次）、过多", {"none": "无", "light": "少", "normal": "正常", "heavy": "过多"}),
    "value_tier": ChineseTag("价值分层", "按近 365 天消费金额把客户三等分", THIRDS_ZH),
    "rfm_tier": ChineseTag("RFM 等级", "近 365 天的最近一次消费、消费频次、消费金额各分五档，三项得分相加", {"bottom": "最低", "low": "较低", "middle": "中等", "high": "较高", "top": "最高"}),
    "rfm_segment": ChineseTag(
        "RFM 分群", "最近一次消费（R）、消费频次（F）、消费金额（M）各与购买客户的中位数比较，分成八类：M 高为“重要”、低为“一般”，R、F 都高为“价值”、只有 R 高为“发展”、只有 F 高为“保持”、都低为“挽留”",
        {
            "important_value": "重要价值客户", "important_develop": "重要发展客户", "important_keep": "重要保持客户", "important_win_back": "重要挽留客户",
            "general_value": "一般价值客户", "general_develop": "一般发展客户", "general_keep": "一般保持客户", "general_win_back": "一般挽留客户",
        },
    ),
    "price_band": ChineseTag("价格带", "按所购商品的平均价格水平（在各自品类里算贵还是便宜）把客户三等分；至少 20 行商品，靠近分界的不下结论", {"budget": "平价", "middle": "中端", "premium": "高端"}),
    "basket_size": ChineseTag("购物篮大小", "按平均每单的商品行数把客户三等分", {"small": "小", "middle": "中", "large": "大"}),
    "demand_type": ChineseTag("需求类型", "与全体客户相比，最能打动这位客户的是什么：价格（折扣商品占比）、品质（所购商品在品类里的价格水平）还是内容（内容行为占比）；至少 20 行商品", {"price_driven": "价格驱动", "quality_driven": "品质驱动", "content_driven": "内容驱动", "balanced": "均衡"}),
    "expected_demand_type": ChineseTag("预期需求类型", "购买还少的客户，按首批访问所看的内容预计最能打动他的是什么", {"price_driven": "价格驱动", "quality_driven": "品质驱动", "content_driven": "内容驱动", "balanced": "均衡"}),
    "discount_seeker": ChineseTag("折扣敏感", "近 91 天购买的商品行中，打折的超过 60%"),
    "coupon_user": ChineseTag("用券习惯", "近 91 天的订单用券情况：从不、有时、多数（一半及以上）", {"never": "从不用券", "sometimes": "有时用券", "mostly": "多数用券"}),
    "trading": ChineseTag("消费升降级", "近 56 天所购商品的价格水平与此前相比：升级、持平、降级；偶然波动算持平", {"up": "消费升级", "steady": "持平", "down": "消费降级"}),
    "purchase_cycle_days": ChineseTag("购买周期（天）", "相邻两单的平均间隔天数"),
    "purchase_cycle": ChineseTag("购买周期", "相邻两单的平均间隔：每周（10 天以内）、双周（20 天以内）、每月（45 天以内）、每季（120 天以内）、更久", {"weekly": "每周", "fortnightly": "双周", "monthly": "每月", "quarterly": "每季", "rarely": "更久"}),
    "purchase_regularity": ChineseTag("购买规律性", "下单间隔的波动与平均间隔之比：规律（不到 0.5）、不太规律（不到 1）、集中购买；至少四单", {"regular": "规律", "uneven": "不太规律", "bursts": "集中购买"}),
    "average_order_value": ChineseTag("客单价", "平均每单金额"),
    "refund_prone": ChineseTag("高退款倾向", "近 91 天的退款超过实付金额的 10%"),
    "store_loyalty": ChineseTag("门店忠诚度", "最常去门店的订单占比：多店、主要一店（一半以上）、只去一店（80% 以上）；至少三单", {"roaming": "多店", "main_store": "主要一店", "one_store": "只去一店"}),
    "favourite_store": ChineseTag("常去门店", "下单最多的门店"),
    "favourite_category": ChineseTag("偏好品类", "购买最多的一级品类"),
    "recent_category": ChineseTag("近期品类", "近 91 天购买最多的一级品类"),
    "entry_need": ChineseTag("初始需求", "客户最初为什么而来：首次购买的品类，没有购买则取首次行为的品类"),
    "category_affinity": ChineseTag("品类集中度", "偏好品类占全部商品行的比例：弱、中（40% 以上）、强（60% 以上）", AFFINITY_ZH),
    "favourite_brand": ChineseTag("偏好品牌", "购买最多的品牌"),
    "brand_affinity": ChineseTag("品牌忠诚度", "偏好品牌占全部商品行的比例：弱、中（40% 以上）、强（60% 以上）", AFFINITY_ZH),
    "favourite_item": ChineseTag("最常买的商品", "购买次数最多的商品"),
    "repertoire": ChineseTag("复购还是尝新", "平均每个商品买过几次：爱尝新（不到 1.3 次）、两者兼有、爱复购（2.5 次及以上）", {"explores": "爱尝新", "mixes": "两者兼有", "repeats": "爱复购"}),
    "variety": ChineseTag("品类丰富度", "购买分散在多少品类", {"focused": "集中", "mixed": "适中", "wide": "广泛"}),
    "browsed_category": ChineseTag("近期关注品类", "近 28 天行为最多的一级品类"),
    "favourite_topic": ChineseTag("偏好话题", "近 91 天停留最久的话题，没有停留时长则取次数最多的话题"),
    "topic_dwell_seconds": ChineseTag("话题停留秒数", "近 91 天在偏好话题上的停留时长（秒）"),
    "content_reader": ChineseTag("内容阅读量", "近 28 天接触内容的次数：无、轻度（1–3 次）、中度（4–19 次）、重度（20 次及以上）", LEVELS_ZH),
    "lifecycle_stage": ChineseTag("生命周期阶段", "潜在、新客（首单在近 30 天），其余按客户在回购期（本店典型下单间隔的四倍）内再次下单的概率划分：60% 以上为忠诚（一年满 10 单）或活跃，40% 以上为流失预警，25% 以上为沉睡，再低为流失", STAGES_ZH),
    "previous_lifecycle_stage": ChineseTag("上次生命周期阶段", "上一次（更早日期）发布的画像中的生命周期阶段", STAGES_ZH),
    "buyer_stage": ChineseTag("购买阶段", "按订单数划分：未购买、首购、复购、忠诚", {"prospect": "未购买", "first_time": "首购客户", "repeat": "复购客户", "loyal": "忠诚客户"}),
    "days_since_last_order": ChineseTag("距上次下单天数", "距离上一次下单的天数"),
    "days_to_next_order": ChineseTag("预计下次下单天数", "按客户自己的节奏和目前的沉默时长，预计还有多少天再次下单（中位数）"),
    "next_order_date": ChineseTag("预计下次下单日期", "预计再次下单的日期（中位数）"),
    "next_order_earliest": ChineseTag("下次下单最早日期", "在此日期之前再次下单的概率为 10%"),
    "next_order_latest": ChineseTag("下次下单最晚日期", "在此日期之前再次下单的概率为 90%"),
    "replenishment": ChineseTag("复购时机", "该买了（预计在本店一个典型下单间隔内下单）、未到、已逾期（预计更晚下单，且沉默超过自己两个间隔）、已错过（回购期内不太可能再下单）", {"not_yet": "未到", "due": "该买了", "overdue": "已逾期", "missed": "已错过"}),
    "reactivated": ChineseTag("沉睡唤醒", "沉默了自己的四个下单间隔之后，最近又下单"),
    "spending_trend": ChineseTag("消费趋势", "近 28 天与之前 28 天的消费金额相比，变化超过两成才算升降", TRENDS_ZH),
    "engagement_trend": ChineseTag("互动趋势", "近 7 天与之前 7 天的行为次数相比，变化超过两成才算升降", TRENDS_ZH),
    "points_expiring": ChineseTag("积分将到期", "有积分将在 30 天内过期"),
    "falling_asleep_reason": ChineseTag("沉睡原因", "客户为什么沉睡，看最后一单到沉默超出平常之间发生了什么：没有触达、触达不相关、没有兴趣", {"no_offer": "没有触达", "irrelevant_pushes": "触达不相关", "no_interest": "没有兴趣"}),
    "predicted_orders": ChineseTag("预计订单数", "价值模型预计客户在预测期内的下单次数，只对下过单的客户"),
    "predicted_clv": ChineseTag("预计消费金额", "价值模型预计客户在预测期内的消费金额（客户终身价值），只对下过单的客户"),
    "left_risk": ChineseTag("离开风险", "客户已经离开的风险等级：在自己平均下单间隔的四倍（至少 84 天）内不再下单", {"low": "低", "medium": "中", "high": "高"}),
    "uplift_decile": ChineseTag("增益分位", "按营销触达预计带来的变化把客户分成十份，1 为增益最大"),
    "churn_risk": ChineseTag("流失风险", "流失模型给出的风险等级，只对模型适用的客户", {"low": "低", "medium": "中", "high": "高"}),
}
# fmt: on
