"""Words of exports in twelve languages: names of columns, states of orders, behaviours and consents.

Names are written as people write them; they are compared without case, accents, blanks and punctuation.
"""

from __future__ import annotations

# canonical column → names of it, the most certain first
NAMES: dict[str, str] = {
    "order_id": (
        "order id, order no, order number, order nr, order, invoice no, invoice id, invoice number, invoice, "
        "amazon order id, receipt no, receipt id, receipt, basket id, basket, transaction id, checkout id, "
        "charge id, sales doc, sales document, sales record number, document number, Bestellnummer, Bestellnr, "
        "Bestellung, Auftragsnummer, Auftragsnr, Rechnungsnummer, Rechnungsnr, Belegnummer, Belegnr, Bonnummer, "
        "commande, numéro de commande, n° de commande, n° commande, facture, pedido, número de pedido, "
        "nº de pedido, id pedido, número do pedido, nº do pedido, número da venda, n.º de venda, código do pedido, "
        "numer zamówienia, nr zamówienia, id zamówienia, zamówienie, numero ordine, n. ordine, id ordine, ordine, "
        "ordernummer, bestelnummer, bestelling, factuurnummer, номер заказа, № заказа, id заказа, код заказа, "
        "заказ, 订单编号, 订单号, 订单id, 订单, 主订单编号, 小票号, 单号, 訂單編號, 訂單號碼, 訂單, 注文番号, "
        "注文id, 注文no, 受注番号, 伝票番号, 주문번호, 주문id, 주문"
    ),
    "source_user_id": (
        "customer id, customer no, customer number, customer, cust id, cust, user id, user, uid, member id, "
        "member no, member, buyer id, buyer username, buyer, sold to, username, client id, visitor id, "
        "household id, account id, account no, user pseudo id, Kundennummer, Kundennr, Kunden-ID, Kunde, Käufer, "
        "cliente id, id cliente, código do cliente, código cliente, codice cliente, cliente, client, comprador, "
        "acheteur, id klienta, nr klienta, numer klienta, klient, kupujący, klantnummer, klant id, klant, "
        "id клиента, код клиента, номер клиента, клиент, покупатель, 客户编号, 客户号, 客户id, 客户, 用户id, "
        "用户编号, 用户, 会员号, 会员id, 会员编号, 会员, 买家会员名, 买家昵称, 买家id, 买家, 下单帐号, 下单账号, "
        "會員編號, 會員, 客戶編號, 顧客番号, 顧客id, 会員番号, 購入者id, 회원번호, 회원id, 고객번호, 고객id, "
        "구매자id, 회원, 고객, anonymous id, id"
    ),
    "email": (
        "email, email address, buyer email, customer email, mail, correo, correo electrónico, courriel, "
        "adres email, indirizzo email, endereço de email, эл. почта, электронная почта, 邮箱, 电子邮箱, "
        "メールアドレス, 이메일"
    ),
    "item_id": (
        "sku, lineitem sku, sku id, seller sku, item id, item no, item number, item, product id, product code, "
        "product, stock code, article id, article no, article, custom label, material, goods id, goods, asin, ean, "
        "barcode, properties product id, Artikelnummer, Artikelnr, Artikel, code article, référence, réf, produit, "
        "código del producto, código do produto, referencia, producto, produto, artículo, kod produktu, "
        "id produktu, indeks, produkt, codice prodotto, codice articolo, codice, prodotto, articolo, artikelcode, "
        "артикул, код товара, id товара, товар, 宝贝编码, 商品编码, 商品编号, 商品id, 规格编码, 货号, 商家编码, "
        "宝贝id, 条码, 商品, 商品編號, 商品番号, 商品コード, 商品管理番号, 品番, 상품코드, 상품번호, 품번"
    ),
    "item_title": (
        "lineitem name, item name, item title, product name, product title, description, title, Bezeichnung, "
        "Artikelbezeichnung, désignation, libellé, descripción, nombre del producto, nome do produto, "
        "título do anúncio, nazwa produktu, nazwa, descrizione, nome prodotto, omschrijving, productnaam, название, "
        "наименование, 宝贝标题, 商品标题, 商品名称, 商品名稱, 商品名, 상품명"
    ),
    "ts": (
        "timestamp, ts, created at, order date, order time, ordered at, purchase date, invoice date, "
        "transaction date, event timestamp, event time, transaction timestamp, sale date, created date, "
        "date created, created, doc date, datetime, date time, date, event date, time, paid at, Bestelldatum, "
        "Auftragsdatum, Rechnungsdatum, Datum, date de commande, date d'achat, fecha de pedido, fecha del pedido, "
        "fecha de compra, fecha, data da venda, data do pedido, data da compra, data zamówienia, data zakupu, "
        "data ordine, data acquisto, data, orderdatum, besteldatum, дата заказа, дата создания, дата, 创建时间, "
        "订单创建时间, 下单时间, 订单付款时间, 付款时间, 支付时间, 成交时间, 行为时间, 日期, 时间, 下单日期, "
        "訂單日期, 注文日時, 注文日, 受注日時, 受注日, 購入日, 日時, 日付, 주문일시, 주문일자, 주문일, 결제일시, "
        "결제일, 구매일"
    ),
    "quantity": (
        "quantity, lineitem quantity, qty ordered, quantity ordered, quantity purchased, qty, units sold, units, "
        "count, Menge, Anzahl, Stueck, Stück, quantité, qté, cantidad, uds, quantidade, qtd, unidades, ilość, "
        "liczba sztuk, sztuk, quantità, qtà, aantal, количество, кол-во, 数量, 购买数量, 订购数量, 商品数量, "
        "宝贝总数量, 件数, 數量, 個数, 注文数, 주문수량, 수량"
    ),
    "amount": (
        "line total, line amount, row total, item total, lineitem amount, net sales, amount paid, amount, sold for, "
        "sale amount, sales value, total amount, total, paid, net amount, net value, sales, revenue, item price, "
        "value, Gesamtpreis, Betrag, Brutto, Bruttobetrag, Gesamtbetrag, Summe, Umsatz, montant ttc, total ttc, "
        "montant, importe, importe total, receita, valor total, valor, total do pedido, wartość, kwota, suma, "
        "razem, importo, totale, bedrag, totaal, сумма, итого, стоимость, 买家实际支付金额, 用户实付金额, "
        "实际支付金额, 实付金额, 商品实际成交金额, 支付金额, 成交金额, 实收金额, 应付金额, 订单金额, 总金额, "
        "商品总价, 金额, 小计, 實付金額, 合計金額, 購入金額, 小計, 金額, 결제금액, 실결제금액, 주문금액, 금액, "
        "Netto, Nettobetrag, total price, order total, grand total"
    ),
    "unit_price": (
        "unit price, lineitem price, price each, price, item cost, Einzelpreis, Preis, Stueckpreis, Stückpreis, "
        "prix unitaire, prix, precio unitario, precio, preço unitário, valor unitário, preço, cena jednostkowa, "
        "cena, prezzo unitario, prezzo, stukprijs, prijs, цена, 单价, 价格, 商品单价, 京东价, 銷售價, 單價, 単価, "
        "価格, 판매가, 단가"
    ),
    "status": (
        "status, state, order status, financial status, payment status, Bestellstatus, Zahlungsstatus, statut, "
        "état, estado, situação, status zamówienia, stan, stato, статус заказа, статус, 订单状态, 交易状态, 状态, "
        "訂單狀態, 注文ステータス, ステータス, 状態, 주문상태, 상태"
    ),
    "store_id": (
        "store id, store, shop id, branch, Filiale, tienda, magasin, loja, sklep, negozio, winkel, магазин, "
        "门店编号, 门店, 店铺, 店舗, 매장"
    ),
    "channel": "channel, sales channel, Kanal, canal, kanał, canale, kanaal, канал, 渠道, チャネル, 채널",
    "event_type": (
        "event type, event name, event, behaviour, behavior, behavior type, behaviour type, action, 行为类型, 行为, "
        "事件类型, 事件, イベント, 이벤트"
    ),
    "session_id": "session id, session, 会话id, 会话",
    "category": (
        "category id, category, cat, product type, Kategorie, Warengruppe, catégorie, categoría, categoria, "
        "kategoria, categorie, категория, 类目, 品类, 商品类目, 分类, カテゴリ, 카테고리"
    ),
    "brand": "brand, vendor, Marke, Hersteller, marque, marca, marka, merk, бренд, 品牌, ブランド, 브랜드",
    "available": "available, in stock, published, verfuegbar, verfügbar, disponible, 在售, 上架",
    "gender": "gender, sex, Geschlecht, sexe, género, sexo, płeć, genere, geslacht, пол, 性别, 性別, 성별",
    "birth_date": (
        "birth date, birthday, date of birth, dob, born, Geburtsdatum, Geburtstag, date de naissance, "
        "fecha de nacimiento, data de nascimento, data urodzenia, data di nascita, geboortedatum, дата рождения, "
        "生日, 出生日期, 生年月日, 생년월일"
    ),
    "city": (
        "city, town, Stadt, Ort, ville, ciudad, cidade, miasto, città, plaats, город, 城市, 所在城市, 市区町村, 도시"
    ),
    "region": "region, state, province, Bundesland, estado, provincia, województwo, регион, 省份, 省, 都道府県, 지역",
    "registered_at": (
        "registered at, registration date, signup date, joined, customer since, date added, Anmeldedatum, "
        "date d'inscription, fecha de registro, data de cadastro, data rejestracji, data di registrazione, "
        "дата регистрации, 注册时间, 注册日期, 登録日, 가입일"
    ),
    "member_tier": "tier, member tier, level, membership level, 会员等级, 等级, 会員ランク, 회원등급",
    "consent_email": (
        "consent email, email consent, email marketing consent, email opt in, accepts email marketing, "
        "accepts marketing, email subscription status, newsletter"
    ),
    "consent_sms": "consent sms, sms consent, sms marketing consent, sms opt in, accepts sms marketing",
    "consent_push": "consent push, push consent, push opt in",
}
# names that mean something else as the last word of a longer name: `Sort Order`, `Page Count`, `Device ID`
ONLY_WHOLE = (
    "id, uid, cat, order, event, action, item, count, born, level, state, user, created, value, total, sales, paid, "
    "units, title, description, invoice, receipt, basket, name, username, netto, time, data, stan, valor, username, "
    "stock, material, client, cust, product, article"
)
# canonical column → words that say that a longer name is about something else: `Shipping Amount`, `Birth Date`
OTHER_WORDS: dict[str, str] = {
    "order_id": "refund, tracking, shipment, line, item, 物流, 快递, 运单, 退款, 配送",
    "amount": (
        "discount, tax, vat, shipping, refund, refunded, fee, coupon, gift, tip, subtotal, voucher, commission, "
        "balance, credit, converted, count, 优惠, 折扣, 运费, 退款, 税, 积分, 红包, 立减, 余额, 送料, 手数料, 할인, "
        "배송, 환불, 쿠폰"
    ),
    "unit_price": "total, compare, shipping, list, original, old, cost, net, 市场, 原, 운송",
    "ts": (
        "updated, update, modified, delivery, delivered, ship, shipped, shipping, due, birth, expiry, expires, "
        "last, first, cancelled, refund, received, shipment, entrega, envío, envio, consegna, spedizione, "
        "livraison, levering, dostawy, доставки, 发货, 收货, 更新, 退款, 生日, 到期, 完成, 発送, 배송"
    ),
    "quantity": "refund, refunded, returned, stock, shipped, cancelled, 库存, 退, 在庫, 재고, 취소",
    "status": "marital, tax, employment, item, shipping, fulfillment, 退款, 售后",
    "item_id": "order, payment, transaction",
    "source_user_id": "group, type, name, nome, nombre, nom, naam, nazwa, имя, 姓名, 名称",
}
# canonical status or event type → values that mean it
STATUSES: dict[str, str] = {
    "refunded": (
        "refunded, refund, returned, return, erstattet, retourniert, Retoure, remboursé, remboursée, reembolsado, "
        "devuelto, zwrócone, zwrot, rimborsato, terugbetaald, возврат, возвращен, 已退款, 退款成功, 全额退款, 退货, "
        "返品, 返金済, 환불완료, 반품완료"
    ),
    "cancelled": (
        "cancelled, canceled, voided, void, expired, failed, declined, unpaid, storniert, annulé, annulée, "
        "cancelado, cancelada, anulowane, anulowano, annullato, geannuleerd, отменен, отменён, 交易关闭, 交易取消, "
        "已取消, 已关闭, 待付款, 未付款, キャンセル, 取消, 취소완료, 주문취소"
    ),
    "paid": (
        "paid, completed, complete, shipped, delivered, authorized, processing, partially_refunded, sale, payment, "
        "bezahlt, versendet, abgeschlossen, payé, payée, expédié, livré, livrée, terminée, pagado, entregado, "
        "enviado, pago, entregue, opłacone, zapłacone, zrealizowane, wysłane, pagato, spedito, consegnato, betaald, "
        "verzonden, оплачен, доставлен, выполнен, 交易成功, 交易完成, 已付款, 已发货, 已收货, 已完成, 完成, "
        "买家已付款，等待卖家发货, 卖家部分发货, 卖家已发货，等待买家确认, 已发货，待签收, 発送済, 入金済, "
        "결제완료, 배송완료, 구매확정"
    ),
}
# the same in a column that tells what kind of booking a row is
BOOKINGS: dict[str, str] = {**STATUSES, "paid": STATUSES["paid"] + ", order, purchase, charge"}
BEHAVIOURS: dict[str, str] = {
    "view": "pv, view, click, visit, page view, view item, product viewed, viewed product, 浏览, 点击",
    "cart": "cart, add to cart, product added, added to cart, 加购, 加购物车",
    "favourite": "fav, favourite, favorite, wishlist, add to wishlist, 收藏",
    "purchase": "buy, purchase, transaction, order, order completed, placed order, 购买, 下单",
}
CONSENTS: dict[str, str] = {
    "true": "true, yes, y, t, 1, subscribed, opted in, granted, confirmed, ja, oui, sí, sim, tak, да, 是, はい, 예",
    "false": (
        "false, no, n, f, 0, unsubscribed, never subscribed, not subscribed, opted out, denied, nein, non, não, "
        "nie, nee, нет, 否, いいえ, 아니요"
    ),
}
# pattern of column names → time zone that they suggest, the first that matches
ZONES: dict[str, str] = {
    r"[\u3040-\u30ff]|注文|顧客|受注": "Asia/Tokyo",
    r"[\uac00-\ud7af]": "Asia/Seoul",
    r"訂單|會員|數量": "Asia/Taipei",
    r"[\u4e00-\u9fff]": "Asia/Shanghai",
    r"Bestell|Kunde|Betrag|Menge": "Europe/Berlin",
    r"Zamówieni|Ilość|Klient\b": "Europe/Warsaw",
    r"Commande|Montant|Quantité": "Europe/Paris",
    r"Ordine|Quantità|Importo": "Europe/Rome",
    r"Заказ|Клиент|Сумма": "Europe/Moscow",
}
