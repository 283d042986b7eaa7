"""A text as terms that can be compared: in languages that part words, and in those that do not."""

import re
import unicodedata

_DENSE = r"\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(rf"([{_DENSE}]+)|(?:(?![{_DENSE}])[^\W_])+")
# So much of a word is the same in its forms, mostly: company and companies, cliente and clientes.
STEM = 6

_FILLER_TEXT = """
    a about all also am an and any are as at be been but by can could did do does for from had has have he her his how
    i if in is it its me mine my no not of on or our please she should so some tell that the their them then there
    they this to up us was we were what when where which who why will with would yes you your
    ao aos as ate com como da das de dela dele do dos e ela ele em era essa esse esta este eu foi isso ja la lhe mais
    mas me meu meus minha minhas na nas nao no nos nossa nosso o os ou para pela pelo por qual quais quando que quem
    se sem ser seu sim sou sua tem tenho ter um uma umas uns voce
    我的 我是 是我 我们 你们 什么 么是 怎么 请问 可以 一下 多少 哪里 吗 的 了 是 我 你 在 有
    저는 나는 제가 내가 나의 우리 무엇 뭐야 인가 가요 나요 어디 어떻 떻게 습니 니다 입니 세요 이다 제 내
"""
_FILLERS = frozenset(_FILLER_TEXT.split())


def terms(text: str) -> list[str]:
    """Each term once, in order: words by their beginnings, runs of Chinese, Japanese or Korean by pairs."""
    found: dict[str, None] = {}
    for match in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        if match[1]:
            pairs = [run[at : at + 2] for at in range(len(run) - 1)] or [run]
            found.update(dict.fromkeys(pair for pair in pairs if pair not in _FILLERS))
        elif (word := _plain(run)) not in _FILLERS:
            found[word[:STEM]] = None
    return list(found)


def _plain(word: str) -> str:
    """Without accents, which people leave out."""
    return "".join(one for one in unicodedata.normalize("NFD", word) if not unicodedata.combining(one))
