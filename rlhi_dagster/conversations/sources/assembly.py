"""How records become conversations: messages by their parents, and requests that each repeat their history.

What belongs here: putting together the records of one conversation. What does not: which records those are (``decoded``), and what a
record says (``layouts``).

Both are one thing: every message is a node whose parent is the message before it. In a tree the source names the parents; of requests
with their history, messages are the same if they and all before them say the same. The conversation is the path to the leaf that the source
shows, else the best ranked path, else that to the latest leaf; a reply that broke off, or was an error, only where there is no other.
Replies that were left on the way become feedback on those that were kept.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, zip_longest

from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Giver, Message, Place, Record

CONTINUED = "a later row repeats and continues it"
PART = "part of the conversation of another row"
BRANCH = "a branch that was left for another"
SAME = "another row of the same request"

_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_SOON = timedelta(days=1)


@dataclass(slots=True)
class Thread:
    """A conversation put together.

    Attributes:
        record: The conversation, with messages in order.
        place: The row that it is accounted under: the last that adds to it.
        others: Further rows that it was made of, or that it supersedes, with the reason.
    """

    record: Record
    place: Place
    others: list[tuple[Place, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    message: Message
    parent: str | None
    order: int
    children: list[str] = field(default_factory=list)


_Step = tuple[str, str | None, Message]


def assemble(records: Sequence[tuple[Place, Record]], assembly: Assembly) -> list[Thread]:
    """Put records together that share their `Record.group`, or else their opening.

    Requests that share no more than their opening are one conversation only where one repeats and continues the other.

    Args:
        records: In the order of the source.
        assembly: How; not `Assembly.WHOLE`.

    Returns:
        One thread for a tree; where every record is one message, one for each message that others name as before them and that is nowhere.
        Of requests, one for each first message: what continues no other is a conversation of its own.
    """
    if len(records) == 1 and records[0][1].group is None and assembly is not Assembly.TREE:
        return [Thread(record, place) for place, record in records]
    beside = [record for _, record in records if record.note is not None]
    passed = {message.id: message.parent for record in beside for message in record.messages or () if message.id is not None}
    ordered = _in_time([each for each in records if each[1].note is None])
    is_tree, is_named = assembly is Assembly.TREE, any(record.group is not None for _, record in ordered)
    is_session = assembly is Assembly.SESSION and is_named
    paths = list(_by_parents(ordered, passed) if is_tree else _by_history(ordered, is_session=is_session))
    nodes = _nodes([step for _, path in paths for step in path], is_tree=is_tree)
    ends = {place: path[-1][0] for place, path in paths if path}
    tops = _linked(nodes)
    by_place = dict(ordered)
    if not is_named and not is_tree:
        followed: dict[str, list[datetime | None]] = {}
        for place, path in paths:
            for name, _, _ in path[:-1]:
                followed.setdefault(name, []).append(by_place[place].started_at)
        threads = _continued(nodes, ends, by_place, followed, is_request=assembly is not Assembly.GROWN)
    else:
        ends |= {place: shown for place, record in ordered if place in ends and (shown := record.current) is not None and shown in nodes}
        current = next((each.current for each in (*(record for _, record in ordered[::-1]), *beside) if each.current in nodes), None)
        starts = [[top] for top in tops]
        if is_tree:
            is_torn = all(len(record.messages or ()) <= 1 for _, record in ordered)
            starts = _torn(nodes, tops) if is_torn else [tops]
        threads = [_thread(nodes, start, ends, by_place, current, assembly) for start in starts if start]
    taken = {place for thread in threads for place in (thread.place, *(other for other, _ in thread.others))}
    silent = [(place, record) for place, record in ordered if place not in taken]
    if is_tree and threads:
        threads[0].others += [(place, PART) for place, _ in silent]
        for thread in threads:
            for record in (*beside, *(record for _, record in silent)):
                thread.record.conversation_id = thread.record.conversation_id or record.conversation_id
                thread.record.user_key = thread.record.user_key or record.user_key
                thread.record.model = thread.record.model or record.model
    else:
        threads += [Thread(record, place) for place, record in silent]  # judged as they are
    return _named_apart(threads)


def one_request(records: Sequence[tuple[Place, Record]]) -> Thread:
    """Keep one record of a request (`Record.request`): the outermost that has a question and a reply; of several the longest, and the last.

    What it lacks (user, session, model) is taken from the others.
    """

    def rank(each: tuple[int, tuple[Place, Record]]) -> tuple[int, int, int, datetime, int]:
        number, (_, record) = each
        said = [message.role for message in record.messages or () if message.text.strip()]
        return len({"user", "assistant"} & set(said)), -record.depth, len(said), record.started_at or _LONG_AGO, number

    place, kept = max(enumerate(records), key=rank)[1]
    whole = filled(kept, [record for _, record in reversed(records)])
    return Thread(whole, place, [(other, SAME) for other, _ in records if other != place])


def filled(kept: Record, others: Sequence[Record]) -> Record:
    """A record of a request with what it lacks itself and others of the request say."""
    found = [kept, *(record for record in others if record is not kept)]
    named = next((record for record in found if record.group is not None), kept)
    return replace(
        kept,
        group=named.group,
        conversation_id=named.conversation_id,
        user_key=next((record.user_key for record in found if record.user_key), None),
        started_at=min((record.started_at for record in found if record.started_at is not None), default=None),
        model=next((record.model for record in found if record.model), None),
        language=next((record.language for record in found if record.language), None),
    )


def past(passed: Mapping[str, str | None], name: str | None) -> str | None:
    """The message before another, or the nearest before it that is not passed over."""
    seen = set[str]()
    while name is not None and name in passed and name not in seen:
        seen.add(name)
        name = passed[name]
    return name


def _in_time(records: Sequence[tuple[Place, Record]]) -> list[tuple[Place, Record]]:
    """Records by their time; one without a time stays behind the one before it."""
    moment, moments = _LONG_AGO, []
    for _, record in records:
        moment = record.written_at or record.started_at or moment
        moments.append(moment)
    return [records[number] for number in sorted(range(len(records)), key=moments.__getitem__)]


def _nodes(steps: Iterable[_Step], *, is_tree: bool) -> dict[str, _Node]:
    """Messages by name, in the order of their times if a tree has all of them. Of a message in several states, the last that has text."""
    nodes: dict[str, _Node] = {}
    for name, parent, message in steps:
        known = nodes.setdefault(name, _Node(message, parent, len(nodes)))
        if is_tree and (message.text.strip() or not known.message.text.strip()):
            known.message, known.parent = message._replace(slot=message.slot or known.message.slot), parent
        elif not is_tree and known.message is not message:  # a history says neither when its messages were sent nor in which requests
            known.message = known.message._replace(id=known.message.id or message.id, sent_at=known.message.sent_at or message.sent_at)
    if is_tree and all(node.message.sent_at is not None for node in nodes.values()):
        for order, node in enumerate(sorted(nodes.values(), key=lambda node: node.message.sent_at or _LONG_AGO)):
            node.order = order
    return nodes


def _linked(nodes: dict[str, _Node]) -> list[str]:
    """Give nodes their children, and return those without a parent; of nodes that are each other's parents, the first has none."""
    tops: list[str] = []
    for name, node in nodes.items():
        (nodes[node.parent].children if node.parent in nodes else tops).append(name)
    reached = set(_below(nodes, tops))
    for name, node in nodes.items():
        if name not in reached and node.parent in nodes:
            nodes[node.parent].children.remove(name)
            node.parent = None
            tops.append(name)
            reached.update(_below(nodes, [name]))
    return tops


