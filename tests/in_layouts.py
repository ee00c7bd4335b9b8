"""The same made-up dialogues in every layout that can be read, as each system would have written them.

What belongs here: one writer for each layout, and the dialogues. What does not: odd rows, and versions of a layout
(``unit/test_layouts_*``).

A conversation is named like the dialogue in every layout, by what that calls a conversation. Where a layout has no conversations but
requests, it is the request whose id a conversation takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rlhi_dagster.conversations.sources import SourceKind
from tests.sources import completion, lines

Row = dict[str, Any]

START = datetime(2023, 4, 1, tzinfo=UTC)
"""What the setting ``assumed_start`` is to be for these sources."""


@dataclass(frozen=True)
class Exchange:
    """What a user said and what was replied.

    Attributes:
        asked: The user's words.
        answered: The reply.
        at: When the user spoke; the reply came three seconds later.
    """

    asked: str
    answered: str
    at: datetime

    @property
    def ended(self) -> datetime:
        return self.at + timedelta(seconds=3)


@dataclass(frozen=True)
class Dialogue:
    """A user's conversation with a model.

    Attributes:
        name: What its conversation is called.
        user: Who speaks.
        model: Who replies.
        exchanges: What was said, in order.
    """

    name: str
    user: str
    model: str
    exchanges: tuple[Exchange, ...]

    @property
    def start(self) -> datetime:
        return self.exchanges[0].at

    def told(self, until: int | None = None) -> list[tuple[str, str, datetime]]:
        """Role, text and time of each message, of the first exchanges or of all."""
        return [
            message
            for each in self.exchanges[:until]
            for message in (("user", each.asked, each.at), ("assistant", each.answered, each.ended))
        ]

    def requests(self) -> Iterator[tuple[str, list[Row], Exchange]]:
        """Of each exchange an id, the history with what is asked, as chat APIs have it, and the exchange itself; the last has the name."""
        for number, each in enumerate(self.exchanges, start=1):
            name = self.name if number == len(self.exchanges) else f"{self.name}.{number}"
            yield name, [*plain(self.told(number - 1)), {"role": "user", "content": each.asked}], each


def plain(told: Sequence[tuple[str, str, datetime]]) -> list[Row]:
    """Messages as chat APIs have them."""
    return [{"role": role, "content": text} for role, text, _ in told]


_TOPICS = (
    "tulips", "sourdough", "tax forms", "a bike tyre", "night trains", "bees", "chess openings", "knots", "mortar", "jazz chords",
    "desert maps", "fractions",
)  # fmt: skip
_COMPLAINTS = (
    ("Shorter, please.", "Briefly, {}: two words suffice."),
    ("No, use bullet points.", "- {}\n- and nothing else"),
    ("That is wrong, check it again.", "You are right, of {} I said it wrongly. Here it is corrected."),
    ("Write it in plain words, without jargon.", "Simply put: {} are easier than they look."),
)
_LAST = (
    ("Thanks, that is perfect!", "Gladly."),
    ("Now what does it cost?", "Of {} the price depends on the season."),
    ("Shorter!", "{}: yes."),
)


def dialogues(users: int = 6) -> list[Dialogue]:
    """Two conversations of each user: a request, a complaint which is the user's own, and thanks or another request.

    They begin in April 2023, one a day, so that of up to 14 users no run of that month lacks any.
    """
    made = []
    for number in range(2 * users):
        user, topic = number % users, f"{_TOPICS[number % len(_TOPICS)]}"
        complaint, last = _COMPLAINTS[user % len(_COMPLAINTS)], _LAST[number % len(_LAST)]
        said = (
            (f"Tell me about {topic}, as in lesson {number}.", "There is much to say about {}, so I begin at the very beginning."),
            complaint,
            last,
        )
        start = START + timedelta(days=number + 1, hours=9)
        exchanges = [Exchange(asked, reply.format(topic), start + timedelta(minutes=n)) for n, (asked, reply) in enumerate(said)]
        made.append(Dialogue(f"d{number}", f"cust-{user}", f"model-{number % 2}", tuple(exchanges)))
    return made


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _nano(moment: datetime) -> str:
    return f"{round(moment.timestamp()) * 10**9}"


def _wildchat(each: Dialogue) -> Iterator[Row]:
    said = [{"role": role, "content": text, "timestamp": _iso(at) if role == "assistant" else None} for role, text, at in each.told()]
    own = {"conversation_hash": each.name, "model": each.model, "timestamp": _iso(each.start), "conversation": said, "turn": len(said) // 2}
    yield own | {"language": "English", "toxic": False, "redacted": False, "hashed_ip": each.user, "header": None}


def _realhumaneval(each: Dialogue) -> Iterator[Row]:
    seconds = (each.start - START).total_seconds()
    own = {"conversation_id": each.name, "user_id": each.user, "model": each.model, "start_seconds": seconds}
    yield own | {"conversation": plain(each.told())}


def _lmsys(each: Dialogue) -> Iterator[Row]:
    said = plain(each.told())
    own = {"conversation_id": each.name, "model": each.model, "conversation": said, "turn": len(said) // 2, "language": "English"}
    yield own | {"openai_moderation": [{"flagged": False} for _ in said], "redacted": False}


def _arena(each: Dialogue) -> Iterator[Row]:
    """Nobody won, so that the only preferences are those in the dialogue."""
    said = plain(each.told())
    sides = {"conversation_a": said, "conversation_b": [*said[:-1], {"role": "assistant", "content": "Something else."}]}
    own = {"question_id": each.name, "model_a": each.model, "model_b": "another", "winner": "tie", "judge": each.user}
    yield own | sides | {"turn": 3, "language": "English", "tstamp": each.start.timestamp()}


def _oasst(each: Dialogue) -> Iterator[Row]:
    """A row is a tree of one branch."""
    below: list[Row] = []
    for number, (role, text, at) in reversed(list(enumerate(each.told()))):
        who = {"prompter": each.user, "assistant": "a volunteer"}[role := "prompter" if role == "user" else role]
        parent = f"{each.name}.{number - 1}" if number else None
        own = {"message_id": f"{each.name}.{number}", "parent_id": parent, "user_id": who, "created_date": _iso(at), "text": text}
        model = each.model if role == "assistant" else None
        below = [own | {"role": role, "lang": "en", "deleted": False, "rank": None, "model_name": model, "replies": below}]
    yield {"message_tree_id": each.name, "tree_state": "ready_for_export", "prompt": below[0]}


def _chatgpt(folder: Path, said: Sequence[Dialogue]) -> None:
    """An export is a folder of one person."""
    for user in sorted({each.user for each in said}):
        conversations = [_chatgpt_row(each) for each in said if each.user == user]
        (folder / user).mkdir(parents=True)
        (folder / user / "conversations.json").write_text(json.dumps(conversations))
        (folder / user / "user.json").write_text(json.dumps({"id": user, "email": "x@example.com", "chatgpt_plus_user": False}))


def _chatgpt_row(each: Dialogue) -> Row:
    names = ["root", *(f"{each.name}.{number}" for number in range(len(each.told())))]
    nodes: dict[str, Row] = {"root": {"id": "root", "message": None, "parent": None, "children": names[1:2]}}
    for number, (role, text, at) in enumerate(each.told(), start=1):
        message = {"id": names[number], "author": {"role": role, "name": None}, "create_time": at.timestamp(), "weight": 1.0}
        message |= {"content": {"content_type": "text", "parts": [text]}, "status": "finished_successfully", "recipient": "all"}
        message |= {"metadata": {"model_slug": each.model} if role == "assistant" else {}}
        nodes[names[number]] = {"id": names[number], "message": message, "parent": names[number - 1], "children": names[number + 1 :][:1]}
    own = {"id": each.name, "conversation_id": each.name, "title": "t", "create_time": each.start.timestamp()}
    return own | {"mapping": nodes, "current_node": names[-1], "default_model_slug": each.model}


def _claude_code(folder: Path, said: Sequence[Dialogue]) -> None:
    """A session is a file; a folder says whose machine it was."""
    for each in said:
        rows: list[Row] = []
        for number, (role, text, at) in enumerate(each.told()):
            message: Row = {"role": role, "content": text}
            if role == "assistant":
                message |= {"id": f"msg_{number}", "model": each.model, "content": [{"type": "text", "text": text}]}
            own = {"uuid": f"{each.name}.{number}", "parentUuid": f"{each.name}.{number - 1}" if number else None, "type": role}
            own |= {"isSidechain": False, "userType": "external", "cwd": "/home/ann/shop", "sessionId": each.name, "version": "2.1.0"}
            rows.append(own | {"message": message, "timestamp": _iso(at)})
        lines(folder / f"user={each.user}" / "-home-ann-shop" / f"{each.name}.jsonl", rows)


def _codex(folder: Path, said: Sequence[Dialogue]) -> None:
    """A session is a file; a folder says whose machine it was."""
    for each in said:
        meta = {"id": each.name, "timestamp": _iso(each.start), "cwd": "/home/ann/shop", "originator": "codex_cli", "cli_version": "0.1"}
        rows = [
            {"timestamp": _iso(each.start), "type": "session_meta", "payload": meta},
            {"timestamp": _iso(each.start), "type": "turn_context", "payload": {"cwd": "/home/ann/shop", "model": each.model}},
        ]
        for role, text, at in each.told():
            content = [{"type": "output_text" if role == "assistant" else "input_text", "text": text}]
            event = {"type": "agent_message" if role == "assistant" else "user_message", "message": text}
            rows.append({"timestamp": _iso(at), "type": "event_msg", "payload": event})
            rows.append({"timestamp": _iso(at), "type": "response_item", "payload": {"type": "message", "role": role, "content": content}})
        lines(folder / f"user={each.user}" / "2023" / "04" / f"rollout-2023-04-01T00-00-00-{each.name}.jsonl", rows)


def _langfuse(each: Dialogue) -> Iterator[Row]:
    """Observations, which name the model, as the table is exported."""
    for name, asked, exchange in each.requests():
        own = {"id": f"{name}-o", "traceId": name, "traceName": "chat", "type": "GENERATION", "name": "answer"}
        own |= {"startTime": _iso(exchange.at), "endTime": _iso(exchange.ended), "userId": each.user, "sessionId": each.name}
        own |= {"level": "DEFAULT", "providedModelName": each.model, "parentObservationId": None, "metadata": {}, "tags": []}
        yield own | {"input": asked, "output": {"role": "assistant", "content": exchange.answered}}


def _langsmith(each: Dialogue) -> Iterator[Row]:
    for name, asked, exchange in each.requests():
        own = {"id": name, "name": "ChatOpenAI", "run_type": "llm", "trace_id": name, "parent_run_id": None, "session_id": "project"}
        own |= {"start_time": exchange.at.isoformat()[:19], "end_time": exchange.ended.isoformat()[:19], "status": "success", "error": None}
        extra = {"metadata": {"thread_id": each.name, "user_id": each.user}, "invocation_params": {"model": each.model}}
        reply = {"choices": [{"message": {"role": "assistant", "content": exchange.answered}}]}
        yield own | {"inputs": {"messages": asked}, "outputs": reply, "extra": extra}


def _open_webui(each: Dialogue) -> Iterator[Row]:
    tree: dict[str, Row] = {}
    for number, (role, text, at) in enumerate(each.told()):
        name, parent = f"{each.name}.{number}", f"{each.name}.{number - 1}" if number else None
        if parent is not None:
            tree[parent]["childrenIds"] = [name]
        tree[name] = {"id": name, "parentId": parent, "childrenIds": [], "role": role, "content": text, "timestamp": round(at.timestamp())}
        if role == "assistant":
            tree[name] |= {"model": each.model, "done": True}
    seconds = round(each.start.timestamp())
    own = {"id": each.name, "user_id": each.user, "title": "t", "created_at": seconds, "updated_at": seconds + 500, "archived": False}
    chat = {"models": [each.model], "history": {"currentId": name, "messages": tree}, "messages": list(tree.values())}
    yield own | {"chat": chat}


def _librechat(each: Dialogue) -> Iterator[Row]:
    """Messages of the database, a row each."""
    for number, (role, text, at) in enumerate(each.told()):
        parent = f"{each.name}.{number - 1}" if number else "00000000-0000-0000-0000-000000000000"
        own = {
            "messageId": f"{each.name}.{number}",
            "conversationId": each.name,
            "user": each.user,
            "parentMessageId": parent,
            "text": text,
        }
        own |= {"sender": "User" if role == "user" else "GPT", "isCreatedByUser": role == "user", "endpoint": "openAI", "error": False}
        own |= {"model": each.model if role == "assistant" else None, "unfinished": False}
        yield own | {"createdAt": {"$date": _iso(at)}, "updatedAt": {"$date": _iso(at)}}


def _openinference(each: Dialogue) -> Iterator[Row]:
    """Spans as Phoenix's REST interface gives them."""
    for name, asked, exchange in each.requests():
        told = [{"message": message} for message in asked]
        attributes = {"openinference.span.kind": "LLM", "llm.model_name": each.model, "session.id": each.name, "user.id": each.user}
        attributes |= {"llm.input_messages": told}
        attributes |= {"llm.output_messages": [{"message": {"role": "assistant", "content": exchange.answered}}]}
        own = {"id": name, "name": "ChatCompletion", "context": {"trace_id": f"t-{name}", "span_id": name}, "span_kind": "LLM"}
        own |= {"parent_id": None, "start_time": _iso(exchange.at), "end_time": _iso(exchange.ended), "status_code": "OK"}
        yield own | {"attributes": attributes, "events": []}


