"""Names of the roles, and what a head with each does."""

#: Every role but the syntactic ones, which are called by their relation: ``syntactic_nsubj``.
MEANING = {
    "previous_token": "looks at the token before",
    "next_token": "looks at the token after",
    "same_token": "looks at the token itself",
    "first_token": "looks at the first token (a sink)",
    "special_token": "looks at special tokens (a sink)",
    "diagonal": "looks at the token itself and two on either side",
    "positional": "looks at one fixed offset in nearly all rows",
    "near_uniform": "spreads its attention about evenly, as untrained heads do too",
    "rare_word": "looks at the rarest token",
    "induction": "looks at the token after an earlier place of the same token",
    "duplicate_token": "looks at other places of the same token",
    "alignment": "moves along the source as the text is written",
    "copying": "raises the token that it looks at",
}
ROLES = tuple(MEANING)
SYNTACTIC = "syntactic_"


def meaning_of(role: str) -> str:
    """Describe what a head with a role does."""
    return MEANING.get(role) or f"looks from one word of {role.removeprefix(SYNTACTIC)} to the other"
