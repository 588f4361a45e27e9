"""What roles are called."""

#: Every role but the syntactic ones, which are called by their relation: ``syntactic_nsubj``.
ROLES = (
    "previous_token",
    "next_token",
    "same_token",
    "first_token",
    "special_token",
    "diagonal",
    "positional",
    "broad",
    "rare_word",
    "induction",
    "duplicate_token",
    "alignment",
    "copying",
)
SYNTACTIC = "syntactic_"
