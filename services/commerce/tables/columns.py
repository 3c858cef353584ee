"""What the tables share: the schema that each adds itself to, and the types that SQLAlchemy lacks."""

from typing import Any

from sqlalchemy import DateTime, MetaData, text
from sqlalchemy.types import UserDefinedType

metadata = MetaData()

NOW = text("now()")
INSTANT = DateTime(timezone=True)


class Xid8(UserDefinedType[Any]):
    """A transaction's id; the relay's horizon is compared with it."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        """Its name in Postgres."""
        return "xid8"