def _torn(nodes: dict[str, _Node], tops: list[str]) -> list[list[str]]:
    """First messages, those together that name the same message before them: they are alternatives of each other."""
    found: dict[str | None, list[str]] = {}
    for top in tops:
        found.setdefault(nodes[top].parent, []).append(top)
    return list(found.values())


def _below(nodes: dict[str, _Node], names: Sequence[str]) -> list[str]:
    """Nodes and all that come after them."""
    found = list(names)
    for name in found:
        found.extend(nodes[name].children)
    return found


def _is_reply(node: _Node) -> bool:
    return node.message.role == "assistant" and node.message.is_whole and bool(node.message.text.strip())


def _rank(node: _Node) -> tuple[bool, int]:
    """What a branch ends with: anything rather than a reply that is none, and what is later rather than what is earlier."""
    return node.message.role != "assistant" or _is_reply(node), node.order


def _continued(
    nodes: dict[str, _Node],
    ends: dict[Place, str],
    by_place: dict[Place, Record],
    followed: dict[str, list[datetime | None]],
    *,
    is_request: bool,
) -> list[Thread]:
    """Rows that no later one repeats and continues, each with those it continues; ``followed`` is by message the starts of rows beyond."""
    starts = {end: sorted(start for start in followed.get(end, ()) if start is not None) for end in set(ends.values())}

    def is_last(place: Place, end: str) -> bool:
        if end not in followed:
            return True
        record, later = by_place[place], starts[end]
        start = record.started_at
        if is_request or record.user_key is not None or _has_exchanges(record):
            return start is not None and len(later) == len(followed[end]) and later[-1] < start
        # Conversations of two people may begin alike (a greeting); a row that follows soon is of the same.
        return start is None or not any(each - start <= _SOON for each in later[bisect_left(later, start) :][:1])

    found = {place: Thread(by_place[place], place) for place, end in ends.items() if is_last(place, end)}
    at = {ends[place]: thread for place, thread in found.items()}
    for place, end in ends.items():
        if place not in found:
            at[_last_below(nodes, end)].others.append((place, CONTINUED))
    for thread in found.values():
        if thread.others:
            thread.record = _filled_by(thread.record, [by_place[place] for place, _ in thread.others])
    return list(found.values())