def _otel(each: Dialogue) -> Iterator[Row]:
    """An envelope of OTLP for each span."""
    for name, asked, exchange in each.requests():
        reply = {"role": "assistant", "parts": [{"type": "text", "content": exchange.answered}], "finish_reason": "stop"}
        told = [{"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]} for message in asked]
        said = {"gen_ai.operation.name": "chat", "gen_ai.conversation.id": each.name, "user.id": each.user}
        said |= {"gen_ai.request.model": each.model, "gen_ai.response.model": each.model, "gen_ai.response.id": f"chatcmpl-{name}"}
        said |= {"gen_ai.input.messages": json.dumps(told), "gen_ai.output.messages": json.dumps([reply])}
        attributes = [{"key": key, "value": {"stringValue": value}} for key, value in said.items()]
        span = {"traceId": f"t-{name}", "spanId": name, "parentSpanId": "", "name": "chat", "kind": 3, "attributes": attributes}
        span |= {"startTimeUnixNano": _nano(exchange.at), "endTimeUnixNano": _nano(exchange.ended)}
        yield {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [span]}]}]}


def _completion(name: str, each: Dialogue, exchange: Exchange) -> Row:
    return completion(name, exchange.answered, round(exchange.ended.timestamp())) | {"model": each.model}


def _litellm(each: Dialogue) -> Iterator[Row]:
    for name, asked, exchange in each.requests():
        own = {"id": name, "trace_id": f"t-{name}", "session_id": each.name, "call_type": "acompletion", "status": "success"}
        own |= {"startTime": exchange.at.timestamp(), "endTime": exchange.ended.timestamp(), "model": each.model, "end_user": each.user}
        yield own | {"messages": asked, "response": _completion(name, each, exchange), "metadata": {}, "error_str": None}


