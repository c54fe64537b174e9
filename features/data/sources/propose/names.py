"""Names that exports give to the canonical columns, in English, German, French, Spanish and Chinese.

A name is compared without case, blanks and punctuation: `Order ID`, `order_id` and `orderId` are `orderid`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# canonical column → names of it, the most certain first
NAMES: dict[str, str] = {
    "order_id": (
        "orderid, orderno, ordernumber, ordernr, order, invoiceno, invoiceid, invoicenumber, invoice, "
        "amazonorderid, receiptno, receiptid, receipt, basketid, basket, transactionid, bestellnummer, "
        "bestellnr, bestellung, auftragsnummer, auftragsnr, rechnungsnummer, rechnungsnr, belegnummer, "
        "belegnr, bonnummer, commande, numerodecommande, pedido, numerodepedido, 订单编号, 订单号, "
        "订单id, 订单, 主订单编号, 小票号, 单号"
    ),
    "source_user_id": (
        "customerid, customerno, customernumber, customer, custid, cust, userid, user, uid, memberid, "
        "memberno, member, buyerid, buyer, clientid, visitorid, householdid, kundennummer, kundennr, "
        "kundenid, kunde, clienteid, cliente, client, 客户编号, 客户号, 客户id, 客户, 用户id, 用户编号, "
        "用户, 会员号, 会员id, 会员编号, 会员, 买家会员名, 买家昵称, 买家id, 买家, id"
    ),
    "email": "email, emailaddress, buyeremail, customeremail, mail, correo, courriel, 邮箱, 电子邮箱",
    "item_id": (
        "sku, lineitemsku, skuid, itemid, itemno, itemnumber, item, productid, productcode, product, "
        "stockcode, articleid, articleno, article, asin, ean, barcode, artikelnummer, artikelnr, "
        "artikel, produit, producto, articulo, 宝贝编码, 商品编码, 商品编号, 商品id, 商品, 货号, "
        "商家编码, 宝贝id, 条码"
    ),
    "item_title": (
        "lineitemname, itemname, itemtitle, productname, producttitle, description, bezeichnung, "
        "artikelbezeichnung, 宝贝标题, 商品标题, 商品名称"
    ),
    "ts": (
        "timestamp, ts, createdat, orderdate, ordertime, orderedat, purchasedate, invoicedate, "
        "transactiondate, eventtime, transactiontimestamp, datetime, date, time, paidat, bestelldatum, "
        "auftragsdatum, rechnungsdatum, datum, fecha, 创建时间, 订单创建时间, 下单时间, 订单付款时间, "
        "付款时间, 成交时间, 行为时间, 日期, 时间, 下单日期"
    ),
    "quantity": (
        "quantity, lineitemquantity, qty, units, count, menge, anzahl, stueck, stück, quantite, "
        "quantité, cantidad, 数量, 购买数量, 宝贝总数量, 件数"
    ),
    "amount": (
        "amount, linetotal, lineamount, total, paid, netamount, salesvalue, sales, revenue, itemprice, "
        "betrag, summe, umsatz, gesamtpreis, montant, importe, 实付金额, 买家实际支付金额, 实际支付金额, "
        "支付金额, 金额, 总金额, 成交金额"
    ),
    "unit_price": (
        "unitprice, lineitemprice, price, einzelpreis, preis, stueckpreis, stückpreis, prix, precio, "
        "单价, 价格, 商品单价"
    ),
    "status": "status, state, orderstatus, financialstatus, bestellstatus, 订单状态, 交易状态, 状态",
    "store_id": "storeid, store, shopid, branch, filiale, tienda, magasin, 门店编号, 门店, 店铺",
    "channel": "channel, saleschannel, kanal, 渠道",
    "event_type": (
        "eventtype, event, behaviour, behavior, behaviortype, behaviourtype, action, 行为类型, 行为, 事件类型, 事件"
    ),
    "session_id": "sessionid, session, 会话id, 会话",
    "category": (
        "categoryid, category, cat, producttype, kategorie, warengruppe, categorie, categoria, "
        "类目, 品类, 商品类目, 分类"
    ),
    "brand": "brand, vendor, marke, hersteller, marque, marca, 品牌",
    "available": "available, instock, published, verfuegbar, verfügbar, 在售, 上架",
    "gender": "gender, sex, geschlecht, sexe, genero, 性别",
    "birth_date": "birthdate, birthday, dateofbirth, dob, born, geburtsdatum, geburtstag, 生日, 出生日期",
    "city": "city, town, stadt, ort, ville, ciudad, 城市, 所在城市",
    "region": "region, state, province, bundesland, 省份, 省",
    "registered_at": (
        "registeredat, registrationdate, signupdate, joined, customersince, anmeldedatum, 注册时间, 注册日期"
    ),
    "member_tier": "tier, membertier, level, membershiplevel, 会员等级, 等级",
    "consent_email": "consentemail, emailoptin, acceptsmarketing, newsletter",
}
# canonical status or event type → values that mean it
STATUSES: dict[str, str] = {
    "refunded": "refunded, refund, returned, erstattet, retourniert, 已退款, 退款成功, 退货",
    "cancelled": "cancelled, canceled, voided, void, expired, storniert, 交易关闭, 交易取消, 已取消, 已关闭",
    "paid": (
        "paid, completed, complete, shipped, delivered, authorized, processing, partially_refunded, "
        "bezahlt, versendet, 交易成功, 已付款, 已发货, 已完成, 买家已付款，等待卖家发货, 卖家部分发货, "
        "卖家已发货，等待买家确认"
    ),
}
BEHAVIOURS: dict[str, str] = {
    "view": "pv, view, click, visit, pageview, 浏览, 点击",
    "cart": "cart, addtocart, add_to_cart, 加购, 加购物车",
    "favourite": "fav, favourite, favorite, wishlist, 收藏",
    "purchase": "buy, purchase, transaction, order, 购买, 下单",
}


def plain(name: str) -> str:
    """A column name without case, blanks and punctuation.

    Examples
    --------
    >>> plain("Order-ID "), plain("订单 编号")
    ('orderid', '订单编号')
    """
    return re.sub(r"[\W_]+", "", name.lower())


def rank_of(column: str, name: str) -> int | None:
    """Place of a name among those of a canonical column, 0 for the most certain; None if it is none of them.

    Examples
    --------
    >>> rank_of("order_id", "Order ID"), rank_of("order_id", "Colour")
    (0, None)
    """
    names = NAMES[column].split(", ")
    return names.index(plain(name)) if plain(name) in names else None


def canonical_of(value: str, words: Mapping[str, str]) -> str | None:
    """The canonical value that a value of the file means, None if it is not known.

    Examples
    --------
    >>> canonical_of("交易关闭", STATUSES), canonical_of("PV", BEHAVIOURS)
    ('cancelled', 'view')
    """
    return next((canonical for canonical, known in words.items() if value.strip().lower() in known.split(", ")), None)