def _filled_by(record: Record, others: Sequence[Record]) -> Record:
    """A conversation with its start, and its messages with the names and times, that only the rows say that it continues."""
    told = zip_longest(*([message for message in each.messages or () if _is_told(message)] for each in (record, *others)))
    filled = (
        own._replace(
            id=next((each.id for each in (own, *same) if each is not None and each.id is not None), None),
            sent_at=next((each.sent_at for each in (own, *same) if each is not None and each.sent_at is not None), None),
        )
        for own, *same in told
    )
    messages = [next(filled) if _is_told(message) else message for message in record.messages or ()]
    starts = [each.started_at for each in (record, *others) if each.started_at is not None]
    return replace(record, messages=messages, started_at=min(starts, default=None))


def _has_exchanges(record: Record) -> bool:
    """Whether the user spoke again after a reply."""
    said = [message.role for message in record.messages or () if message.role != "system" and message.text.strip()]
    return ("assistant", "user") in pairwise(said)


def _thread(
    nodes: dict[str, _Node],
    tops: list[str],
    ends: dict[Place, str],
    by_place: dict[Place, Record],
    current: str | None,
    assembly: Assembly,
) -> Thread:
    """The conversation below some first messages, which are alternatives of each other."""
    here = dict.fromkeys(_below(nodes, tops))
    leaf = max((name for name in here if not nodes[name].children), key=lambda name: _rank(nodes[name]))
    if current is not None and current in here:
        shown, before = nodes[current], nodes[current].parent
        is_none = not (_rank(shown)[0] or shown.children)
        leaf = _last_below(nodes, before if is_none and before in nodes else current)
    elif any(nodes[name].message.rank is not None for name in here):
        leaf = _best_below(nodes, tops)
    path = _path(nodes, leaf)
    on_path = set(path)
    rows = sorted((place for place, end in ends.items() if end in here), key=lambda place: ends[place] not in on_path)
    kept = max((place for place in rows if ends[place] in on_path), key=lambda place: nodes[ends[place]].order, default=rows[-1])
    thread = Thread(_joined([by_place[place] for place in rows], by_place[kept], nodes, path, tops), kept)
    on_the_way = PART if assembly is Assembly.TREE else CONTINUED
    thread.others = [(place, BRANCH if _is_left(nodes, ends[place], on_path, assembly) else on_the_way) for place in rows if place != kept]
    return thread