def _helicone(each: Dialogue) -> Iterator[Row]:
    for name, asked, exchange in each.requests():
        own = {"request_id": name, "request_created_at": _iso(exchange.at), "request_user_id": each.user, "request_model": each.model}
        own |= {"request_body": {"model": each.model, "messages": asked}, "request_properties": {"Helicone-Session-Id": each.name}}
        own |= {"response_id": f"{name}-r", "response_created_at": _iso(exchange.ended), "response_status": 200}
        yield own | {"response_body": _completion(name, each, exchange), "response_model": each.model, "feedback_rating": None}


def _openai_responses(each: Dialogue) -> Iterator[Row]:
    """A chain: each response names the one before it, and holds what is new; the conversation has the first one's name."""
    before = None
    for number, exchange in enumerate(each.exchanges):
        name = f"{each.name}.{number}" if number else each.name
        said = {"type": "message", "id": f"msg_{name}", "role": "assistant", "status": "completed"}
        said |= {"content": [{"type": "output_text", "text": exchange.answered, "annotations": []}]}
        response = {"id": name, "object": "response", "created_at": round(exchange.at.timestamp()), "model": each.model, "error": None}
        response |= {"status": "completed", "output": [said], "previous_response_id": before, "safety_identifier": each.user}
        yield {"request": {"model": each.model, "input": exchange.asked, "previous_response_id": before}, "response": response}
        before = name


