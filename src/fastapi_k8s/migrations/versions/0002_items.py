"""The table of the example domain. It needs PostgreSQL 18, which introduced uuidv7()."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE items (
            id uuid PRIMARY KEY DEFAULT uuidv7(),
            name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
            description text CHECK (char_length(description) <= 10000),
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE items")
