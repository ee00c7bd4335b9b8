r"""Does a reply speak of feedback that its reader has not given, or apologise for a reply that its reader has not seen?

What belongs here: the lexicon, as data, and its reader. What does not: what becomes of a rewrite that does (``rewrites``, ``filters``).

Only the beginning and the end of a reply are read, where an assistant speaks for itself; code, block quotes and quoted text are not, nor are
letters. What the request itself brings up does not count: a request to revise a text may be answered by "the revised version", and one
for an apology by an apology. English, Spanish, Portuguese, French, German, Italian, Russian and Chinese.
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import re

OPENING_CHARACTERS = 250
CLOSING_CHARACTERS = 200
REQUEST_CHARACTERS = 400
"""Of a long request only this many characters at either end are read: the middle is mostly pasted material."""

_FAULT = r"(?:confusions?|misunderstandings?|misinterpretation|miscommunication|mistakes?|errors?|oversights?|inaccurac\w+|omissions?|mix-?ups?|inconveniences?|frustration|incorrect|earlier|previous|repetition|misleading|missing|wrong)"
_REPLY = r"(?:repl(?:y|ies)|answers?|responses?|messages?|versions?|drafts?|explanations?|suggestions?|examples?|instructions?|outputs?|attempts?|codes?|scripts?|solutions?|translations?|lists?|queries|query|functions?|texts?|calculations?|statements?|information|requests?|formulas?|programs?|implementations?)"
_REVISED = r"(?:revised|updated|corrected|modified|improved|rewritten|re-?worked|refined|edited|adjusted|amended|enhanced|expanded|extended|shortened|condensed|simplified|rephrased|reworded|reformatted|fixed|polished|optimi[sz]ed|streamlined|reformulated|revamped)"
_COMPARED = r"(?:(?:even |much |slightly )?(?:shorter|longer|simpler|briefer|clearer|better|(?:more|less) [\w-]+(?:,? (?:and|more|less) [\w-]+)*)|alternat(?:iv)?e|another|different|new)"
_CANNOT = r"(?:can(?:no|['’])?t\b|(?:am )?(?:not |un)able|do(?: not|n['’]t)|as an (?:ai|a\.i)|won['’]t|will not|may not)"

_APOLOGY = re.compile(
    rf"""
    \b(?:i\ (?:\w+\ )?)?apologi[sz]e(?:\ \w+)?\ (?:for|about)\ [^.!?\n]{{0,60}}\b{_FAULT}\b
    |\bapologi(?:es|ze|se)\ if\b
    |\b(?:my\ )?apologies(?:\ \w+)?\ for\ [^.!?\n]{{0,60}}\b{_FAULT}\b
    |^\W*(?:oh\W\ ?|ah\W\ ?|oops\W\ ?)?(?:(?:my|our)\ )?(?:sincere\ )?apologies\b(?!,?\ (?:but\ )?i(?:['’]m)?\ {_CANNOT})
    |^\W*(?:oh\W\ ?|ah\W\ ?|oops\W\ ?)?(?:i(?:['’]m|\ am)\ )?(?:so\ |very\ |really\ |truly\ )?sorry\b(?=[^.!?\n]{{0,60}}\b(?:{_FAULT}|about\ that|for\ that|i\ (?:missed|forgot|overlooked|misunderstood|misread|made|was))\b)
    |^\W*sorry\W+(?:here|let)\b
    |^\W*i\ apologi[sz]e\b(?!,?\ (?:but\ )?(?:i(?:['’]m)?\ {_CANNOT}|as\ an?\b))
    |\b(?:pido|pedimos|mis|te\ pido|le\ pido)\ disculpas\b|\b(?:disculp[ae]n?|perd[oó]n[ae]?|lamento|lo\ siento)\b[^.!?\n]{{0,50}}\b(?:confusi[oó]n|error(?:es)?|malentendido|equivocaci[oó]n|molestias?|inconvenientes?|omisi[oó]n|anterior)
    |\b(?:pe[cç]o|minhas|mil)\ desculpas\b|\bdesculp(?:e|a|as)\b[^.!?\n]{{0,50}}\b(?:confus[aã]o|erros?|mal-?entendido|equ[ií]voco|inconveni\w+|engano|anterior)
    |\b(?:toutes\ )?mes\ (?:sinc[eè]res\ )?excuses\b|\bje\ m['’]excuse\b|\b(?:je\ vous\ prie\ de\ m['’]excuser|veuillez\ m['’]excuser|excuse[zs]?-moi)\b|\bd[eé]sol[eé]e?\b[^.!?\n]{{0,50}}\b(?:confusion|erreurs?|malentendu|oubli|pr[eé]c[eé]dent|inconv[eé]ni\w+)
    |\b(?:entschuldig(?:ung|e|en)|verzeihung|tut\ mir\ leid|bitte\ um\ (?:entschuldigung|verzeihung))\b[^.!?\n]{{0,60}}\b(?:verwirrung|missverst[aä]ndnis|fehler|irrtum|versehen|vorherige\w*|unannehmlichkeit\w*|dass)
    |\b(?:mi\ scuso|chiedo\ scusa|le\ mie\ scuse|scusa(?:mi|te)?\ per|mi\ dispiace\ per)\b
    |(?:приношу\ (?:свои\ )?извинения|прошу\ (?:прощения|извинить)|извините|извиняюсь|извини)(?=[^.!?\n]{{0,40}}(?:ошибк|путаниц|недоразумени|непонимани|неточност|недопонимани|за\ ))
    |(?:抱歉|对不起|對不起|道歉)(?![^。！？\n]{{0,12}}(?:无法|無法|不能|作为|作為|没有|沒有|不会))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_AGREEMENT = re.compile(
    rf"""
    \byou(?:['’]re|\ are)\ (?:absolutely\ |completely\ |quite\ |indeed\ |totally\ )?(?:right|correct)\b
    |\bthank(?:s|\ you)\ (?:\w+\ )?for\ (?:the\ |your\ |this\ |that\ )?(?:additional\ |further\ )?(?:clarif\w+|pointing|feedback|correct\w*|catching|noticing|letting\ me\ know|bringing|highlighting|suggestions?|input)
    |\bgood\ catch\b|\bmy\ (?:mistake|bad|error|oversight)\b
    |\bi\ (?:\w+\ )?(?:misunderstood|misinterpreted|overlooked|misread|misspoke)\b
    |\b(?:(?:my|our)\ (?:previous|earlier|last|initial|first|original)|the\ (?:previous|earlier))\ {_REPLY}\b
    |\b(?:given|with|understanding|based\ on|per|following|considering)\ (?:your|the|this|that)\ (?:\w+\ )?(?:feedback|clarifications?|comments?|corrections?|suggestions?|remarks?)\b
    |\bi\ (?:see|understand|realize|realise)\ now\b|\bi\ now\ (?:see|understand|realize|realise)\b
    |\b(?:tienes|tiene|usted\ tiene)\ (?:toda\ la\ )?raz[oó]n\b|\bgracias\ por\ (?:la\ aclaraci[oó]n|aclarar\w*|se[nñ]alar\w*|la\ correcci[oó]n|tu\ comentario|avisar\w*|corregir\w*)
    |\bvoc[eê]\ (?:est[aá]\ (?:certo|correto|certa)|tem\ (?:toda\ )?raz[aã]o)\b|\bobrigad[oa]\ por\ (?:esclarecer|apontar|corrigir|avisar|sua\ corre\w+|seu\ feedback)
    |\b(?:vous\ avez|tu\ as)\ (?:tout\ [aà]\ fait\ |enti[eè]rement\ )?raison\b|\bmerci\ (?:pour|de)\ (?:la\ |cette\ |votre\ |ta\ |ces\ |vos\ )?(?:pr[eé]cisions?|clarification|remarque|correction|retour|l['’]avoir)
    |\b(?:du\ hast|sie\ haben)\ (?:v[oö]llig\ |absolut\ |nat[uü]rlich\ )?recht\b|\bdanke\ f[uü]r\ (?:den\ hinweis|die\ (?:klarstellung|korrektur|r[uü]ckmeldung|pr[aä]zisierung)|ihr\ feedback|dein\ feedback)
    |\b(?:hai|ha)\ (?:assolutamente\ |perfettamente\ )?ragione\b|\bgrazie\ per\ (?:la\ (?:precisazione|correzione|segnalazione)|il\ (?:chiarimento|feedback)|averlo)
    |(?:вы\ (?:абсолютно\ |совершенно\ )?правы|ты\ прав|спасибо\ за\ (?:уточнение|замечание|исправление|разъяснение|обратную\ связь|поправку))
    |(?:[您你]说[得的]对|[您你]是对的|[您你]說得對|感谢[您你]的(?:指正|纠正|反馈|澄清|提醒|指出|补充)|谢谢[您你]的(?:指正|纠正|反馈|澄清|提醒|指出|补充)|之前的(?:回答|回复|代码|答案)|误解了)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REVISION = re.compile(
    rf"""
    \b(?:here(?:['’]s|\ is|\ are|\ you\ (?:go|have)[:,]?)|(?:below|following|this)\ (?:is|are)|i['’]ve\ (?:written|prepared|made))\ (?:the\ |an?\ |your\ |some\ |\d+\ )?(?:\w+\ )?(?:{_REVISED}|(?:{_COMPARED})\ (?:\w+\ )?(?:{_REPLY}|ones?|takes?|options?|ideas?|variations?))\b
    |^\W*(?:\w+\W+)?(?:the\ )?{_REVISED}\ (?:{_REPLY}|abstract|essay|paragraph|email|title|sentence|story|letter|post|summary)\b
    |\bthe\ {_REVISED}\ (?:\w+\ )?{_REPLY}\b|\bthis\ (?:{_REVISED}\ )?version\b
    |\bi(?:['’]ve|\ have|\ just)?\ (?:now\ |also\ )?(?:{_REVISED}|added|removed|changed|replaced|included|rewrote|made\ (?:it|some|the|a\ few)\ (?:\w+\ )?(?:changes?|corrections?|adjustments?|modifications?|updates?|shorter|longer))\b
    |\blet(?:['’]s|\ me|\ us)\ (?:\w+\ )?(?:try\ (?:that\ |it\ |this\ )?again|correct|re-?phrase|revise|re-?write|re-?do|fix|adjust|modify|update|re-?visit|give\ (?:it|this|that)\ another|clarify|rectify|start\ over|reconsider)\b
    |\bas\ (?:you(?:['’]ve|\ have)?\ )?(?:requested|asked|suggested|specified|instructed|desired)\b|\b(?:as\ )?per\ your\ (?:\w+\ )?(?:requests?|instructions?|feedback|suggestions?|clarification)\b
    |(?<!at\ )\bthis\ time\b|\bwith\ (?:this|these|the|those)\ (?:\w+\ )?(?:changes?|modifications?|corrections?|updates?|adjustments?|revisions?)\b
    |\b(?:versi[oó]n|texto|c[oó]digo|lista|respuesta|ejemplo)\ (?:\w+\ )?(?:corregid|revisad|actualizad|modificad|mejorad|ajustad|resumid|ampliad|simplificad|m[aá]s\ \w+)|\bhe\ (?:corregido|actualizado|modificado|revisado|a[nñ]adido|ajustado|reescrito)\b|\bcomo\ (?:me\ )?(?:pediste|solicitaste|pidi[oó]|has\ pedido|solicit[oó])\b
    |\b(?:vers[aã]o|texto|c[oó]digo|lista|resposta)\ (?:\w+\ )?(?:corrigid|revisad|atualizad|modificad|melhorad|ajustad|resumid|ampliad|simplificad|mais\ \w+)|\b(?:corrigi|atualizei|modifiquei|ajustei)\b|\b(?:conforme|como)\ (?:solicitado|pediu|voc[eê]\ pediu)\b
    |\b(?:version|texte|code|liste|r[eé]ponse)\ (?:\w+\ )?(?:corrig|r[eé]vis|mise?\ [aà]\ jour|modifi|am[eé]lior|ajust|raccourci|compl[eé]t|simplifi|plus\ \w+)|\bj['’]ai\ (?:corrig|modifi|ajout|mis\ [aà]\ jour|r[eé]vis|r[eé][eé]crit)|\bcomme\ (?:vous\ l['’]avez\ |tu\ l['’]as\ )?demand[eé]
    |\b(?:[uü]berarbeitete|korrigierte|aktualisierte|verbesserte|angepasste|gek[uü]rzte|k[uü]rzere|l[aä]ngere|erweiterte|ge[aä]nderte)\w*\ (?:version|fassung|text|code|antwort|liste)|\bich\ habe\b[^.!?\n]{{0,40}}\b(?:korrigiert|angepasst|[uü]berarbeitet|ge[aä]ndert|gek[uü]rzt|aktualisiert|erg[aä]nzt)\b|\bwie\ (?:gew[uü]nscht|von\ ihnen\ gew[uü]nscht)
    |\b(?:versione|testo|codice|lista|risposta)\ (?:\w+\ )?(?:corrett|rivist|aggiornat|modificat|migliorat|ridott|ampliat|semplificat|pi[uù]\ \w+)|\bho\ (?:corretto|aggiornato|modificato|rivisto|aggiunto|riscritto)\b|\bcome\ (?:richiesto|hai\ chiesto)\b
    |(?:исправленн|обновл[её]нн|доработанн|переработанн|сокращ[её]нн|дополненн|измен[её]нн|улучшенн)\w{1, 9}\ (?:\w+\ )?(?:верси|вариант|код|текст|ответ|список)|\bя\ (?:исправил|обновил|изменил|добавил|доработал|переписал)|как\ вы\ (?:и\ )?просили|как\ и\ (?:вы\ )?просили
    |(?:修改|更新|更正|修正|改进|优化|重写|调整|简化|改写|精简|扩展)(?:后|过|之后)的|(?:更正|修正)的|根据[您你]的(?:要求|反馈|建议|意见|提示)|我已(?:经)?(?:修改|更新|更正|修正|添加)|按照[您你]的(?:要求|意见)|这次的
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FAILED = re.compile(
    r"^\W*(?:if|since|as)\b[^.!?\n]{0,200}\b(?:(?:did|does|do|is|are|was)(?:n['’]t|\ not)\ (?:help|work|solve|fix)|still\ (?:not|doesn|having|getting|facing|seeing|experienc|persist|throw))",
    re.IGNORECASE,
)
"""An opening that takes up an attempt that failed; English only."""
_ASKS_ABOUT_FAILURE = re.compile(r"\b(?:not|n['’]t|won|fails?|failed|failing|still|broken)\b|\wn['’]?t work", re.IGNORECASE)
_ASKS_FOR_APOLOGY = re.compile(
    r"apolog|\bsorry\b|disculp|perd[oó]n|lamento|desculp|d[eé]sol[eé]|excus|entschuldig|verzeih|scus[aei]|извин|прощени|抱歉|道歉|对不起",
    re.IGNORECASE,
)
_ASKS_FOR_REVISION = re.compile(
    r"\b(?:re-?(?:writ|wrote|vis|phras|word|do\b|format|factor|work)|edit|correct|proof-?read|improv|fix|polish|shorten|condens|expand|extend|simplif|modif|updat|adjust|optimi[sz]|enhanc|paraphras|summari[sz]|make (?:it|this|that)\b|versions?\b|wrong\b|better\b|shorter\b|longer\b|another\b|alternative)"
    r"|correg|corrij|corrig|mej[oó]r|melhor|reescri|resum|r[eé][eé]cri|am[eé]lior|[uü]berarbeit|korrigier|verbesser|umschreib|k[uü]rz|migliora|riscriv|исправ|поправ|ошибк|перепиш|улучш|сократ|дополн|修改|润色|改写|优化|重写|改进|改正|缩写|扩写",
    re.IGNORECASE,
)
_LETTER = re.compile(
    r"^\W*(?:subject|betreff|asunto|assunto|objet|oggetto|тема|主题|dear|hi|hello|hey|estimad[oa]s?|querid[oa]s?|caro|cara|prezad[oa]s?|cher|ch[eè]re|bonjour|liebe[rs]?|sehr geehrte|gentile|egregio|уважаем\w+|здравствуйте|尊敬的|亲爱的|\[your name\])\b[^\n]{0,60}(?:,|:|\n)",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"```.*?(?:```|\Z)|^[ \t]*>.*$|“[^“”]*”|«[^«»]*»|\"[^\"\n]*\"|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def mentions_feedback(reply: str, request: str) -> bool:
    """Whether ``reply`` speaks as one that was given before, was criticised, and is given again.

    Args:
        reply: A reply that is to stand as the first one.
        request: The message that it answers.
    """
    said = _HIDDEN.sub(" ", reply).strip()
    opening, closing = said[:OPENING_CHARACTERS], said[OPENING_CHARACTERS:][-CLOSING_CHARACTERS:]
    asked = request if len(request) <= 2 * REQUEST_CHARACTERS else f"{request[:REQUEST_CHARACTERS]}\n{request[-REQUEST_CHARACTERS:]}"
    if not _LETTER.search(reply[:120]) and not _ASKS_FOR_APOLOGY.search(asked) and _finds(_APOLOGY, opening, closing):
        return True
    if _finds(_AGREEMENT, opening):
        return True
    if _FAILED.search(opening) and not _ASKS_ABOUT_FAILURE.search(asked):
        return True
    return not _ASKS_FOR_REVISION.search(asked) and _finds(_REVISION, opening, closing)


def _finds(pattern: re.Pattern[str], *parts: str) -> bool:
    return any(pattern.search(part) for part in parts)