def _anthropic(each: Dialogue) -> Iterator[Row]:
    for name, asked, exchange in each.requests():
        request = {"model": each.model, "max_tokens": 100, "messages": asked, "metadata": {"user_id": each.user}}
        reply = {"id": name, "type": "message", "role": "assistant", "model": each.model, "stop_reason": "end_turn"}
        reply |= {"content": [{"type": "text", "text": exchange.answered}]}
        yield {"timestamp": _iso(exchange.at), "request": request, "response": reply}


def _openai(each: Dialogue) -> Iterator[Row]:
    for name, asked, exchange in each.requests():
        request = {"model": each.model, "messages": asked, "user": each.user}
        yield {"timestamp": _iso(exchange.at), "request": request, "response": _completion(name, each, exchange)}


def _messages(each: Dialogue) -> Iterator[Row]:
    own = {"conversation_id": each.name, "user_id": each.user, "model": each.model, "created_at": _iso(each.start)}
    yield own | {"messages": [{"role": role, "content": text, "timestamp": _iso(at)} for role, text, at in each.told()]}


_ROWS: Mapping[SourceKind, Callable[[Dialogue], Iterator[Row]]] = {
    SourceKind.WILDCHAT: _wildchat,
    SourceKind.REALHUMANEVAL: _realhumaneval,
    SourceKind.LMSYS: _lmsys,
    SourceKind.ARENA: _arena,
    SourceKind.OASST: _oasst,
    SourceKind.LANGFUSE: _langfuse,
    SourceKind.LANGSMITH: _langsmith,
    SourceKind.OPEN_WEBUI: _open_webui,
    SourceKind.LIBRECHAT: _librechat,
    SourceKind.OPENINFERENCE: _openinference,
    SourceKind.OTEL: _otel,
    SourceKind.LITELLM: _litellm,
    SourceKind.HELICONE: _helicone,
    SourceKind.OPENAI_RESPONSES: _openai_responses,
    SourceKind.ANTHROPIC: _anthropic,
    SourceKind.OPENAI: _openai,
    SourceKind.MESSAGES: _messages,
}
"""The rows of a dialogue, where a source is one file of rows."""

