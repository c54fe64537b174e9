"""Which column names indicate personal data, in the languages that exports come in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# Each entry is a word of a name ("Mobile Phone", "phone_no", "telefonNr"), without accents.
_WORDS: Mapping[str, str] = {
    "phone": "phone telephone mobile tel msisdn cellphone phonenumber whatsapp fax handy handynr handynummer mobil "
    "mobilnr mobilnummer mobiltelefon rufnummer telefon telefonnr telefonnummer portable telefono movil celular "
    "cellulare telefone telemovel telefoon telefoonnummer mobiel gsm komorka puhelin matkapuhelin telnr",
    "email": "email mail emailaddress mailadresse emailadresse emailadres courriel correo correoelectronico "
    "epost epostadress emailid",
    "address": "address street addr streetname housenumber adresse anschrift strasse str hausnummer hausnr "
    "lieferadresse rechnungsadresse postanschrift rue calle direccion domicilio indirizzo endereco rua logradouro "
    "adres straat straatnaam huisnummer ulica adress gatuadress osoite",
    "name": "surname forename firstname lastname fullname givenname familyname nickname maiden vorname vornamen "
    "nachname nachnamen zuname familienname geburtsname rufname kundenname prenom prenoms apellido apellidos cognome "
    "sobrenome apelido voornaam achternaam tussenvoegsel imie nazwisko fornamn efternamn fornavn etternavn efternavn "
    "etunimi sukunimi soyad soyadi spitzname nick empfaenger empfanger consignee recipient",
    "document": "ssn passport iban nationalid idcard socsecid taxid ausweisnummer ausweis personalausweis reisepass "
    "steuernummer steuerid svnummer sozialversicherungsnummer nif curp cpf cnpj cedula pasaporte passeport "
    "codicefiscale bsn pesel personnummer fodselsnummer cpr kontonummer bankkonto",
    "login": "wechat weixin wechatid qq qqid lineid telegram kakaotalk instagram facebookid skype",
    "card": "kreditkarte kreditkartennummer kartennummer creditcard cardnumber tarjeta",
}
# Parts of compound words of at least this many letters: "Kundentelefonnummer", "Rechnungsanschrift".
_STEMS: Mapping[str, str] = {
    "email": "emailadres mailadres",
    "phone": "telefon telephon telefoon handynummer mobilnummer mobilfunk",
    "address": "strasse anschrift adresse",
    "name": "vorname nachname familienname prenom apellido cognome achternaam voornaam",
}
_PHRASES: Mapping[str, tuple[str, ...]] = {
    "name": (
        *("name", "first name", "last name", "given name", "family name", "full name", "middle name", "customer name"),
        *("contact name", "contact person", "consignee name", "recipient name", "shipping name", "billing name"),
        *("name des kunden", "kunde name", "name kunde", "ansprechpartner", "nom", "nom client", "nom du client"),
        *("nom de famille", "nom complet", "nom et prenom", "nombre", "nombres", "nombre completo", "nombre cliente"),
        *("nombre del cliente", "nombre y apellidos", "primer nombre", "segundo nombre", "nome", "nome cliente"),
        *("nome completo", "nome do cliente", "nome del cliente", "ragione sociale", "naam", "klantnaam", "namn"),
        *("navn", "isim", "ad soyad", "wangwang"),
    ),
    "login": ("user name", "username", "login", "benutzername", "nutzername"),
    "card": (
        *("card", "card number", "card no", "credit card", "loyalty card", "member card", "numero carte"),
        *("carte de credit", "numero tarjeta", "numero de tarjeta"),
    ),
    "document": (
        *(
            "soc sec id",
            "steuer id",
            "id card",
            "national id",
            "tax id",
            "passport no",
            "passport number",
            "codice fiscale",
        ),
        *("numero documento", "numero de documento", "dni", "nie", "securite sociale"),
    ),
    "address": ("house number", "via", "adresse ligne", "street number", "shipping address", "billing address"),
    "phone": ("contact number", "contact no", "numero contacto"),
}
# Characters of scripts without blanks between words; the longer ones first.
_CHARACTERS: Mapping[str, str] = {
    "phone": "手机 手機 电话 電話 联系方式 聯繫方式 联系号码 携帯 ケータイ 휴대폰 휴대전화 전화 телефон мобильн",
    "email": "邮箱 邮件 郵箱 電子郵件 メール 이메일 почта",
    "name": "姓名 名字 收货人 收貨人 收件人 联系人 聯絡人 昵称 暱稱 真名 称呼 氏名 名前 이름 성명 수령인 "
    "имя фамилия отчество фио",
    "address": "地址 住址 收货地 详细地 街道 住所 番地 주소 адрес улица",
    "document": "身份证 身份證 证件号 護照 护照 银行卡 银行账 社保号 车牌 マイナンバー 주민등록 паспорт снилс",
    "login": "微信 旺旺 支付宝 用户名 会员名 qq号 qq號 ユーザー名 아이디",
}
# A column such as "email_opt_in", "phone_model" or "nombre_pedidos" does not identify a person.
_IMPERSONAL = (
    "opt in optin out consent domain verified model type count has is os brand status valid bounced "
    "subscribed at date time language channel open opened click clicked rate days device provider operator "
    "carrier amount total orders permission allowed flag preference app web einwilligung zustimmung erlaubt "
    "typ art anzahl anz marke modell datum sprache kanal gueltig ja nein consentement accord marque modele "
    "consentimiento permiso marca modelo tipo fecha cantidad consenso pedidos compras toestemming merk "
)
_IMPERSONAL_WORDS = frozenset(_IMPERSONAL.split())
_IMPERSONAL_CHARACTERS = (
    *("品牌", "型号", "型號", "是否", "订阅", "訂閱", "同意", "数量", "次数", "渠道", "类型", "状态", "关注", "金额"),
    *("时间", "日期", "验证", "运营商", "许可", "有无", "机型", "系统", "ブランド", "機種", "有無", "許可"),
    *("同意", "日時", "согласие", "модель", "동의", "기종", "여부"),
)
# Functions that leave a name or an address readable (others may cut, count or hash it); the last four enclose every
# expression. Where one of the keywords occurs, a text is compared.
_KEEPING_FUNCTIONS = frozenset(
    {"trim", "ltrim", "rtrim", "lower", "upper", "concat", "concat_ws", "coalesce", "nullif", "replace", "translate"}
    | {"regexp_replace", "strip_accents", "nfc_normalize", "cast", "struct_extract", "try", "list_transform"}
    | {"struct_pack"}
)
_OTHER_KEYWORDS = frozenset({"is", "not", "and", "or", "case", "like", "ilike", "in", "between"})
_GERMAN = str.maketrans({"ß": "ss", "ø": "o", "æ": "ae", "ł": "l", "đ": "d", "ı": "i"})


def spelled(name: str) -> str:
    """The words of a column name in lower case without accents, separated by one blank.

    Examples
    --------
    >>> [spelled(name) for name in ("Mobile Phone", "e_mail", "givenName", "Straße", "téléphone", "QQ号", "IBAN2")]
    ['mobile phone', 'email', 'given name', 'strasse', 'telephone', 'qq号', 'iban']
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).lower().translate(_GERMAN)
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    plain = unicodedata.normalize("NFC", plain)
    plain = re.sub(r"\be[-_ ]mail", "email", plain.replace("_", " "))
    return " ".join(re.findall(r"[^\W\d_]+", plain))