def _is_left(nodes: dict[str, _Node], name: str, on_path: set[str], assembly: Assembly) -> bool:
    """Whether a message is of a branch; in a tree, one begins with a message of the user or a reply to one, not beside steps of one."""
    while name not in on_path:
        parent = nodes[name].parent
        is_alternative = parent not in nodes or "user" in (nodes[name].message.role, nodes[parent].message.role)
        if is_alternative or parent is None or assembly is not Assembly.TREE:
            return True
        name = parent
    return False


def _named_apart(threads: list[Thread]) -> list[Thread]:
    """Conversations of one session under names of their own."""
    seen: dict[str, int] = {}
    for thread in threads:
        name = thread.record.conversation_id
        if name is not None and thread.record.group is not None:
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                thread.record.conversation_id = f"{name}#{seen[name]}"
    return threads


def _joined(records: list[Record], kept: Record, nodes: dict[str, _Node], path: list[str], tops: list[str]) -> Record:
    starts = [record.started_at for record in records if record.started_at is not None]
    feedback = [each for record in records for each in record.feedback]
    return Record(
        conversation_id=next((record.conversation_id for record in records if record.conversation_id), None),
        group=kept.group,
        user_key=next((record.user_key for record in records if record.user_key), None),
        address=next((record.address for record in records if record.address), None),
        started_at=min(starts, default=None),
        is_start_assumed=any(record.is_start_assumed for record in records),
        model=kept.model or next((record.model for record in records if record.model), None),
        language=next((record.language for record in records if record.language), None),
        is_toxic=any(record.is_toxic for record in records) if any(record.is_toxic is not None for record in records) else None,
        messages=[nodes[name].message for name in path],
        feedback=[*feedback, *_left(nodes, path, tops, feedback)],
    )


def _left(nodes: dict[str, _Node], path: list[str], tops: list[str], given: list[Feedback]) -> Iterable[Feedback]:
    """Replies that were left for those of a path, but for those that the user voted on.

    Another try is left as soon as there is a later one; of answers given side by side one is chosen by going on from it; of ranked ones
    annotators chose the better. A reply in several messages is one.
    """
    voted = {(each.target, each.text) for each in given if each.kind == FeedbackKind.CHOICE}
    thumbs = {each.target: each.value for each in given if each.kind == FeedbackKind.THUMB and each.giver == Giver.END_USER}
    for number, name in enumerate(path):
        before = nodes[path[number - 1]] if number else None
        if nodes[name].message.role != "assistant" or (before is not None and before.message.role != "user"):
            continue
        others = [other for other in (tops if before is None else before.children) if other != name]
        kept, following = _reply(nodes, path[number:]) if others else (None, None)
        for other in others:
            left, _ = _reply(nodes, _down(nodes, other))
            if kept is None or left is None or {(kept.id, left.text), (left.id, kept.text)} & voted:
                continue
            if kept.rank is not None and left.rank is not None:
                if kept.rank < left.rank < math.inf:
                    yield Feedback(kept.id, FeedbackKind.CHOICE, text=left.text, giver=Giver.STAFF)
            elif kept.slot == left.slot:
                yield Feedback(kept.id, FeedbackKind.REGENERATION, thumbs.get(left.id), left.text, kept.sent_at)
            elif following is not None:
                yield Feedback(kept.id, FeedbackKind.CHOICE, text=left.text, given_at=following.sent_at)


def _reply(nodes: dict[str, _Node], names: Iterable[str]) -> tuple[Message | None, Message | None]:
    """The whole reply that some messages begin with, under the name of its last one, and the user's message after it."""
    said: list[Message] = []
    following = None
    for name in names:
        if nodes[name].message.role == "user":
            following = nodes[name].message
            break
        if nodes[name].message.role == "assistant" and nodes[name].message.text.strip():
            said.append(nodes[name].message)
    if not said or not said[-1].is_whole:
        return None, following
    text = "\n\n".join(message.text for message in said)
    return said[-1]._replace(text=text, slot=said[0].slot, rank=said[0].rank), following