_FILES: Mapping[SourceKind, Callable[[Path, Sequence[Dialogue]], None]] = {
    SourceKind.CHATGPT: _chatgpt,
    SourceKind.CLAUDE_CODE: _claude_code,
    SourceKind.CODEX: _codex,
}
"""Layouts whose files and folders say something, too."""

WITHOUT_USERS = frozenset({SourceKind.LMSYS})
"""Published without users: each conversation is a user's of its own."""
WITHOUT_TIMES = frozenset({SourceKind.LMSYS, SourceKind.REALHUMANEVAL})
"""Published without calendar times; RealHumanEval counts seconds from the setting ``assumed_start``."""


WITHOUT_TIMES_OF_MESSAGES = WITHOUT_TIMES | {SourceKind.WILDCHAT, SourceKind.ARENA}
"""What a user said has no time of its own, but that of the conversation."""


def write(kind: SourceKind, folder: Path, said: Sequence[Dialogue]) -> Path:
    """Write dialogues into a folder in a layout, the rows of one conversation beside those of others, as logs have them."""
    if kind in _FILES:
        _FILES[kind](folder, said)
    else:
        rows = [list(_ROWS[kind](each)) for each in said]
        longest = max(map(len, rows))
        lines(folder / "log.jsonl", (each[number] for number in range(longest) for each in rows if number < len(each)))
    return folder
