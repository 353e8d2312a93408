"""Read as much of a statement as the endpoint must know: its verb, its format, and where an insert's data begins.

Pure functions over bytes. The engine's own parser has the last word; what is read here only decides how to hand the
statement over (streamed, materialized, or as an insert from a file).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    rb"(?P<space>\s+)"
    rb"|(?P<comment>--[^\n]*|#[ !][^\n]*|/\*.*?\*/)"
    rb"|(?P<string>'(?:[^'\\]|\\.|'')*')"
    rb"|(?P<quoted>`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")"
    rb"|(?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"
    rb"|(?P<word>[A-Za-z_][\w$]*)"
    rb"|(?P<number>\d[\w.]*)"
    rb"|(?P<open>'|`|\"|/\*|\$\w*\$)"
    rb"|(?P<symbol>.)",
    re.DOTALL,
)
OPENING, CLOSING = frozenset(b"([{"), frozenset(b")]}")
VERBS = frozenset(
    {"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "INSERT", "CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"}
    | {"OPTIMIZE", "DELETE", "UPDATE", "SET", "USE", "KILL", "SYSTEM", "BACKUP", "RESTORE", "CHECK", "GRANT", "REVOKE", "ATTACH", "DETACH"}
)
STREAMED_VERBS = frozenset({"SELECT", "WITH", "FROM"})
# Only these can be sent block by block: every other format has a header or a footer of the whole result.
STREAMED_FORMATS = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow", "JSONCompactEachRow"})


@dataclass(frozen=True, slots=True)
class Token:
    """One token that counts: its kind, text, place and depth of brackets around it."""

    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    @property
    def word(self) -> str:
        """The upper-case keyword, or nothing when this is no bare word."""
        return self.text.decode().upper() if self.kind == "word" else ""


@dataclass(frozen=True, slots=True)
class Insert:
    """``INSERT INTO t (cols) [SETTINGS ...] FORMAT x`` cut apart, and the offset at which its data begins."""

    target: bytes
    settings: bytes
    format: str
    data_offset: int

    def from_file(self, path: str) -> str:
        """The same insert, reading its data from a file: SETTINGS must stand between INFILE and FORMAT."""
        # Each part on a line of its own: a comment at the end of one must not swallow the next.
        parts = (self.target.decode(), f"FROM INFILE '{path}' COMPRESSION 'none'", self.settings.decode(), f"FORMAT {self.format}")
        return "\n".join(parts)


class Incomplete(Exception):
    """The buffer ends inside the head of an insert: more bytes are needed to decide."""


def tokens(sql: bytes, comments: bool = False) -> Iterator[Token]:
    """The tokens that count, in order. A quote or comment that never closes is one token of kind ``open``."""
    depth = 0
    for match in TOKEN.finditer(sql):
        kind = match.lastgroup if match.lastgroup != "tag" else "heredoc"
        if kind == "space" or (kind == "comment" and not comments):
            continue
        text = match.group()
        if kind == "symbol" and text[0] in CLOSING:
            depth -= 1
        yield Token(kind or "symbol", text, match.start(), match.end(), depth)
        if kind == "symbol" and text[0] in OPENING:
            depth += 1


def verb(sql: bytes) -> str:
    """The statement's first keyword in upper case, brackets before it aside; empty if there is none."""
    for token in tokens(sql):
        if token.text not in (b"(", b";"):
            return token.word
    return ""


def kind(sql: bytes) -> str:
    """The verb in lower case for logs and metrics, ``other`` for a word that begins no statement."""
    word = verb(sql)
    return word.lower() if word in VERBS else "other"


def output_format(sql: bytes, default: str) -> str:
    """The format the result will have: that of the statement's own FORMAT clause, else the default."""
    last = list(tokens(sql))
    for keyword, name, after in zip(last, last[1:], [*last[2:], None], strict=False):
        ends = after is None or after.text == b";" or after.word in ("SETTINGS", "INTO")
        if ends and keyword.word == "FORMAT" and name.kind in ("word", "quoted") and name.depth == 0:
            return name.text.decode().strip('`"')
    return default


def touches_client_files(sql: bytes) -> bool:
    """Whether it says INTO OUTFILE or FROM INFILE, which a client does with its own files and a server never."""
    pair = ("", "")
    for token in tokens(sql):
        pair = (pair[1], token.word)
        if pair in (("INTO", "OUTFILE"), ("FROM", "INFILE")):
            return True
    return False


def is_streamed(sql: bytes, format_name: str) -> bool:
    """Whether the result may be sent block by block: a plain read, in a format without frame, without totals."""
    if format_name not in STREAMED_FORMATS or verb(sql) not in STREAMED_VERBS:
        return False
    return all(token.word != "TOTALS" for token in tokens(sql))


def parse_insert(sql: bytes, complete: bool) -> Insert | None:
    """Cut an insert that brings data; None when it brings none (INSERT SELECT, INFILE, or something else).

    Raises Incomplete if ``sql`` is only the beginning of the text and does not hold the whole head.
    """
    stream = tokens(sql)
    first = next(stream, None)
    if not complete and (first is None or first.end == len(sql)):
        return _more()
    if first is None or first.word != "INSERT":
        return None
    body = _after_table(stream)
    settings: Token | None = None
    columns = False
    while (token := next(body, None)) is not None:
        if token.kind == "open":
            break
        if columns and token.word in ("SELECT", "WITH"):
            return None
        columns = token.text == b"(" and token.depth == 0
        if token.depth:
            continue
        if token.word in ("SELECT", "WITH", "FROM", "WATCH"):
            return None
        if token.word == "SETTINGS":
            settings = token
        elif token.word == "VALUES":
            return _cut(sql, first, settings, token, token) if complete or token.end < len(sql) else _more()
        elif token.word == "FORMAT":
            name = next(body, None)
            if name is not None and (complete or name.end < len(sql) - 2):
                return _cut(sql, first, settings, token, name)
    return None if complete else _more()


def _more() -> Insert | None:
    raise Incomplete


def _after_table(stream: Iterator[Token]) -> Iterator[Token]:
    """The tokens after the table's name, so that a table may be called ``format`` or ``values``."""
    token = next(stream, None)
    while token is not None and token.word in ("INTO", "TABLE"):
        token = next(stream, None)
    if token is not None and token.word == "FUNCTION":
        token = next(stream, None)
    following = next(stream, None)
    while following is not None and following.text == b".":
        next(stream, None)
        following = next(stream, None)
    if token is not None and token.text == b"{":
        while following is not None and following.text != b"}":
            following = next(stream, None)
        following = next(stream, None)
    if following is not None:
        yield following
        yield from stream


def _cut(sql: bytes, first: Token, settings: Token | None, keyword: Token, last: Token) -> Insert:
    target_end = settings.start if settings else keyword.start
    clause = sql[settings.start : keyword.start] if settings else b""
    name = "Values" if keyword.word == "VALUES" else last.text.decode().strip('`"')
    offset = last.end if keyword.word == "VALUES" else _data_start(sql, last.end)
    return Insert(sql[first.start : target_end], clause, name, offset)


def _data_start(sql: bytes, position: int) -> int:
    """Where data begins after FORMAT x: past blanks and one line end, as ClickHouse's parser has it."""
    while sql[position : position + 1] in (b" ", b"\t", b"\f"):
        position += 1
    if sql[position : position + 1] == b";":
        position += 1
    if sql[position : position + 1] == b"\r":
        position += 1
    if sql[position : position + 1] == b"\n":
        position += 1
    return position
