"""The checker of types and shapes in signatures: beartype, accepting an int as a float as static checkers do."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
