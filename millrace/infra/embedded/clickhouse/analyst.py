"""What an analyst may run: one read of granted views, with capped settings, however the statement is written.

Four checks in this order, each for what the others do not see:

1. settings come from an allow-list and are clamped to the caps;
2. the engine's own parser says that it is one statement that only reads (this stops OUTFILE, SET, KILL, SYSTEM, temporary
   tables and several statements);
3. the statement, *as the engine itself writes it back* (comments gone, here-documents and quoting made plain), begins with an
   allowed word and names no refused function or system table; what runs is that text, so nothing can mean one thing
   to the check and another to the engine;
4. the handle takes the role ``analyst`` and ``readonly = 1``, which deny every table without a grant, ``url()``,
   ``remote()`` and their kind, and any change of settings. The role alone would let the scalar ``file()`` through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from millrace.infra.embedded.clickhouse.engine import Handle
from millrace.infra.embedded.clickhouse.errors import ACCESS_DENIED, READONLY, QueryError
from millrace.infra.embedded.clickhouse.statement import Token, tokens
from millrace.infra.settings import EndpointSettings


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Not join_use_nulls: the views' own joins rest on its default, and readonly = 1 keeps a view from setting it for itself.
FREE_SETTINGS = _words(
    "extremes max_block_size max_result_rows max_result_bytes max_rows_to_read max_bytes_to_read result_overflow_mode "
    "read_overflow_mode date_time_output_format session_timezone limit offset log_comment final"
)
FREE_PREFIXES = tuple(f"output_format_{name}_" for name in ("json", "csv", "tsv", "native", "arrow", "parquet", "pretty"))
FIRST_WORDS = frozenset({"SELECT", "WITH", "EXPLAIN", "DESCRIBE", "EXISTS", "SHOW"})
SHOWN = frozenset({"TABLES", "DATABASES", "COLUMNS", "CREATE", "FULL", "EXTENDED"})
# Refused wherever the word stands, for a function can be named without a bracket after it (APPLY file). They read
# files, open connections, or (Identifier, as a parameter's type) bring a name that was not in the checked text.
REFUSED_WORDS = _words(
    "file python executable identifier hascolumnintable catboostevaluate reversednsquery eval aigenerate aisimilarity aifilter aiclassify "
    "aiembed aiextract airedact aitranslate"
)
# Of the engine's table functions these make rows of their own arguments; every other one is refused.
FREE_TABLE_FUNCTIONS = _words("numbers numbers_mt generateseries generate_series values view null zeros zeros_mt primes format")
SYSTEM_TABLES = _words("one numbers tables columns databases settings functions formats data_type_families table_engines time_zones")
UNCERTAIN = frozenset({"open", "heredoc", "comment"})


def admitted(given: Mapping[str, str], caps: EndpointSettings) -> dict[str, str]:
    """The settings that an analyst's query gets. Raises QueryError 164 for one that is not on the list."""
    limits = {
        "max_execution_time": caps.analyst_execution_seconds,
        "max_memory_usage": float(caps.analyst_memory_bytes),
        "max_threads": float(caps.analyst_threads),
    }
    chosen = {name: str(cap if name == "max_execution_time" else int(cap)) for name, cap in limits.items()}
    for name, value in given.items():
        if name in limits:
            chosen[name] = _clamped(name, value, limits[name])
        elif name in FREE_SETTINGS or name.startswith(FREE_PREFIXES):
            chosen[name] = value
        elif name != "readonly":
            raise QueryError(READONLY, f"Setting {name} is not among those that the user analyst may change")
    return chosen


def _clamped(name: str, value: str, cap: float) -> str:
    try:
        wanted = float(value)
    except ValueError:
        raise QueryError(READONLY, f"Setting {name} must be a number, not {value!r}") from None
    # Zero means "no limit" to the engine.
    kept = min(wanted, cap) if wanted > 0 else cap
    return str(kept if name == "max_execution_time" else int(kept))


def admit(handle: Handle, sql: bytes, database: str, table_functions: frozenset[str]) -> bytes:
    """The statement in the engine's own writing, ready to run. Raises QueryError 497 when it is not an analyst's to run."""
    kind, count = handle.classify(sql, database)
    plain = handle.format_query(sql)  # raises the engine's syntax error, with its position, where there is one
    if count != 1 or kind != "READ_ONLY":
        raise QueryError(ACCESS_DENIED, "analyst: only a single statement that reads is allowed")
    check_words(plain, table_functions)
    return plain


def check_words(plain: bytes, table_functions: frozenset[str]) -> None:
    """Look at every word outside string literals, quoted names included. Raises QueryError 497.

    ``plain`` is the engine's own writing, where no comment, here-document or open quote stands; if one does after all, the
    two of us read the text differently and it is refused.
    """
    found = list(tokens(plain, comments=True))
    if any(token.kind in UNCERTAIN for token in found):
        raise QueryError(ACCESS_DENIED, "analyst: the statement cannot be read with certainty")
    _check_verb([token.word for token in found if token.text != b"("])
    names = [_name(token) for token in found]
    for place, token in enumerate(found):
        # readonly = 1 refuses this clause at the end of a statement, but not inside a subquery.
        if token.word == "SETTINGS" and names[place + 2 : place + 3] == ["="]:
            raise QueryError(READONLY, "analyst: settings go with the request, not into the statement")
        if token.kind in ("word", "quoted"):
            _check_name(names, place, table_functions)


def _check_verb(words: list[str]) -> None:
    if not words or words[0] not in FIRST_WORDS or (words[0] == "SHOW" and not SHOWN.intersection(words[1:2])):
        raise QueryError(
            ACCESS_DENIED, "analyst: only SELECT, EXPLAIN, DESCRIBE, EXISTS, SHOW TABLES / COLUMNS / DATABASES / CREATE are allowed"
        )


def _check_name(names: list[str], place: int, table_functions: frozenset[str]) -> None:
    name, following = names[place], names[place + 1 : place + 3]
    if name in REFUSED_WORDS:
        raise QueryError(ACCESS_DENIED, f"analyst: {name} is not allowed, as a function or as a name")
    if following[:1] == ["("] and name in table_functions - FREE_TABLE_FUNCTIONS:
        raise QueryError(ACCESS_DENIED, f"analyst: the table function {name} is not allowed")
    if name == "system" and not (following[:1] == ["."] and SYSTEM_TABLES.intersection(following[1:])):
        raise QueryError(ACCESS_DENIED, f"analyst: of the database system only {', '.join(sorted(SYSTEM_TABLES))} may be read")


def _name(token: Token) -> str:
    text = token.text.decode(errors="replace")
    if token.kind == "quoted":
        text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text.lower()