def _down(nodes: dict[str, _Node], name: str) -> Iterator[str]:
    """A message and what follows it, of alternatives the last."""
    yield name
    while nodes[name].children:
        name = max(nodes[name].children, key=lambda child: _rank(nodes[child]))
        yield name


def _last_below(nodes: dict[str, _Node], name: str) -> str:
    *_, last = _down(nodes, name)
    return last


def _best_below(nodes: dict[str, _Node], names: list[str]) -> str:
    """The end of the path that takes, of alternatives, always the best ranked."""
    name = ""
    while names:
        name = min(names, key=lambda each: (math.inf if (rank := nodes[each].message.rank) is None else rank, nodes[each].order))
        names = nodes[name].children
    return name


def _path(nodes: dict[str, _Node], name: str | None) -> list[str]:
    path: list[str] = []
    seen: set[str] = set()
    while name in nodes and name not in seen:
        seen.add(name)
        path.append(name)
        name = nodes[name].parent
    return path[::-1]


def _by_parents(records: Sequence[tuple[Place, Record]], passed: Mapping[str, str | None]) -> Iterable[tuple[Place, list[_Step]]]:
    ids = {message.id for _, record in records for message in record.messages or () if message.id is not None}
    is_linked = any(past(passed, message.parent) in ids for _, record in records for message in record.messages or ())
    last: str | None = None
    for place, record in records:
        path: list[_Step] = []
        for number, message in enumerate(record.messages or ()):
            name = message.id if message.id is not None else f"{place.file}#{place.number}#{number}"
            path.append((name, past(passed, message.parent) if is_linked and message.id is not None else last, message))
            last = name
        yield place, path


def _by_history(records: Sequence[tuple[Place, Record]], *, is_session: bool) -> Iterable[tuple[Place, list[_Step]]]:
    told = [(place, record, [each for each in record.messages or () if _is_told(each)]) for place, record in _parents_first(records)]
    # What has other roles will be rejected, and what is rejected displaces nothing.
    told = [each for each in told if {"user", "assistant"}.issuperset(message.role for message in each[2])]
    is_session = is_session and not any(_has_history(messages) for _, _, messages in told)
    openings: set[str] = set()
    last: str | None = None
    end_of: dict[str | None, str | None] = {}
    for place, record, messages in told:
        # In a session without histories a request is the next turn, unless it begins as another did: then it repeats that one.
        opening = next((_digest(None, message) for message in messages), None)
        name, path = last if is_session and opening not in openings else None, []
        if record.parent is not None:
            name = last if record.parent == record.group else end_of.get(record.parent, record.parent)
        for message in messages:
            before, name = name, _digest(name, message)
            path.append((name, before, message))
        if opening is not None and path[0][1] is None:
            openings.add(opening)
        last = path[-1][0] if path else last
        end_of[record.request] = name
        yield place, path


def _parents_first(records: Sequence[tuple[Place, Record]]) -> Iterator[tuple[Place, Record]]:
    """The records in their order, but each after its parent: a list may begin with the latest, and clocks are coarse."""
    by_request = {record.request: (place, record) for place, record in records if record.request is not None}
    done: set[Place] = set()
    for each in records:
        before: list[tuple[Place, Record]] = []
        at: tuple[Place, Record] | None = each
        while at is not None and at[0] not in done:
            done.add(at[0])
            before.append(at)
            at = by_request.get(at[1].parent) if at[1].parent is not None else None
        yield from reversed(before)


def _is_told(message: Message) -> bool:
    """Whether a message is a part of the history that tells conversations apart."""
    return message.role != "system" and bool(message.text.strip())


def _has_history(messages: Sequence[Message]) -> bool:
    """Whether a request repeats an earlier exchange: a user speaks before and after an assistant."""
    turns = "".join((message.role or "?")[0] for message in messages)
    return "ua" in turns and "u" in turns[turns.index("ua") + 2 :]


def _digest(before: str | None, message: Message) -> str:
    """A name for a message after what was said before."""
    said = f"{before}\x00{message.role}\x00{message.text}"
    return hashlib.blake2b(said.encode(errors="replace"), digest_size=12).hexdigest()