def personal_data_type(name: str) -> str | None:
    """Type of personal data that a column name indicates; None if it indicates none.

    Examples
    --------
    >>> [personal_data_type(name) for name in ("Mobile Phone", "e_mail", "givenName", "consent_email", "city")]
    ['phone', 'email', 'name', None, None]
    >>> [personal_data_type(name) for name in ("Straße", "Prénom", "收货人", "微信号", "Ort", "nombre_pedidos")]
    ['address', 'name', 'name', 'login', None, None]
    """
    text = spelled(name)
    words = text.split()
    if _IMPERSONAL_WORDS.intersection(words) or any(part in text for part in _IMPERSONAL_PARTS):
        return None
    if (phrase := _PHRASE_TYPES.get(text)) is not None:
        return phrase
    for kind, characters in _CHARACTER_LISTS.items():
        if any(part in text for part in characters):
            return kind
    for kind, known in _WORD_SETS.items():
        if known.intersection(words):
            return kind
    for kind, stems in _STEM_LISTS.items():
        if any(stem in word for stem in stems for word in words):
            return kind
    return None


def type_of_columns(expression: str) -> str | None:
    """Type of personal data that the columns of a mapped expression indicate; None if it does not keep their text.

    Parameters
    ----------
    expression : str
        SQL that a source maps.

    Examples
    --------
    >>> [type_of_columns(sql) for sql in ('"住所"', 'trim("Billing Name")', 'sha256("Email")', 'Phone IS NULL')]
    ['address', 'name', None, None]
    """
    bare = re.sub(r"'(?:[^']|'')*'", "", expression)
    tokens = re.findall(r'"((?:[^"]|"")+)"(\s*\()?|(\w+)(\s*\()?|(:=|[<>=*/%+~])', bare)
    names = []
    for quoted, called, word, calls, sign in tokens:
        name = quoted or word
        if (called or calls) and name.lower() not in _KEEPING_FUNCTIONS:
            return None
        if (word and word.lower() in _OTHER_KEYWORDS) or sign not in ("", ":="):
            return None
        if not (called or calls):
            names.append(name)
    return next((kind for name in names if (kind := personal_data_type(name))), None)


_PHRASE_TYPES = {phrase: kind for kind, phrases in _PHRASES.items() for phrase in phrases}
# compared with `spelled` names, so spelled the same way
_CHARACTER_LISTS = {kind: [spelled(part) for part in parts.split()] for kind, parts in _CHARACTERS.items()}
_WORD_SETS = {kind: frozenset(words.split()) for kind, words in _WORDS.items()}
_STEM_LISTS = {kind: words.split() for kind, words in _STEMS.items()}
_IMPERSONAL_PARTS = tuple(spelled(part) for part in _IMPERSONAL_CHARACTERS)
