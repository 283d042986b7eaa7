"""LangSmith is switched on by its own variables; what is said in conversations is hidden from it unless they say so."""

import os
import re

# Where langchain looks for them.
_SWITCHES = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2")


def prepare_langsmith() -> None:
    """Before the first call of a model. Off, nothing of LangSmith runs."""
    if not any(os.environ.get(name, "").strip() == "true" for name in _SWITCHES):
        return
    from langsmith.run_trees import get_cached_client

    hidden = {side: _hidden(side) for side in ("INPUTS", "OUTPUTS")}
    # The one that langchain uses from here on.
    get_cached_client(
        hide_inputs=hidden["INPUTS"],
        hide_outputs=hidden["OUTPUTS"],
        anonymizer=_without_error_texts if any(hidden.values()) else None,
    )


def _hidden(side: str) -> bool:
    return os.environ.get(f"LANGSMITH_HIDE_{side}", "true").strip().lower() != "false"


def _without_error_texts(data: dict[str, object]) -> dict[str, object]:
    """An error's text quotes what was said; its type does not."""
    error = data.get("error")
    return {**data, "error": re.findall(r"^[\w.]*", error)[0]} if isinstance(error, str) else data
